// Candidates of a search: KL against what they take, one colour per stage, the front of the stage that is shown.
const COSTS = { params: "parameters", bytes: "bytes of weights", cache: "bytes of cache", latency: "seconds for a prompt and its answer", prefill: "seconds for a prompt", decode: "seconds per token", prefill_flops: "operations of a prompt", decode_flops: "operations of a token" };

function searchChart(fig, found) {
  const levels = [...new Set(found.points.map((p) => p.level))];
  if (!levels.length) return empty(fig, "No candidate was measured on text.");
  const state = { level: levels.at(-1), cost: found.resources[0] };
  const plot = html("div", { class: "plot" });
  const controls = [chooser("stage", levels.map((l) => [l, l]), state.level, (v) => { state.level = v; redraw(); })];
  if (found.resources.length > 1) controls.push(chooser("against", found.resources.map((r) => [r, COSTS[r] || r]), state.cost, (v) => { state.cost = v; redraw(); }));
  fig.replaceChildren(html("div", { class: "controls" }, ...controls), plot,
    html("figcaption", { class: "hint" }, "Filled: no candidate of the stage is better in everything that counts. Square: the winner. Dotted: the limit."));
  const redraw = fluid(plot, (width) => drawSearch(plot, found, state, levels.indexOf(state.level), width));
}

function drawSearch(plot, found, state, index, width) {
  const points = found.points.filter((p) => p.level === state.level && known(p.costs[state.cost]));
  const height = Math.min(360, Math.max(260, width * 0.55));
  const box = { left: 58, right: width - 14, top: 28, bottom: height - 46 };
  const title = COSTS[state.cost] || state.cost, limit = found.limits[state.cost];
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": `KL against ${title}` });
  const xs = points.map((p) => p.costs[state.cost]);
  const [sx, sy] = frame(root, box, { domain: padded(limit ? [...xs, limit] : xs, 0.08), tick: short, title: title + " (← less is better)" },
    { domain: padded(points.map((p) => p.kl), 0.1, 0), tick: short, title: "KL from the parent, nats (↓ less is better)" });
  if (limit) root.append(svg("line", { class: "front", x1: sx(limit), x2: sx(limit), y1: box.top, y2: box.bottom }));
  for (const p of points) root.append(candidate(p, sx(p.costs[state.cost]), sy(p.kl), p.text === found.winner, colour(index), title, state));
  plot.replaceChildren(root);
}

function candidate(p, x, y, won, paint, title, state) {
  const about = [`KL ${p.kl.toPrecision(4)} nats, ${p.level}`, `${title}: ${short(p.costs[state.cost])}`, ...(p.front ? ["on the Pareto front"] : []), ...(won ? ["the winner"] : [])];
  const at = (event) => showTip(p.text, about, event.clientX, event.clientY);
  const focus = () => { const b = node.getBoundingClientRect(); showTip(p.text, about, b.right, b.top); };
  // only the front and the winner stop the keyboard: there may be a thousand others
  const node = svg("path", { class: "candidate", d: SHAPES[won ? 1 : 0](won ? 7 : 4), transform: `translate(${x},${y})`, fill: p.front || won ? paint : "var(--card)", stroke: paint, "stroke-width": 1.5,
    tabindex: p.front || won ? 0 : false, role: "img", "aria-label": [p.text, ...about].join(", "), pointerenter: at, pointermove: at, pointerleave: hideTip, focus, blur: hideTip,
    keydown: (e) => { if (e.key === "Escape") hideTip(); } });
  return node;
}
