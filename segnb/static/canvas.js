// The canvas on which masks are painted: `annotate` shows it in notebooks, `segnb serve` on its page.
// A mask is an array of bytes, one a pixel: the index of a class, or VOID. Nothing in it is ever smoothed.
export const VOID = 255;

// A mask as runs [value, count, value, count, ...], and back: exact, short, and plain JSON
export function toRuns(mask) {
  const out = [];
  for (let i = 0, j; i < mask.length; i = j) {
    for (j = i+1; j < mask.length && mask[j] === mask[i]; j++);
    out.push(mask[i], j-i);
  }
  return out;
}
export function fromRuns(runs, n) {
  const mask = new Uint8Array(n);
  for (let k = 0, at = 0; k < runs.length; k += 2) mask.fill(runs[k], at, at += runs[k+1]);
  return mask;
}

export const make = (tag, props = {}, ...kids) => {
  const el = Object.assign(document.createElement(tag), props);
  for (const [k, v] of Object.entries(props)) if (k.includes('-') || k === 'role') el.setAttribute(k, v);
  el.append(...kids);
  return el;
};

const icon = d => `<svg viewBox="0 0 24 24" width="20" height="20" fill="none" stroke="currentColor" ` +
  `stroke-width="1.8" stroke-linejoin="round" stroke-linecap="round" aria-hidden="true">${d}</svg>`;
const TOOLS = {
  brush: ['b', 'Brush: paints the class that is picked', '<path d="M20 3c-5 2-9 6-11 10l2 2c4-2 8-6 10-11zM8 14c-3 0-3 4-6 5 3 2 8 1 8-3z"/>'],
  eraser: ['e', 'Eraser: back to the mask as it was at the start', '<path d="M3 15 13 5l6 6-9 9H7zM8 10l6 6M10 20h10"/>'],
  polygon: ['o', 'Polygon: click its corners; Enter or a click on the first one closes it', '<path d="M5 19 3 9l9-6 9 7-5 10z"/>'],
  fill: ['f', 'Fill: the connected area of one class under the pointer', '<path d="m4 12 8-8 8 8-8 7zM4 12h16M21 16c1 2 1 4 0 4s-1-2 0-4zM9 7 6 3"/>'],
  pan: ['m', 'Move: drag the image (or drag with the middle button, or two fingers)', '<path d="M12 2v20M2 12h20M9 5l3-3 3 3M9 19l3 3 3-3M5 9l-3 3 3 3M19 9l3 3-3 3"/>']};
const ACTS = {
  undo: ['Ctrl+Z', 'Undo', '<path d="M8 5 4 9l4 4M4 9h10a5 5 0 0 1 0 10H9"/>'],
  redo: ['Ctrl+Y', 'Redo', '<path d="m16 5 4 4-4 4M20 9H10a5 5 0 0 0 0 10h5"/>'],
  smaller: ['-', 'Zoom out', '<circle cx="10" cy="10" r="7"/><path d="m15 15 6 6M7 10h6"/>'],
  larger: ['+', 'Zoom in', '<circle cx="10" cy="10" r="7"/><path d="m15 15 6 6M7 10h6M10 7v6"/>'],
  fit: ['Home', 'Whole image', '<path d="M4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5"/>']};

const CSS = `
.sgc{display:flex;flex-direction:column;gap:8px;font:14px/1.35 system-ui,sans-serif;color:inherit}
.sgc [hidden]{display:none!important}
.sgc-tools{display:flex;flex-wrap:wrap;gap:4px 12px;align-items:center}
.sgc-tools>span,.sgc-tools label{display:inline-flex;gap:4px;align-items:center}
.sgc button{font:inherit;color:inherit;background:transparent;border:1px solid #8887;border-radius:7px;
  min-width:36px;height:36px;padding:0 7px;cursor:pointer;display:inline-flex;align-items:center;justify-content:center}
.sgc button:hover{background:#8882}.sgc button:disabled{opacity:.35;cursor:default}
.sgc button[aria-pressed=true],.sgc button[aria-checked=true]{background:#2563eb;border-color:#2563eb;color:#fff}
.sgc :focus-visible{outline:2px solid #2563eb;outline-offset:2px}
.sgc-view{width:100%;display:block;touch-action:none;background:#1b1d22;border-radius:8px;cursor:crosshair}
.sgc input[type=range]{width:92px;accent-color:#2563eb}
.sgc-classes{display:grid;grid-template-columns:repeat(auto-fill,minmax(172px,1fr));gap:4px}
.sgc-classes>div{display:flex;align-items:center;gap:2px;min-width:0}
.sgc-classes button{flex:1;justify-content:flex-start;gap:6px;height:32px;min-width:0;padding:0 6px}
.sgc-classes button.plain{border-color:transparent;background:none;color:inherit;cursor:pointer}
.sgc-classes i{width:14px;height:14px;border-radius:3px;border:1px solid #0006;flex:none}
.sgc-classes b{font-weight:400;overflow:hidden;text-overflow:ellipsis;white-space:nowrap;flex:1;text-align:left}
.sgc-classes small{opacity:.75;font-variant-numeric:tabular-nums}
.sgc-classes kbd{font:11px ui-monospace,monospace;opacity:.7;border:1px solid #8887;border-radius:3px;padding:0 3px}
@media(hover:none){.sgc-classes kbd{display:none}}
.sgc-says{min-height:1.35em;font-size:13px;opacity:.8}`;

export class Canvas {
  // `classes`: names; `colors`: [r,g,b] of each; `onchange(canvas)`: the mask was changed by a person;
  // `height()`: the most CSS pixels it may be high
  constructor(el, {classes, colors, onchange = () => {}, height = () => .7*innerHeight}) {
    Object.assign(this, {classes, colors, onchange, maxHeight: height, tool: 'brush', value: 0, size: 9,
      opacity: .55, layer: 'mask', hidden: new Set(), pointers: new Map(), points: [], past: [], future: [],
      cursor: null, width: 0, height: 0, mask: new Uint8Array(0), start: new Uint8Array(0), scale: 1, x: 0, y: 0});
    this.el = el;
    el.classList.add('sgc');
    el.append(make('style', {textContent: CSS}), ...this.build());
    this.off = document.createElement('canvas');            // the mask in colours, as large as the image
    this.editable = true;
    this.resizeBrush(this.size);
    el.addEventListener('keydown', e => this.key(e));
    new ResizeObserver(() => this.resize()).observe(this.view);
    this.table();
  }

  build() {
    const button = (key, title, d, act, more = {}) => {
      const b = make('button', {type: 'button', title: `${title} (${key})`, 'aria-label': title, innerHTML: icon(d), ...more});
      b.onclick = act;
      return b;
    };
    const range = (name, min, max, value, set) => {
      const r = make('input', {type: 'range', min, max, step: 'any', 'aria-label': name, value});
      r.oninput = () => set(+r.value);
      return r;
    };
    this.toolButtons = Object.fromEntries(Object.entries(TOOLS).map(([n, [k, t, d]]) =>
      [n, button(k, t, d, () => this.pick(n), {'aria-pressed': 'false'})]));
    const acts = Object.fromEntries(Object.entries(ACTS).map(([n, [k, t, d]]) => [n, button(k, t, d, () => this.act(n))]));
    this.acts = acts;
    // the slider is logarithmic: one pixel to a hundred
    this.sizeRange = range('brush size', 0, 1, Math.log(this.size)/Math.log(150), v => this.resizeBrush(150**v));
    this.sizeText = make('small');
    this.edit = [make('span', {role: 'group', 'aria-label': 'tools'}, ...Object.values(this.toolButtons)),
      make('label', {title: 'Brush size ([ and ])'}, 'size', this.sizeRange, this.sizeText),
      make('span', {}, acts.undo, acts.redo)];
    const opacity = make('label', {title: 'Opacity of the mask'}, 'opacity',
      range('opacity', 0, 1, this.opacity, v => { this.opacity = v; this.draw(); }));
    this.tools = make('div', {className: 'sgc-tools', role: 'toolbar', 'aria-label': 'canvas'}, ...this.edit,
      make('span', {}, acts.smaller, acts.larger, acts.fit), opacity);
    this.view = make('canvas', {className: 'sgc-view', tabIndex: 0, role: 'application',
      'aria-label': 'mask over the image: arrow keys move the cursor, space paints'});
    for (const t of ['pointerdown', 'pointermove', 'pointerup', 'pointercancel', 'pointerleave'])
      this.view.addEventListener(t, e => this[t.slice(7)]?.(e));
    this.view.addEventListener('wheel', e => { e.preventDefault(); this.zoom(1.0015**-e.deltaY, this.at(e, false)); }, {passive: false});
    this.view.addEventListener('contextmenu', e => e.preventDefault());
    this.legend = make('div', {className: 'sgc-classes', role: 'group', 'aria-label': 'classes'});
    this.rows = [...this.classes.map((name, k) => [k, name]), [VOID, 'void']].map(([k, name]) => {
      const key = k === VOID ? '0' : k < 9 ? `${k+1}` : k < 18 ? `⇧${k-8}` : '';
      const box = make('input', {type: 'checkbox', checked: true, 'aria-label': `show ${name}`, title: `Show ${name}`});
      box.onchange = () => { this.hidden[box.checked ? 'delete' : 'add'](k); this.table(); };
      const share = make('small'), hint = make('kbd', {textContent: key, hidden: !key});
      const swatch = make('i');
      swatch.style.background = k === VOID ? 'repeating-linear-gradient(45deg,#fff 0 3px,#555 3px 6px)' : `rgb(${this.colors[k]})`;
      const b = make('button', {type: 'button', title: k === VOID ? 'void: pixels that are never counted' : name,
        'aria-pressed': 'false'}, swatch, make('b', {textContent: name}), share, hint);
      b.onclick = () => this.choose(k);
      return {k, b, box, share, hint, row: this.legend.appendChild(make('div', {}, box, b))};
    });
    this.says = make('div', {className: 'sgc-says', 'aria-live': 'polite'});
    return [this.tools, this.view, this.legend, this.says];
  }

  // ---- what it shows
  load({image, width, height, mask, start = mask, heat = null}) {
    Object.assign(this, {image, width, height, heat, mask: Uint8Array.from(mask), start: Uint8Array.from(start),
      past: [], future: [], points: [], cursor: null});
    this.off.width = width; this.off.height = height;
    this.pixels = this.off.getContext('2d').createImageData(width, height);
    this.table();
    this.resize(true);
    this.refresh();
  }

  set editable(on) {
    this.canEdit = on;
    for (const o of this.edit) o.hidden = !on;
    for (const r of this.rows) { r.b.classList.toggle('plain', !on); r.hint.hidden = !on || !r.hint.textContent; }
    this.pick(on ? 'brush' : 'pan');
    this.choose(this.value);
  }
  get editable() { return this.canEdit; }

  table() {                                                 // the colour of each value, as it lies in memory
    const little = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1;
    const color = ([r, g, b]) => little ? (255<<24 | b<<16 | g<<8 | r)>>>0 : (r<<24 | g<<16 | b<<8 | 255)>>>0;
    this.lut = new Uint32Array(256);
    this.colors.forEach((c, k) => { if (!this.hidden.has(k)) this.lut[k] = color(c); });
    this.stripe = this.hidden.has(VOID) ? 0 : color([235, 235, 235]);
    if (this.width) this.repaint(0, 0, this.width, this.height);
  }

  repaint(x, y, w, h) {
    const out = new Uint32Array(this.pixels.data.buffer), W = this.width;
    for (let r = y; r < y+h; r++) for (let c = x; c < x+w; c++) {
      const k = this.mask[r*W+c];
      out[r*W+c] = k !== VOID ? this.lut[k] : (r+c)%6 < 2 ? this.stripe : 0;
    }
    if (w > 0 && h > 0) this.off.getContext('2d').putImageData(this.pixels, 0, 0, x, y, w, h);
    this.draw();
  }

  resize(fit = false) {
    if (!this.width) return;
    const w = this.view.clientWidth, h = Math.max(160, Math.min(this.maxHeight(), w*this.height/this.width)), d = devicePixelRatio || 1;
    if (!w) return;
    const fitted = Math.abs(this.scale-this.fitScale) < 1e-9, same = this.view.width === Math.round(w*d);
    this.view.style.height = `${h}px`;
    this.view.width = Math.round(w*d); this.view.height = Math.round(h*d);
    this.fitScale = Math.min(w/this.width, h/this.height);
    if (fit || fitted && !same) this.fit(); else this.draw();
  }

  fit() {
    this.scale = this.fitScale;
    this.x = (this.view.clientWidth-this.width*this.scale)/2;
    this.y = (this.view.clientHeight-this.height*this.scale)/2;
    this.draw();
  }

  zoom(by, at = [this.view.clientWidth/2, this.view.clientHeight/2]) {
    const to = Math.min(Math.max(this.scale*by, this.fitScale/2), 64), f = to/this.scale;
    this.x = at[0]-(at[0]-this.x)*f; this.y = at[1]-(at[1]-this.y)*f;
    this.scale = to;
    this.draw();
  }

  draw() { this.frame ??= requestAnimationFrame(() => { this.frame = null; this.drawNow(); }); }
  drawNow() {
    const g = this.view.getContext('2d'), d = devicePixelRatio || 1, s = this.scale;
    g.setTransform(1, 0, 0, 1, 0, 0);
    g.clearRect(0, 0, this.view.width, this.view.height);
    if (!this.image) return;
    g.setTransform(d*s, 0, 0, d*s, d*this.x, d*this.y);
    g.imageSmoothingEnabled = s*d < 1;
    g.drawImage(this.image, 0, 0, this.width, this.height);
    const over = {mask: this.off, heat: this.heat}[this.layer];
    g.globalAlpha = this.opacity;
    if (over) g.drawImage(over, 0, 0, this.width, this.height);
    g.globalAlpha = 1;
    if (!this.canEdit) return;
    const lines = path => { for (const [c, w] of [['#000', 3], ['#fff', 1.2]]) { g.strokeStyle = c; g.lineWidth = w/s; g.stroke(path); } };
    if (this.points.length) {
      const p = new Path2D();
      [...this.points, this.hover ?? this.points.at(-1)].forEach(([x, y], k) => k ? p.lineTo(x, y) : p.moveTo(x, y));
      lines(p);
      for (const [x, y] of this.points) { const q = new Path2D(); q.arc(x, y, 4/s, 0, 7); lines(q); }
    }
    const at = this.hover ?? this.cursor;
    if (at && ['brush', 'eraser'].includes(this.tool)) {
      const p = new Path2D();
      p.arc(Math.floor(at[0])+.5, Math.floor(at[1])+.5, Math.max(this.size/2, .5), 0, 7);
      lines(p);
    } else if (at && at === this.cursor) {
      const p = new Path2D();
      for (const [x, y] of [[8/s, 0], [0, 8/s]]) { p.moveTo(at[0]-x, at[1]-y); p.lineTo(at[0]+x, at[1]+y); }
      lines(p);
    }
  }

  count() {                                                 // the share of each class, in the legend
    const n = new Float64Array(256);
    for (const v of this.mask) n[v]++;
    this.shares = n.map(v => v/Math.max(1, this.mask.length));
    for (const r of this.rows) {
      const s = this.shares[r.k];
      r.share.textContent = s ? s < .0005 ? '<0.1%' : `${(100*s).toFixed(1)}%` : '';
      r.row.style.opacity = s || this.canEdit ? 1 : .45;
    }
  }

  // ---- tools
  pick(tool) {
    if (!(tool in TOOLS)) return;
    this.tool = tool;
    if (tool !== 'polygon') this.points = [];
    for (const [n, b] of Object.entries(this.toolButtons)) b.setAttribute('aria-pressed', n === tool);
    this.view.style.cursor = tool === 'pan' ? 'grab' : 'crosshair';
    this.says.textContent = this.canEdit ? TOOLS[tool][1] : '';
    this.draw();
  }
  choose(k) {
    if (k !== VOID && k >= this.classes.length) return;
    this.value = k;
    if (this.canEdit && ['eraser', 'pan'].includes(this.tool)) this.pick('brush');
    for (const r of this.rows) r.b.setAttribute('aria-pressed', this.canEdit && r.k === k);
  }
  resizeBrush(v) {
    this.size = Math.min(Math.max(Math.round(v), 1), 150);
    this.sizeText.textContent = `${this.size} px`;
    this.sizeRange.value = Math.log(this.size)/Math.log(150);
    this.draw();
  }
  act(name) {
    if (name === 'undo' || name === 'redo') this.step(name);
    else if (name === 'fit') this.fit();
    else this.zoom(name === 'larger' ? 1.4 : 1/1.4);
  }

  // A stroke: `begin`, any number of `put`s, `end`; `end` keeps what it takes to undo it
  begin() { this.before = this.mask.slice(); this.box = [Infinity, Infinity, -1, -1]; }
  put(i, x, y) {
    const v = this.tool === 'eraser' ? this.start[i] : this.value, b = this.box;
    if (this.mask[i] === v) return;
    this.mask[i] = v;
    if (x < b[0]) b[0] = x; if (y < b[1]) b[1] = y; if (x > b[2]) b[2] = x; if (y > b[3]) b[3] = y;
  }
  end() {
    const [x, y, x1, y1] = this.box, before = this.before;
    this.before = null;
    if (x1 < 0) return;
    const w = x1-x+1, h = y1-y+1, cut = m => { const o = new Uint8Array(w*h); for (let r = 0; r < h; r++) o.set(m.subarray((y+r)*this.width+x, (y+r)*this.width+x+w), r*w); return o; };
    this.past.push({x, y, w, h, before: cut(before), after: cut(this.mask)});
    this.future = [];
    for (let total = 0, k = this.past.length-1; k >= 0; k--)          // at most 64 MB of them
      if ((total += 2*this.past[k].before.length) > 64e6) { this.past.splice(0, k+1); break; }
    this.changed();
  }
  step(name) {
    const [from, to] = name === 'undo' ? [this.past, this.future] : [this.future, this.past], s = from.pop();
    if (!s || !this.canEdit) return;
    to.push(s);
    const rows = name === 'undo' ? s.before : s.after;
    for (let r = 0; r < s.h; r++) this.mask.set(rows.subarray(r*s.w, (r+1)*s.w), (s.y+r)*this.width+s.x);
    this.repaint(s.x, s.y, s.w, s.h);
    this.changed();
  }
  changed() { this.refresh(); this.onchange(this); }
  refresh() {
    this.acts.undo.disabled = !this.past.length; this.acts.redo.disabled = !this.future.length;
    this.count();
  }

  line([x0, y0], [x1, y1]) {                                // a thick line between the centres of two pixels
    [x0, y0, x1, y1] = [x0, y0, x1, y1].map(v => Math.floor(v)+.5);
    const r = this.size/2, dx = x1-x0, dy = y1-y0, len = dx*dx+dy*dy;
    const [l, t] = [Math.min(x0, x1)-r, Math.min(y0, y1)-r].map(v => Math.max(0, Math.floor(v)));
    const right = Math.min(this.width, Math.ceil(Math.max(x0, x1)+r)), low = Math.min(this.height, Math.ceil(Math.max(y0, y1)+r));
    for (let y = t; y < low; y++) for (let x = l; x < right; x++) {
      const px = x+.5-x0, py = y+.5-y0, f = len ? Math.min(Math.max((px*dx+py*dy)/len, 0), 1) : 0;
      if ((px-f*dx)**2+(py-f*dy)**2 <= r*r) this.put(y*this.width+x, x, y);
    }
    if (right > l && low > t) this.repaint(l, t, right-l, low-t);
  }
  flood([fx, fy]) {
    const W = this.width, H = this.height, x = Math.floor(fx), y = Math.floor(fy);
    if (x < 0 || y < 0 || x >= W || y >= H) return;
    const from = this.mask[y*W+x];
    if (from === this.value) return;
    this.begin();
    const stack = [[x, y]];
    while (stack.length) {                                  // runs of a row at a time
      let [l, r] = stack.pop();
      if (this.mask[r*W+l] !== from) continue;
      while (l > 0 && this.mask[r*W+l-1] === from) l--;
      for (let c = l, up = false, down = false; c < W && this.mask[r*W+c] === from; c++) {
        this.put(r*W+c, c, r);
        const above = r > 0 && this.mask[(r-1)*W+c] === from, below = r < H-1 && this.mask[(r+1)*W+c] === from;
        if (above && !up) stack.push([c, r-1]);
        if (below && !down) stack.push([c, r+1]);
        up = above; down = below;
      }
    }
    this.repaint(0, 0, W, H);
    this.end();
  }
  close() {                                                 // the pixels whose centres are inside the polygon
    const p = this.points, W = this.width;
    this.points = [];
    if (p.length < 3) return this.draw();
    this.begin();
    const top = Math.max(0, Math.floor(Math.min(...p.map(q => q[1])))), low = Math.min(this.height, Math.ceil(Math.max(...p.map(q => q[1]))));
    for (let y = top; y < low; y++) {
      const c = y+.5, xs = [];
      p.forEach(([x1, y1], k) => {
        const [x0, y0] = p.at(k-1);
        if (y0 <= c !== y1 <= c) xs.push(x0+(c-y0)/(y1-y0)*(x1-x0));
      });
      xs.sort((a, b) => a-b);
      for (let k = 0; k+1 < xs.length; k += 2)
        for (let x = Math.max(0, Math.ceil(xs[k]-.5)); x < Math.min(W, Math.ceil(xs[k+1]-.5)); x++) this.put(y*W+x, x, y);
    }
    this.repaint(0, 0, W, this.height);
    this.end();
  }

  // ---- pointer and keys
  at(e, image = true) {                                     // where an event is, in pixels of the image or of the view
    const b = this.view.getBoundingClientRect(), x = e.clientX-b.left, y = e.clientY-b.top;
    return image ? [(x-this.x)/this.scale, (y-this.y)/this.scale] : [x, y];
  }
  down(e) {
    if (!this.image) return;
    e.preventDefault();
    this.view.focus({preventScroll: true});
    this.view.setPointerCapture(e.pointerId);
    this.pointers.set(e.pointerId, this.at(e, false));
    if (this.pointers.size === 2) { this.cancel(); this.drag = 'pinch'; }
    else if (e.button === 1 || e.button === 2 || this.tool === 'pan') this.drag = 'pan';
    else if (this.pointers.size === 1) this.press(this.at(e));
  }
  press(p) {
    this.cursor = null;
    if (this.tool === 'fill') this.flood(p);
    else if (this.tool === 'polygon') this.corner(p);
    else if (this.tool !== 'pan') { this.drag = 'stroke'; this.last = p; this.begin(); this.line(p, p); }
  }
  corner(p) {
    const first = this.points[0], near = first && Math.hypot(p[0]-first[0], p[1]-first[1])*this.scale < 9;
    if (near && this.points.length > 2) return this.close();
    this.points.push(p);
    this.draw();
  }
  move(e) {
    const old = this.pointers.get(e.pointerId), now = this.at(e, false);
    this.hover = this.at(e);
    if (old) this.pointers.set(e.pointerId, now);
    if (this.drag === 'stroke' && old) for (const s of e.getCoalescedEvents?.().length ? e.getCoalescedEvents() : [e]) {
      const p = this.at(s);
      this.line(this.last, p);
      this.last = p;
    }
    if (this.drag === 'pan' && old) { this.x += now[0]-old[0]; this.y += now[1]-old[1]; }
    if (this.drag === 'pinch' && old && this.pointers.size === 2) {
      const other = [...this.pointers].find(([id]) => id !== e.pointerId)[1], far = p => Math.hypot(p[0]-other[0], p[1]-other[1]);
      this.x += (now[0]-old[0])/2; this.y += (now[1]-old[1])/2;
      this.zoom(far(now)/Math.max(far(old), 1), [(now[0]+other[0])/2, (now[1]+other[1])/2]);
    }
    this.draw();
  }
  up(e) {
    this.pointers.delete(e.pointerId);
    if (this.drag === 'stroke') this.end();
    if (!this.pointers.size) this.drag = null;
    if (e.pointerType !== 'mouse') this.hover = null;
    this.draw();
  }
  leave() { if (!this.drag) this.hover = null; this.draw(); }
  cancel(e) {                                               // a second finger: what the first one began was no stroke
    if (e?.pointerId) this.pointers.delete(e.pointerId);
    if (this.drag === 'stroke') { this.mask.set(this.before); this.before = null; this.repaint(0, 0, this.width, this.height); }
    this.drag = null;
  }

  key(e) {
    if (!this.image || e.altKey || e.target.matches?.('input:not([type=range],[type=checkbox]),textarea,select')) return;
    const on = this.view === e.target, mod = e.ctrlKey || e.metaKey, key = e.key.toLowerCase();
    const digit = /^(?:Digit|Numpad)(\d)$/.exec(e.code)?.[1];
    const arrow = on && {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[e.key];
    const tool = Object.keys(TOOLS).find(n => TOOLS[n][0] === key);
    if (mod && key === 'z') this.step(e.shiftKey ? 'redo' : 'undo');
    else if (mod && key === 'y') this.step('redo');
    else if (mod) return;
    else if (arrow) this.walk(arrow, e.shiftKey ? 10 : 1);
    else if (key === '+' || key === '=') this.zoom(1.4);
    else if (key === '-') this.zoom(1/1.4);
    else if (on && key === 'home') this.fit();
    else if (!this.canEdit) return;
    else if (digit) this.choose(digit === '0' ? VOID : +digit-1+(e.shiftKey ? 9 : 0));
    else if (tool) this.pick(tool);
    else if (key === '[') this.resizeBrush(Math.min(this.size-1, this.size/1.2));
    else if (key === ']') this.resizeBrush(Math.max(this.size+1, this.size*1.2));
    else if (on && key === ' ') this.pressKey();
    else if (on && key === 'enter' && this.points.length) this.close();
    else if (key === 'escape' && this.points.length) { this.points = []; this.draw(); }
    else if (key === 'backspace' && this.points.length) { this.points.pop(); this.draw(); }
    else return;
    e.preventDefault(); e.stopPropagation();
  }
  walk([dx, dy], by) {
    const [x, y] = this.cursor ?? [this.width/2, this.height/2], to = (v, d, n) => Math.min(Math.max(Math.floor(v)+d*by, 0), n-1)+.5;
    this.hover = null;
    this.cursor = [to(x, dx, this.width), to(y, dy, this.height)];
    const k = this.mask[Math.floor(this.cursor[1])*this.width+Math.floor(this.cursor[0])];
    this.says.textContent = `row ${Math.floor(this.cursor[1])}, column ${Math.floor(this.cursor[0])}: ${this.classes[k] ?? 'void'}`;
    this.draw();
  }
  pressKey() {
    const p = this.cursor ??= [this.width/2, this.height/2].map(v => Math.floor(v)+.5);
    this.press(p);
    if (this.drag === 'stroke') { this.drag = null; this.end(); }
    this.cursor = p;
    this.draw();
  }

  // ---- files
  async png() {                                             // the mask as a PNG whose values are class indices
    const rows = new Uint8Array((this.width+1)*this.height);
    for (let r = 0; r < this.height; r++) rows.set(this.mask.subarray(r*this.width, (r+1)*this.width), r*(this.width+1)+1);
    const palette = new Uint8Array(768);
    this.colors.forEach((c, k) => palette.set(c, 3*k));
    const packed = await new Response(new Blob([rows]).stream().pipeThrough(new CompressionStream('deflate'))).arrayBuffer();
    const u32 = v => [v>>>24, v>>>16&255, v>>>8&255, v&255];
    const chunk = (name, data) => {
      const body = new Uint8Array(4+data.length);
      body.set(new TextEncoder().encode(name)); body.set(data, 4);
      let crc = ~0;
      for (const b of body) { crc ^= b; for (let k = 0; k < 8; k++) crc = crc>>>1 ^ (crc&1 ? 0xEDB88320 : 0); }
      return [new Uint8Array(u32(data.length)), body, new Uint8Array(u32(~crc>>>0))];
    };
    return new Blob([new Uint8Array([137, 80, 78, 71, 13, 10, 26, 10]),
      ...chunk('IHDR', new Uint8Array([...u32(this.width), ...u32(this.height), 8, 3, 0, 0, 0])),
      ...chunk('PLTE', palette), ...chunk('IDAT', new Uint8Array(packed)), ...chunk('IEND', new Uint8Array())], {type: 'image/png'});
  }
  overlay() {                                               // image and mask as they are shown, at full size
    const c = document.createElement('canvas'), g = c.getContext('2d');
    c.width = this.width; c.height = this.height;
    g.drawImage(this.image, 0, 0, this.width, this.height);
    g.globalAlpha = this.opacity;
    g.drawImage(this.off, 0, 0);
    return new Promise(done => c.toBlob(done, 'image/png'));
  }
}
