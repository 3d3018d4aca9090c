// The page of `segnb serve`: images go to the server one by one; what comes back is looked at, and corrected, on the canvas.
import {Canvas, fromRuns, make, toRuns} from './canvas.js';

const $ = s => document.querySelector(s), main = $('#main'), facts = JSON.parse(main.dataset.facts), says = $('#says');
const items = [], pause = ms => new Promise(done => setTimeout(done, ms));
let now = null, running = false, ui = null;
const tell = (text, bad = false) => { says.textContent = text; says.className = bad ? 'bad' : ''; };

// ---- the server
async function ask(path, fields, wait = () => {}) {
  for (let tries = 0; ; tries++) {
    const form = new FormData();
    for (const [k, v] of Object.entries(fields)) if (v != null && v !== '') form.append(k, v, ...v instanceof Blob ? [v.name ?? k] : []);
    let reply;
    try { reply = await fetch(path, {method: 'POST', body: form}); }
    catch { throw new Error('The server does not answer. Is segnb serve still running?'); }
    const answer = await reply.json().catch(() => ({error: `The server answered ${reply.status}.`}));
    if (reply.ok) return answer;
    const after = +reply.headers.get('retry-after');
    if (!after || tries > 30) throw Object.assign(new Error(answer.error), {status: reply.status});
    for (let s = Math.min(after, 60); s > 0; s--) { wait(`Many images are waiting. This one is sent again in ${s} s.`); await pause(1000); }
  }
}
async function patiently(promise, wait) {                   // says how long the line is while it waits
  let over = false;
  promise.finally(() => over = true).catch(() => {});
  for (await pause(900); !over; await pause(1000)) {
    const h = await fetch('/health').then(r => r.json()).catch(() => null);
    if (h?.waiting > 1 && !over) wait(`${h.waiting-1} before this one, about ${Math.max(1, Math.round(h.seconds))} s`);
  }
  return promise;
}

// ---- images
async function add(files) {
  const list = [...files];
  if (!list.length) return;
  main.classList.add('busy');
  $('#about').hidden = true;
  for (const f of list) {
    if (!f.type.startsWith('video/')) items.push({file: f, name: f.name || 'pasted image', state: 'waiting'});
    else { run(); await frames(f).catch(e => tell(e.message, true)); }
    list_();
    run();
  }
}
// a clip, one frame a second: each is an image like any other
async function frames(f) {
  const video = make('video', {muted: true, playsInline: true, preload: 'auto', src: URL.createObjectURL(f)});
  const event = name => new Promise((done, fail) => {
    video.addEventListener(name, done, {once: true});
    video.addEventListener('error', () => fail(new Error(`${f.name}: this browser cannot play it. segnb predict can label clips.`)), {once: true});
  });
  await event('loadeddata');
  const c = make('canvas', {width: video.videoWidth, height: video.videoHeight}), end = Number.isFinite(video.duration) ? video.duration : 0;
  for (let t = 0; t === 0 || t < end; t++) {
    while (items.filter(i => i.state === 'waiting').length > 3) await pause(200);          // it waits for the model
    const seeked = event('seeked');
    video.currentTime = t;
    await seeked;
    c.getContext('2d').drawImage(video, 0, 0);
    const blob = await new Promise(done => c.toBlob(done, 'image/jpeg', .92));
    items.push({file: blob, name: `${f.name}, ${t} s`, state: 'waiting'});
    list_();
    run();
  }
  URL.revokeObjectURL(video.src);
}
async function run() {
  if (running) return;
  running = true;
  for (let it; (it = items.find(i => i.state === 'waiting')); ) {
    const left = items.filter(i => i.state === 'waiting').length;
    tell(left > 1 ? `Labelling ${it.name} (${left} to go) …` : `Labelling ${it.name} …`);
    await predict(it);
    tell(it.state === 'failed' ? `${it.name}: ${it.why}` : '', it.state === 'failed');
    list_();
    if (!now && it.state === 'done') show(it);
  }
  running = false;
}
async function predict(it) {
  it.state = 'busy';
  try {
    const wait = t => tell(`${it.name}: ${t}`), r = await patiently(ask('/predict', {image: it.file, view: '1'}, wait), wait);
    const bitmap = async (b64, type) => createImageBitmap(blob_(b64, type));
    Object.assign(it, {result: r, mask: null, verdict: null, thumb: `data:image/jpeg;base64,${r.image}`,
      bitmap: await bitmap(r.image, 'image/jpeg'), heat: await bitmap(r.unsure, 'image/png'), state: 'done'});
    $('#model').textContent = r.version > 1 ? `model version ${r.version}` : '';
  } catch (e) { Object.assign(it, {state: 'failed', why: e.message}); }
}
const blob_ = (b64, type) => new Blob([Uint8Array.from(atob(b64), c => c.charCodeAt(0))], {type});

function list_() {
  $('#items').replaceChildren(...items.length < 2 && items[0]?.state !== 'failed' ? [] : items.map(it => {
    const mark = {right: '✓ right', corrected: '✎ corrected'}[it.verdict] ?? {failed: '! not labelled', waiting: 'waiting', busy: '…'}[it.state] ?? '';
    const b = make('button', {type: 'button', title: it.why ?? it.name, 'aria-current': String(it === now)},
      it.thumb ? make('img', {src: it.thumb, alt: ''}) : make('i'), make('span', {textContent: it.name}), make('span', {textContent: mark}));
    b.onclick = () => it.state === 'done' ? show(it) : it.state === 'failed' ? again(it) : null;
    return b;
  }));
}
function again(it) { it.state = 'waiting'; list_(); run(); }

// ---- one image
function build() {
  const button = (text, cls, act) => make('button', {type: 'button', textContent: text, className: cls, onclick: act});
  const place = make('div'), o = ui = {};
  o.name = make('h2'); o.about = make('p'); o.told = make('div', {className: 'told', role: 'status', 'aria-live': 'polite'});
  o.layers = Object.entries({mask: 'Classes', heat: 'Uncertainty', none: 'Image'}).map(([k, t]) => {
    const b = button(t, '', () => layer(k));
    b.dataset.layer = k;
    return b;
  });
  o.right = button('✓ Yes, it is right', 'main', () => judge('right'));
  o.correct = button('✎ Correct it', '', () => edit(true));
  o.save = button('Save the correction', 'main', () => judge('corrected'));
  o.reset = button('Begin again', '', () => { load(now, now.result.runs); now.mask = null; });
  o.stop = button('Stop', '', () => edit(false));
  o.comment = make('textarea', {rows: 2, placeholder: 'A comment, if you like', 'aria-label': 'comment', maxLength: 5000});
  o.who = make('input', {type: 'text', placeholder: 'Your name, if you like', 'aria-label': 'your name', maxLength: 200, autocomplete: 'name'});
  o.agreed = make('input', {type: 'checkbox', id: 'agreed', onchange: () => o.agree.classList.remove('ask')});
  o.agree = make('label', {className: 'agree'}, o.agreed, make('span', {textContent:
    'I agree that this image, the prediction and what I say of it are kept by this server, to improve the model.'}));
  o.mine = button('Delete all that I have left here', 'link', forget);
  o.mine.hidden = !localStorage.getItem('segnb-owner');
  o.question = make('h3', {textContent: 'Is this right?'});
  $('#work').append(place, make('aside', {}, o.name, o.about, make('div', {className: 'seg', role: 'group', 'aria-label': 'show'}, ...o.layers),
    make('div', {className: 'row'}, button('Download mask', '', async () => save(await o.canvas.png(), 'mask')),
      button('Download overlay', '', async () => save(await o.canvas.overlay(), 'overlay'))),
    make('div', {className: 'card', hidden: !facts.store}, o.question, make('div', {className: 'row'}, o.right, o.correct),
      make('div', {className: 'row'}, o.save, o.reset, o.stop), o.agree, o.comment, o.who, o.told, o.mine)));
  o.canvas = new Canvas(place, {classes: facts.classes, colors: facts.colors, onchange: c => { now.mask = toRuns(c.mask); now.verdict = null; }});
}
function load(it, runs) {
  const [height, width] = it.result.size, n = height*width;
  ui.canvas.load({image: it.bitmap, heat: it.heat, width, height, mask: fromRuns(runs, n), start: fromRuns(it.result.runs, n)});
}
function show(it) {
  now = it;
  $('#work').hidden = false;
  if (!ui) build();
  const [h, w] = it.result.size;
  ui.name.textContent = it.name;
  ui.about.textContent = `${w} × ${h} pixels, uncertainty ${(100*it.result.uncertainty).toFixed(1)} %, model version ${it.result.version}`;
  ui.told.textContent = {right: 'Saved as right. Thank you.', corrected: 'Your correction is saved. Thank you.'}[it.verdict] ?? '';
  ui.told.className = 'told good';
  if (it.note) say(it.note, false);
  it.note = null;
  ui.comment.value = '';
  load(it, it.mask ?? it.result.runs);
  layer('mask');
  edit(false);
  list_();
}
function layer(k) {
  ui.canvas.layer = k;
  for (const b of ui.layers) b.setAttribute('aria-pressed', b.dataset.layer === k);
  ui.canvas.says.textContent = k === 'heat' ? 'Bright where the model is uncertain.' : '';
  ui.canvas.draw();
}
function edit(on) {
  ui.canvas.editable = on;
  const shown = {right: !on && !now.mask, correct: !on, save: on || now.mask && !now.verdict, reset: on, stop: on};
  for (const [k, v] of Object.entries(shown)) ui[k].hidden = !v;
  ui.correct.textContent = now.mask ? '✎ Go on correcting' : '✎ Correct it';
  ui.question.textContent = on ? 'Pick a class and paint' : now.mask ? 'Your correction' : 'Is this right?';
  if (on) { layer('mask'); ui.canvas.el.scrollIntoView({block: 'nearest', behavior: 'instant'}); ui.canvas.view.focus({preventScroll: true}); ui.canvas.says.textContent = 'Pick a class below the image, and paint with the brush. Undo takes a stroke back.'; }
}
function say(text, good) { ui.told.textContent = text; ui.told.className = `told ${good ? 'good' : 'bad'}`; }

async function judge(verdict) {
  if (!ui.agreed.checked) {
    ui.agree.classList.add('ask');
    ui.agreed.focus();
    return say('Nothing is kept without your agreement: tick the box above first.', false);
  }
  if (verdict === 'corrected' && !now.mask) return say('There is no correction yet: paint on the image.', false);
  const it = now, buttons = [ui.right, ui.save];
  let owner = localStorage.getItem('segnb-owner');
  if (!owner) localStorage.setItem('segnb-owner', owner = [...crypto.getRandomValues(new Uint8Array(16))].map(v => v.toString(16).padStart(2, '0')).join(''));
  for (const b of buttons) b.disabled = true;
  say('Saving …', true);
  try {
    const sent = it.mask, mask = verdict === 'corrected' ? new Blob([JSON.stringify(sent)]) : null;
    await ask('/feedback', {image: it.file, verdict, mask, agreed: 'yes', owner, model: it.result.model, who: ui.who.value, comment: ui.comment.value},
      t => say(t, true));
    if (it.mask === sent) it.verdict = verdict;
    ui.mine.hidden = false;
    if (it === now) { say(verdict === 'right' ? 'Saved as right. Thank you.' : 'Your correction is saved. Thank you.', true); edit(false); }
  } catch (e) {
    say(e.message, false);
    if (e.status === 409) { Object.assign(it, {state: 'waiting', note: e.message}); now = null; run(); }
  }
  for (const b of buttons) b.disabled = false;
  list_();
}
async function forget() {
  if (!confirm('Delete all images, predictions and corrections that were sent from this browser?')) return;
  try {
    const {deleted} = await ask('/forget', {owner: localStorage.getItem('segnb-owner')});
    localStorage.removeItem('segnb-owner');
    ui.mine.hidden = true;
    for (const it of items) it.verdict = null;
    say(`Deleted: ${deleted} ${deleted === 1 ? 'image' : 'images'} with all that belongs to them.`, true);
  } catch (e) { say(e.message, false); }
  list_();
}
function save(blob, what) {
  const a = make('a', {href: URL.createObjectURL(blob), download: `${now.name.replace(/\.[^.]*$/, '')}_${what}.png`});
  a.click();
  setTimeout(() => URL.revokeObjectURL(a.href), 10_000);
}

// ---- ways in
$('#files').onchange = e => { add(e.target.files); e.target.value = ''; };
addEventListener('paste', e => add([...e.clipboardData.files]));
for (const t of ['dragenter', 'dragover']) addEventListener(t, e => { e.preventDefault(); document.body.classList.add('over'); });
for (const t of ['dragleave', 'drop']) addEventListener(t, e => { if (t === 'drop' || !e.relatedTarget) document.body.classList.remove('over'); });
addEventListener('drop', e => { e.preventDefault(); add(e.dataTransfer.files); });
addEventListener('beforeunload', e => { if (items.some(i => i.mask && !i.verdict)) e.preventDefault(); });
