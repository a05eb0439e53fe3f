// ---- one trial, shown in every figure and in the table ----

const columnOf = Object.fromEntries(data.table.columns.map((key, place) => [key, place]));
const winner = data.table.rows.findIndex((row) => row[0] === "winner");
let hovered = null; // a row

const configuration = (row) => data.table.columns
  .map((key, place) => [key.replace(/^param\./, ""), data.table.rows[row][place], key])
  .filter(([, value, key]) => key.startsWith("param.") && value !== null)
  .map(([name, value]) => `${name} ${typeof value === "number" ? shown(value) : value}`);

const nameOf = (row) => `${columnOf.sweep === undefined ? "trial " : ""}${data.table.rows[row][columnOf.trial]}`;

// Plotly reads markup in labels, so names from outside are escaped.
const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll("%{", "% {");
const tooltip = (row) => [nameOf(row), ...configuration(row)].map((line) => escaped(line.slice(0, 60))).join("<br>");

function listen(node) {
  node.listening = true;
  node.on("plotly_hover", ({ points: [point] }) => hover(rowOf(point)));
  node.on("plotly_unhover", () => hover(null));
  node.on("plotly_click", ({ points: [point] }) => showRow(rowOf(point)));
  node.on("plotly_afterplot", () => mark(node));
}

const rowOf = (point) => point.customdata ?? point.data?.meta ?? null;

function hover(row) {
  if (row === hovered || !(row === null || Number.isInteger(row))) return;
  hovered = row;
  drawn.forEach(mark);
  for (const line of byId("table").tBodies[0].rows) line.classList.toggle("hovered", Number(line.dataset.row) === row);
}

// Marks are drawn over a figure, in pixels, so that pointing at a trial redraws nothing.
function mark(node) {
  if (!node.data) return;
  let layer = node.querySelector(":scope > svg.marks");
  if (!layer) {
    layer = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    layer.setAttribute("class", "marks");
    layer.setAttribute("aria-hidden", "true");
    node.append(layer);
  }
  const add = (tag, attributes) => {
    const shape = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) shape.setAttribute(name, value);
    layer.append(shape);
  };
  layer.replaceChildren();
  if (node === parallel) {
    for (const [row, kind] of [[winner, "winner"], [hovered, "hovered"]]) {
      const points = row === null ? [] : lineThrough(row);
      if (points.length) add("polyline", { points: points.join(" "), class: kind });
    }
    return;
  }
  const { xaxis, yaxis } = node._fullLayout;
  if (hovered === null || !xaxis) return;
  const at = (trace, place) => [[xaxis, trace.x[place]], [yaxis, trace.y[place]]].map(([axis, value]) => axis._offset + axis.l2p(value));
  const curve = node.data.find((trace) => trace.meta === hovered && trace.mode === "lines" && trace.visible !== "legendonly");
  if (curve) {
    const known = [...curve.y.keys()].filter((place) => curve.y[place] !== null);
    add("polyline", { points: known.map((place) => at(curve, place)).join(" "), class: "hovered" });
    return;
  }
  for (const trace of node.data) {
    const place = trace.mode === "markers" ? [...(trace.customdata || [])].indexOf(hovered) : -1;
    if (place < 0) continue;
    const [x, y] = at(trace, place);
    if (x >= xaxis._offset && y >= yaxis._offset) add("circle", { cx: x, cy: y, r: 11, class: "hovered" });
    return;
  }
}

// The corners of a trial's line, on the axes in the order in which they are shown. An axis with named ticks is drawn
// from the first to the last of them only, so the height is that of an axis without names, such as the accuracy's.
function lineThrough(row) {
  const trial = view.rows.indexOf(row);
  const { dimensions } = parallel.data[0];
  const axes = [...parallel.querySelectorAll(".axis .domain")].map((axis) => axis.getBoundingClientRect())
    .sort((a, b) => a.left - b.left);
  const whole = axes[dimensions.findIndex(({ tickvals }) => !tickvals)];
  if (trial < 0 || !whole || axes.length !== dimensions.length) return [];
  const origin = parallel.getBoundingClientRect();
  return dimensions.map(({ values, range: [low, high] }, place) => [
    axes[place].left + axes[place].width / 2 - origin.left,
    whole.bottom - (whole.height * (values[trial] - low)) / (high - low) - origin.top,
  ]);
}
