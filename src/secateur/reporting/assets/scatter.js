// Quality against size or speed: points with names, whiskers, and the front of models no other one beats on both.
const SIZES = {
  parameters: { title: "parameters", show: short }, non_embedding: { title: "parameters without embedding", show: short },
  disk_bytes: { title: "bytes on disk", show: bytes }, cache_bytes: { title: "cache of one sequence", show: bytes },
};
const SPEEDS = {
  decode_ratio: { title: "decode speed", times: true, show: (n) => n.toFixed(2) + "×", more: true },
  prefill_ratio: { title: "prefill speed", times: true, show: (n) => n.toFixed(2) + "×", more: true },
  decode_tokens_per_s: { title: "decode, tokens per second", show: short, more: true },
  prefill_tokens_per_s: { title: "prefill, tokens per second", show: short, more: true },
  peak_bytes: { title: "peak memory", show: bytes },
};
const QUALITY = {
  bits_per_byte: { title: "bits per byte", show: fixed(3) }, loss: { title: "loss, nats per token", show: fixed(3) },
  perplexity: { title: "perplexity", show: short }, kl: { title: "KL to the parent, nats", show: fixed(3), floor: 0 },
  disagreement: { title: "tokens predicted differently", show: percent, floor: 0 },
};

const SHAPES = [
  (r) => `M${-r},0A${r},${r} 0 1 1 ${r},0A${r},${r} 0 1 1 ${-r},0Z`, (r) => `M${-r},${-r}H${r}V${r}H${-r}Z`,
  (r) => `M0,${-1.2 * r}L${1.15 * r},${0.85 * r}H${-1.15 * r}Z`, (r) => `M0,${-1.3 * r}L${1.3 * r},0 0,${1.3 * r} ${-1.3 * r},0Z`,
];

const middle = (p, key) => (p.ranges[key] ? p.ranges[key].median : p.values[key]);
const known = (v) => typeof v === "number" && Number.isFinite(v);

// Points no other point beats on one axis without losing on the other. Lower y is better, x by `more`.
function front(points, more) {
  const sign = more ? -1 : 1;
  const order = [...points].sort((a, b) => sign * (a.x - b.x) || a.y - b.y);
  let best = Infinity;
  return order.filter((p) => p.y < best && ((best = p.y), true));
}

function scatter(figure, points, choices, missing, reference) {
  const usable = Object.keys(choices).filter((k) => points.some((p) => known(middle(p, k))));
  const qualities = Object.keys(QUALITY).filter((k) => points.some((p) => known(p.values[k])));
  if (!usable.length || !qualities.length) return empty(figure, missing);
  const state = { x: usable[0], y: qualities[0] };
  const plot = html("div", { class: "plot" });
  const caption = html("figcaption", { class: "hint" });
  choices = Object.fromEntries(Object.entries(choices).map(([k, c]) => [k, c.times ? { ...c, title: `${c.title}, times ${clip(reference, 22)}` } : c]));
  const named = (table, keys) => keys.map((k) => [k, table[k].title]);
  figure.replaceChildren(
    html("div", { class: "controls" },
      chooser("show", named(QUALITY, qualities), state.y, (v) => { state.y = v; redraw(); }),
      chooser("against", named(choices, usable), state.x, (v) => { state.x = v; redraw(); })),
    plot, caption);
  const redraw = fluid(plot, (width) => drawScatter(plot, caption, points, state, choices[state.x], QUALITY[state.y], width));
}

function drawScatter(plot, caption, all, state, x, y, width) {
  const points = all.map((p, i) => ({ p, i, x: middle(p, state.x), y: p.values[state.y], range: p.ranges[state.x] }))
    .filter((q) => known(q.x) && known(q.y));
  const height = Math.min(360, Math.max(260, width * 0.68));
  const box = { left: 58, right: width - 14, top: 28, bottom: height - 46 };
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": `${y.title} against ${x.title}` });
  const spans = points.flatMap((q) => [q.x, ...(q.range ? [q.range.min, q.range.max] : [])]);
  const [sx, sy] = frame(root, box,
    { domain: padded(spans, 0.12, 0), tick: x.show, title: x.title + (x.more ? " (more is better →)" : " (← less is better)") },
    { domain: padded(points.map((q) => q.y), 0.14, y.floor), tick: y.show, title: y.title + " (↓ less is better)" });
  const best = front(points, x.more);
  if (best.length > 1) root.append(svg("path", { class: "front", d: "M" + best.map((q) => `${sx(q.x)},${sy(q.y)}`).join("L") }));
  const taken = points.map((q) => ({ x: sx(q.x) - 8, y: sy(q.y) - 8, w: 16, h: 16 }));
  for (const q of points) root.append(point(q, sx, sy, x, y, best.includes(q)));
  for (const q of points) root.append(label(q, sx, sy, box, taken));
  plot.replaceChildren(root);
  const left = all.length - points.length;
  caption.textContent = "Dashed: the models no other one beats on both. " +
    (left ? `${left} of ${all.length} models have no such number.` : "");
}

function point(q, sx, sy, x, y, isBest) {
  const about = [`${x.title}: ${x.show(q.x)}` + (q.range ? ` (${x.show(q.range.min)} to ${x.show(q.range.max)})` : ""),
    `${y.title}: ${y.show(q.y)}`, ...(isBest ? ["on the Pareto front"] : [])];
  const at = (event) => showTip(q.p.name, about, event.clientX, event.clientY);
  const focus = () => { const b = node.getBoundingClientRect(); showTip(q.p.name, about, b.right, b.top); };
  const node = svg("g", { class: "point", tabindex: 0, role: "img", "aria-label": [q.p.name, ...about].join(", "),
    pointerenter: at, pointermove: at, pointerleave: hideTip, focus, blur: hideTip,
    keydown: (e) => { if (e.key === "Escape") hideTip(); } });
  const c = colour(q.i), cy = sy(q.y);
  if (q.range) node.append(svg("line", { class: "whisker", stroke: c, x1: sx(q.range.min), x2: sx(q.range.max), y1: cy, y2: cy }));
  node.append(svg("circle", { cx: sx(q.x), cy, r: 14, fill: "transparent" }));
  node.append(svg("path", { d: SHAPES[q.i % SHAPES.length](6), transform: `translate(${sx(q.x)},${cy})`, fill: isBest ? c : "var(--card)", stroke: c, "stroke-width": 2 }));
  return node;
}

// The name beside its point, at the first place that is free.
function label(q, sx, sy, box, taken) {
  const text = clip(q.p.name, 26), w = text.length * 7.2, px = sx(q.x), py = sy(q.y);
  const places = [[12, 4], [-12 - w, 4], [-w / 2, -14], [-w / 2, 24], [12, -10], [12, 20], [-12 - w, -10], [-12 - w, 20]];
  const rect = ([dx, dy]) => ({ x: px + dx, y: py + dy - 11, w, h: 14 });
  const free = (r) => r.x >= box.left && r.x + r.w <= box.right + 6 && r.y > box.top - 14 &&
    taken.every((t) => r.x + r.w < t.x || t.x + t.w < r.x || r.y + r.h < t.y || t.y + t.h < r.y);
  // where no place is free, above the point and inside the frame
  const crowded = [Math.max(box.left - px, Math.min(-w / 2, box.right - w - px)), -14];
  const place = places.find((p) => free(rect(p))) || crowded;
  taken.push(rect(place));
  const left = place[0] === -12 - w, centre = place[0] === -w / 2;
  return svg("text", { class: "name", x: px + (left ? -12 : centre ? 0 : place[0]), y: py + place[1], "text-anchor": left ? "end" : centre ? "middle" : "start", "aria-hidden": "true", style: "pointer-events:none" }, text);
}
