// Small drawing helpers. Strings only ever become text nodes or attributes.
const NS = "http://www.w3.org/2000/svg";

function make(space, tag, attributes, children) {
  const node = space ? document.createElementNS(space, tag) : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (typeof value === "function") node.addEventListener(key, value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((c) => c !== null && c !== undefined));
  return node;
}
const svg = (tag, attributes, ...children) => make(NS, tag, attributes, children);
const html = (tag, attributes, ...children) => make("", tag, attributes, children);

function short(n) {
  const size = Math.abs(n);
  for (const [limit, unit] of [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]]) {
    if (size >= limit) return String(Number((n / limit).toPrecision(3))) + " " + unit;
  }
  return String(Number(n.toPrecision(size >= 100 ? 4 : 3)));
}
const bytes = (n) => short(n).replace(" B", " G") + (n >= 1000 ? "B" : " B");
const clip = (text, most) => (text.length > most ? text.slice(0, most - 1) + "…" : text);
const fixed = (digits) => (n) => n.toFixed(digits);
const percent = (n) => (100 * n).toFixed(1) + "%";

// Round numbers that span [low, high], about `count` of them.
function ticks(low, high, count) {
  const raw = (high - low) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].find((m) => m * power >= raw * 0.999) * power;
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(Number((i * step).toPrecision(12)));
  return found;
}

function padded(values, share, floor) {
  let low = Math.min(...values), high = Math.max(...values);
  if (low === high) { const d = Math.abs(low) * 0.1 || 1; low -= d; high += d; }
  const pad = (high - low) * share;
  return [floor === undefined ? low - pad : Math.max(floor, low - pad), high + pad];
}

const scale = (from, to) => (v) => to[0] + ((v - from[0]) / (from[1] - from[0])) * (to[1] - to[0]);
const colour = (i) => `var(--c${i % 8})`;
const ramp = (i, n) => `color-mix(in oklab, var(--c1) ${Math.round(100 * (1 - i / Math.max(1, n - 1)))}%, var(--c4))`;

// Frame with grid, ticks and axis titles; gives the scales back.
function frame(root, box, x, y) {
  const sx = scale(x.domain, [box.left, box.right]), sy = scale(y.domain, [box.bottom, box.top]);
  for (const t of ticks(...y.domain, 5)) {
    root.append(svg("line", { class: "grid", x1: box.left, x2: box.right, y1: sy(t), y2: sy(t) }));
    root.append(svg("text", { x: box.left - 8, y: sy(t) + 4, "text-anchor": "end" }, y.tick(t)));
  }
  for (const t of ticks(...x.domain, box.right - box.left < 380 ? 4 : 6)) {
    root.append(svg("line", { class: "grid", x1: sx(t), x2: sx(t), y1: box.top, y2: box.bottom }));
    root.append(svg("text", { x: sx(t), y: box.bottom + 18, "text-anchor": "middle" }, x.tick(t)));
  }
  root.append(svg("line", { class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }));
  root.append(svg("text", { x: (box.left + box.right) / 2, y: box.bottom + 38, "text-anchor": "middle" }, x.title));
  root.append(svg("text", { x: 0, y: 12 }, y.title));
  return [sx, sy];
}

const tip = document.getElementById("tip");
function showTip(title, lines, x, y) {
  tip.replaceChildren(html("b", {}, title), ...lines.map((line) => html("div", {}, line)));
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = Math.max(8, Math.min(x + 14, innerWidth - box.width - 8)) + "px";
  tip.style.top = (y + 14 + box.height > innerHeight ? y - box.height - 10 : y + 14) + "px";
}
const hideTip = () => { tip.hidden = true; };

function chooser(label, options, chosen, changed) {
  const select = html("select", { change: () => changed(select.value) });
  for (const [value, text] of options) select.append(html("option", { value, selected: value === chosen }, text));
  return html("label", {}, label + " ", select);
}

// Draw now and whenever the width changes.
function fluid(holder, draw) {
  let width = 0;
  const redraw = () => { width = holder.clientWidth; if (width) draw(Math.max(280, width)); };
  new ResizeObserver(() => { if (Math.abs(holder.clientWidth - width) > 1) redraw(); }).observe(holder);
  redraw();
  return redraw;
}
const empty = (figure, text) => figure.replaceChildren(html("p", { class: "empty" }, text));
