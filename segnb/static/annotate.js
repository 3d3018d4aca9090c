// The view of `annotate`, written behind canvas.js into one module. A stroke is in the browser's storage before
// it is sent, and leaves it when the kernel has said that the file is written: no dead kernel and no closed tab loses it.
const SEND_AFTER = 250, WAIT = 4000;                        // milliseconds: after a stroke; for the kernel's answer

function render({model, el}) {
  const prefix = `segnb:${model.get('folder')}:`, pending = new Map();
  let now = null, count = 0, flying = null, timer = null, soon = null, brought = 0;
  const button = (text, title, act) => make('button', {type: 'button', textContent: text, title, onclick: act});
  const name = make('b'), progress = make('span'), bar = make('progress', {max: model.get('total'), value: 0});
  const says = make('div', {className: 'sgc-says', 'aria-live': 'polite', role: 'status'}), ask = make('div', {hidden: true, role: 'alert'});
  const head = make('div', {className: 'sgc-tools'},
    button('← previous', 'Page Up', () => open(now.at-1)), button('next →', 'Page Down: this one stays as it is', () => open(now.at+1)),
    button('done, next ✓', 'Ctrl+Enter: save the mask as it is shown, and go on', done), name, progress, bar);
  const place = make('div');
  const root = el.appendChild(make('div', {className: 'sgc segnb-annotate'}, head, ask, place, says));
  el.dataset.lmSuppressShortcuts = 'true';                  // JupyterLab leaves the keys to us
  bar.style.width = '90px';
  ask.style.cssText = 'border:1px solid #b45309;border-radius:7px;padding:8px;margin:4px 0';
  const canvas = new Canvas(place, {classes: model.get('classes'), colors: model.get('colors'), height: () => Math.max(320, .62*innerHeight), onchange: keep});

  function store(at, rec) {
    pending.set(at, rec);
    try { localStorage.setItem(prefix+at, JSON.stringify(rec)); return true; }
    catch { return false; }                                 // storage is full or forbidden: it is kept in the page
  }
  function drop(at) { pending.delete(at); try { localStorage.removeItem(prefix+at); } catch {} }

  function keep() {
    if (!now?.name) return;                                 // it cannot be read
    const safe = store(now.name, {runs: toRuns(canvas.mask), size: [canvas.height, canvas.width], base: now.base, n: ++count});
    says.textContent = safe ? 'saving …' : 'saving … (this browser stores nothing: do not close the page before it is saved)';
    clearTimeout(soon);
    soon = setTimeout(flush, SEND_AFTER);
  }
  function send(message) { try { model.send(message); } catch (e) { console.debug(e); } }
  function flush() {
    const next = [...pending].find(([, r]) => !r.stuck);
    if (flying || !next) return;
    const [at, rec] = next;
    flying = {at, n: rec.n};
    send({save: at, ...rec});
    timer = setTimeout(() => {
      flying = null;
      says.textContent = 'The kernel does not answer: it is busy, or it has died. What you painted is kept in this browser. ' +
        'If you restart the kernel, run this cell again, and it will be saved.';
      flush();
    }, WAIT);
  }
  function open(at) {
    if (at < 0 || at >= model.get('total')) return;
    if (now?.at !== at && !says.textContent.startsWith('The kernel')) says.textContent = '';
    send({open: at});
  }
  function done() { keep(); open(now.at+1); }

  function decide(why, rec, at) {                           // the file is not the one that was painted on
    const end = act => () => { ask.hidden = true; act(); flush(); };
    ask.replaceChildren(make('div', {textContent: why}), make('div', {className: 'sgc-tools'},
      button('keep what I painted', 'Write it over the file', end(() => { delete rec.stuck; rec.over = true; rec.n = ++count; store(at, rec); })),
      button('keep the file', 'Forget what was painted', end(() => { drop(at); if (now?.name === at) open(now.at); }))));
    ask.hidden = false;
  }

  async function told(message, buffers) {
    if (message.answer === 'saved' || message.answer === 'refused') {
      const rec = pending.get(message.name);
      if (flying?.at === message.name && flying.n === message.n) { clearTimeout(timer); flying = null; }
      if (message.answer === 'refused') {
        // a stroke that was sent while the kernel was busy with the one before: it is asked for anew
        const late = rec && rec.base !== message.asked;
        if (!late) says.textContent = message.why;
        if (rec && !late) { rec.stuck = true; if (rec.n === message.n) decide(message.why, rec, message.name); }
      } else {
        if (rec?.n === message.n) drop(message.name); else if (rec) store(message.name, {...rec, base: message.base, over: false});
        if (now?.name === message.name) now.base = message.base;
        says.textContent = pending.size ? 'saving …' : brought ? `saved ${message.name} (painted before, kept by this browser)` : `saved ${message.name}`;
        if (!pending.size) brought = 0;
      }
      tell(message);
      flush();
    } else if (message.answer === 'image') {
      const data = buffers[0], bytes = data instanceof ArrayBuffer ? data : new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
      const image = await createImageBitmap(new Blob([bytes], {type: 'image/jpeg'})), [height, width] = message.size, n = height*width;
      now = {at: message.at, name: message.name, base: message.base};
      const rec = pending.get(now.name), mine = rec && rec.size[0] === height && rec.size[1] === width;
      canvas.editable = true;
      canvas.load({image, width, height, mask: fromRuns(mine ? rec.runs : message.runs, n), start: fromRuns(message.runs, n)});
      name.textContent = message.name;
      name.title = message.about;
      head.children[0].disabled = now.at === 0;
      head.children[1].disabled = now.at === model.get('total')-1;
      tell(message);
    } else if (message.answer === 'failed') {               // it can be neither shown nor painted on
      now = {at: message.at, name: null};
      canvas.editable = false; canvas.image = null; canvas.draw();
      name.textContent = message.name;
      says.textContent = message.why;
    }
  }
  function tell(m) {
    if (m.done === undefined) return;
    bar.value = m.done;
    progress.textContent = `${now ? `image ${now.at+1} of ${model.get('total')}; ` : ''}${m.done} of ${model.get('total')} have a mask`;
  }
  root.addEventListener('keydown', e => {
    const act = {PageUp: () => open(now.at-1), PageDown: () => open(now.at+1)}[e.key] ?? (e.ctrlKey && e.key === 'Enter' ? done : null);
    if (!act || !now) return;
    e.preventDefault(); e.stopPropagation();
    act();
  }, true);

  model.on('msg:custom', told);
  try {                                                     // what a kernel that died has left behind
    for (const k of Object.keys(localStorage)) if (k.startsWith(prefix)) {
      const rec = JSON.parse(localStorage.getItem(k));
      delete rec.stuck;
      count = Math.max(count, rec.n);
      pending.set(k.slice(prefix.length), rec);
    }
  } catch (e) { console.debug(e); }
  brought = pending.size;
  flush();
  open(0);
  return () => { clearTimeout(timer); clearTimeout(soon); model.off('msg:custom', told); };
}
export default {render};
