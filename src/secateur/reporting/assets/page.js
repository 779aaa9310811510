// Wires the page: charts from the embedded data, the search in the audit, light and dark.
const data = JSON.parse(document.getElementById("data").textContent);
const figure = (name) => document.querySelector(`[data-chart="${name}"]`);

function healingChart(fig, runs) {
  const names = Object.keys(runs).filter((n) => runs[n].length > 1);
  if (!names.length) return empty(fig, "No healing was logged: nothing was distilled, or its metrics.jsonl is not beside the checkpoint.");
  const heldOut = { ce: "held_out", divergence: "held_out_divergence" };
  const skip = new Set(["step", "tokens", "seconds", "elapsed", ...Object.values(heldOut)]);
  const measured = names.some((n) => runs[n].some((r) => heldOut.ce in r));
  const keys = [...new Set(names.flatMap((n) => runs[n].flatMap(Object.keys)))].filter((k) => !skip.has(k));
  const preferred = measured && keys.includes("ce") ? "ce" : keys.includes("loss") ? "loss" : keys[0];
  const byTokens = names.every((n) => runs[n].some((r) => "tokens" in r));
  const x = byTokens ? "tokens" : "step";
  const plot = html("div", { class: "plot" });
  const draw = (key) => {
    const curve = (name, k, label) => ({ name: label, points: runs[name].filter((r) => x in r && k in r).map((r) => [r[x], r[k]]) });
    const series = names.flatMap((n) => [curve(n, key, n), curve(n, heldOut[key], `${n}, held-out text`)]).filter((s) => s.points.length > 1);
    if (!series.length) return empty(plot, "This quantity was logged fewer than twice.");
    lineChart(plot, series, { smooth: true, x: { title: byTokens ? "tokens seen" : "step", tick: short, show: short }, y: { title: key, tick: short, show: (v) => String(Number(v.toPrecision(5))) } });
  };
  fig.replaceChildren(html("div", { class: "controls" }, chooser("show", keys.map((k) => [k, k]), preferred, draw)), plot,
    html("figcaption", { class: "hint" }, measured ? "As logged while healing, on training text (bold: running mean) and on held-out text." : "On training text, as logged while healing; bold: running mean."));
  draw(preferred);
}

function importanceChart(fig, found, kept) {
  const options = [];
  for (const [name, entry] of Object.entries(found)) {
    for (const axis of [...new Set(entry.curves.map((c) => c.axis))]) options.push({ name, axis, entry });
  }
  if (!options.length) return empty(fig, "No importance scores were recorded beside these checkpoints.");
  const plot = html("div", { class: "plot" });
  const caption = html("figcaption", { class: "hint" });
  const draw = (index) => {
    const { axis, entry } = options[index];
    const curves = entry.curves.filter((c) => c.axis === axis);
    const series = curves.map((c) => {
      const top = Math.max(...c.points.map((p) => Math.abs(p.score))) || 1;
      return { name: scopeName(c.scope), points: c.points.map((p) => [p.rank / c.units, p.score / top]) };
    });
    const shares = new Map();
    for (const k of kept[axis] || []) shares.set(k.share, [...(shares.get(k.share) || []), k.name]);
    const marks = [...shares.keys()].map((at) => ({ at, text: Math.round(100 * at) + "%" }));
    lineChart(plot, series, { x: { title: `share of ${axis} units, best first`, domain: [0, 1], tick: (v) => Math.round(100 * v) + "%", show: percent },
      y: { title: "score, share of the largest", tick: short, show: fixed(4) } }, marks);
    const keeps = [...shares].map(([at, who]) => `${Math.round(100 * at)}% (${who.join(", ")})`);
    caption.textContent = `Criterion: ${entry.criterion || "not said"}. ` + (keeps.length ? `Dashed: what was kept, ${keeps.join("; ")}. ` : "") + (series.length > 8 ? `${series.length} curves, one per place, first green to last purple.` : "");
  };
  const several = Object.keys(found).length > 1;
  fig.replaceChildren(html("div", { class: "controls" }, chooser("axis", options.map((o, i) => [String(i), several ? `${o.axis} (${o.name})` : o.axis]), "0", draw)), plot, caption);
  draw(0);
}
const scopeName = (s) => (s === "" ? "whole model" : /^\d+$/.test(s) ? `layer ${s}` : s);

// "0,1-3;1,1" and "layers.*.experts.*" -> the names themselves.
function names(pattern, index) {
  if (!index) return [pattern];
  const parts = pattern.split("*");
  return index.split(";").flatMap((run) => {
    const numbers = run.split(","), [first, last] = numbers.pop().split("-").map(Number);
    const found = [];
    for (let i = first; i <= (last === undefined ? first : last); i++) {
      const all = [...numbers, i];
      found.push(parts.map((p, k) => p + (k < all.length ? all[k] : "")).join(""));
    }
    return found;
  });
}

function searchable(details) {
  const input = details.querySelector("input"), said = details.querySelector(".found");
  const rows = [...details.querySelectorAll("tr[data-pattern]")];
  const texts = new Map();
  const text = (row) => {
    if (!texts.has(row)) texts.set(row, [...names(row.dataset.pattern, row.dataset.index), row.textContent].join("\n").toLowerCase());
    return texts.get(row);
  };
  input.disabled = false;
  input.addEventListener("input", () => {
    const wanted = input.value.trim().toLowerCase();
    let shown = 0;
    for (const row of rows) { row.hidden = wanted !== "" && !text(row).includes(wanted); shown += !row.hidden; }
    said.textContent = wanted ? `${shown} of ${rows.length} rows` : "";
  });
}

function theme() {
  const button = document.getElementById("theme"), root = document.documentElement;
  const dark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const name = () => { button.textContent = dark() ? "Light" : "Dark"; };
  button.hidden = false;
  button.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; name(); });
  name();
}

theme();
scatter(figure("size"), data.points, SIZES, "No model has both a size and a quality.", data.reference);
scatter(figure("speed"), data.points, SPEEDS, "Speed was not measured. “secateur eval --speed” measures it, in turns with the parent.", data.reference);
importanceChart(figure("importance"), data.importance, data.kept);
healingChart(figure("healing"), data.healing);
data.searches.forEach((found, i) => searchChart(figure(`search-${i}`), found));
document.querySelectorAll("details.audit").forEach(searchable);
document.addEventListener("scroll", hideTip, { passive: true });
