// Curves: importance over ranks, loss over tokens. A cursor follows the pointer or the arrow keys.
function lineChart(plot, series, axes, marks) {
  const hidden = new Set();
  const legend = html("div", { class: "legend" });
  const holder = html("div", {});
  const many = series.length > 8;
  const tint = (i) => (many ? ramp(i, series.length) : colour(i + 1));
  if (!many && series.length > 1) {
    series.forEach((s, i) => {
      const button = html("button", { type: "button", "aria-pressed": "true", click: () => {
        hidden.has(i) ? hidden.delete(i) : hidden.add(i);
        button.setAttribute("aria-pressed", String(!hidden.has(i)));
        redraw();
      } }, html("i", { style: `background:${tint(i)}` }), s.name);
      legend.append(button);
    });
  }
  plot.replaceChildren(holder, legend);
  const redraw = fluid(holder, (width) => drawLines(holder, series.map((s, i) => ({ ...s, tint: tint(i) })).filter((_, i) => !hidden.has(i)), axes, marks || [], width));
}

function drawLines(holder, series, axes, marks, width) {
  const height = Math.min(340, Math.max(240, width * 0.45));
  const box = { left: 58, right: width - 14, top: 28, bottom: height - 46 };
  const said = `${axes.y.title} over ${axes.x.title}; arrow keys move the cursor`;
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, tabindex: 0, role: "application", "aria-roledescription": "line chart", "aria-label": said });
  const all = series.flatMap((s) => s.points);
  if (!all.length) { holder.replaceChildren(html("p", { class: "empty" }, "All curves are hidden.")); return; }
  const [sx, sy] = frame(root, box,
    { ...axes.x, domain: axes.x.domain || padded(all.map((p) => p[0]), 0) },
    { ...axes.y, domain: axes.y.domain || padded(all.map((p) => p[1]), 0.06) });
  for (const m of marks) {
    root.append(svg("line", { class: "mark-line", x1: sx(m.at), x2: sx(m.at), y1: box.top, y2: box.bottom }));
    root.append(svg("text", { class: "share", x: sx(m.at), y: box.top + 12, "text-anchor": "middle" }, m.text));
  }
  for (const s of series) {
    const path = (points) => "M" + points.map((p) => `${sx(p[0]).toFixed(1)},${sy(p[1]).toFixed(1)}`).join("L");
    const mean = axes.smooth ? running(s.points) : null;
    root.append(svg("path", { class: mean ? "line raw" : "line", stroke: s.tint, d: path(s.points) }));
    if (mean) root.append(svg("path", { class: "line", stroke: s.tint, d: path(mean) }));
  }
  follow(root, series, axes, box, sx, sy, width);
  holder.replaceChildren(root);
}

// Mean of the points around each one; null where there are too few for noise to matter.
function running(points) {
  const half = Math.floor(points.length / 50);
  if (half < 1) return null;
  return points.map((p, i) => {
    const part = points.slice(Math.max(0, i - half), i + half + 1);
    return [p[0], part.reduce((sum, q) => sum + q[1], 0) / part.length];
  });
}

function follow(root, series, axes, box, sx, sy, width) {
  const cursor = svg("line", { class: "cursor", y1: box.top, y2: box.bottom, visibility: "hidden" });
  const dots = series.map((s) => svg("circle", { r: 3.5, fill: s.tint, visibility: "hidden" }));
  root.append(cursor, ...dots);
  const xs = [...new Set(series.flatMap((s) => s.points.map((p) => p[0])))].sort((a, b) => a - b);
  let at = -1;
  const hide = () => { [cursor, ...dots].forEach((n) => n.setAttribute("visibility", "hidden")); hideTip(); };
  const show = (index, event) => {
    at = Math.max(0, Math.min(xs.length - 1, index));
    cursor.setAttribute("x1", sx(xs[at])); cursor.setAttribute("x2", sx(xs[at])); cursor.setAttribute("visibility", "visible");
    const near = series.map((s, i) => {
      const p = nearest(s.points, xs[at]);
      dots[i].setAttribute("cx", sx(p[0])); dots[i].setAttribute("cy", sy(p[1])); dots[i].setAttribute("visibility", "visible");
      return [s.name, p[1]];
    }).sort((a, b) => b[1] - a[1]);
    const lines = near.slice(0, 10).map(([name, v]) => (name ? `${name}: ` : "") + axes.y.show(v));
    if (near.length > 10) lines.push(`and ${near.length - 10} more`);
    const b = root.getBoundingClientRect();
    showTip(`${axes.x.title}: ${axes.x.show(xs[at])}`, lines, event ? event.clientX : b.left + (sx(xs[at]) / width) * b.width, event ? event.clientY : b.top + 40);
  };
  root.addEventListener("pointermove", (e) => {
    const b = root.getBoundingClientRect(), px = ((e.clientX - b.left) / b.width) * width;
    show(xs.reduce((best, x, i) => (Math.abs(sx(x) - px) < Math.abs(sx(xs[best]) - px) ? i : best), 0), e);
  });
  root.addEventListener("pointerleave", hide);
  root.addEventListener("blur", hide);
  root.addEventListener("keydown", (e) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity }[e.key];
    if (e.key === "Escape") hide();
    if (step === undefined) return;
    e.preventDefault();
    show(Math.max(0, Math.min(xs.length - 1, at + step)));
  });
}
const nearest = (points, x) => points.reduce((a, b) => (Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a));
