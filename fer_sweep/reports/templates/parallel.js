// ---- parallel coordinates: brushes are kept here, by dimension, in the coordinates of its axis ----

const parallel = byId("parallel");
let view = data.views[0];
let brushes = {};
let chosen = null; // the rows within all brushes; null without brushes

const hasWebgl = () => {
  const canvas = document.createElement("canvas");
  return Boolean(canvas.getContext("webgl2") || canvas.getContext("webgl"));
};

const colours = () => view.figure.data[0].dimensions.at(metric() === "gap" ? -1 : -2).values;

function span(values) {
  // The scale ends at the worst tenth, so that one collapsed trial does not compress it.
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share) => sorted[Math.round(share * (sorted.length - 1))];
  return metric() === "gap" ? [sorted[0], at(0.9)] : [at(0.1), sorted.at(-1)];
}

const metric = () => document.querySelector("input[name=colour]:checked").value;

async function drawParallel() {
  drawn.add(parallel);
  if (!hasWebgl()) {
    parallel.style.minHeight = "0";
    parallel.replaceChildren(make("p", { class: "quiet" },
      "This browser has no WebGL, which the lines need. The fields below filter the trials instead."));
    byId("fields").open = true;
    return;
  }
  const { data: [trace], layout } = themed(view.figure);
  const [cmin, cmax] = span(colours());
  Object.assign(trace.line, {
    color: colours(), cmin, cmax, reversescale: metric() === "gap",
    colorbar: { title: { text: metric() === "gap" ? "gap, points" : "accuracy, %", side: "right" }, thickness: 12, outlinewidth: 0 },
  });
  trace.unselected = { line: { color: colour("quiet"), opacity: 0.06 } };
  trace.rangefont = { color: "rgba(0,0,0,0)", size: 1 };
  trace.dimensions.forEach((dimension, place) => {
    dimension.name = String(place);
    if (brushes[place]) dimension.constraintrange = brushes[place];
  });
  parallel.style.minWidth = `${Math.max(300, 92 * trace.dimensions.length)}px`;
  await Plotly.react(parallel, [trace], layout, CONFIG);
  performance.mark("drawn-parallel");
  if (!parallel.listening) {
    parallel.on("plotly_restyle", readBrushes);
    parallel.on("plotly_hover", ({ curveNumber }) => pointAt(view.rows[curveNumber]));
    parallel.on("plotly_unhover", () => pointAt(null));
    parallel.on("plotly_afterplot", () => mark(parallel));
  }
  parallel.listening = true;
  mark(parallel);
}

function readBrushes() {
  brushes = {};
  for (const dimension of parallel.data[0].dimensions) {
    const range = dimension.constraintrange;
    if (range?.length) brushes[dimension.name] = Array.isArray(range[0]) ? range : [range];
  }
  choose();
}

async function setBrush(place, ranges) {
  if (ranges) brushes[place] = ranges;
  else delete brushes[place];
  choose();
  if (parallel.data) {
    const at = parallel.data[0].dimensions.findIndex((dimension) => dimension.name === String(place));
    await Plotly.restyle(parallel, { [`dimensions[${at}].constraintrange`]: [ranges] });
  }
}

function choose() {
  const set = Object.entries(brushes);
  const dimensions = view.figure.data[0].dimensions;
  const within = (value, ranges) => ranges.some(([low, high]) => value >= low && value <= high);
  chosen = set.length === 0 ? null : new Set(view.rows.filter((_, trial) =>
    set.every(([place, ranges]) => within(dimensions[place].values[trial], ranges))));
  byId("brushed").textContent = chosen ? `${chosen.size} of ${view.rows.length} trials` : "";
  drawn.forEach(highlight);
  fillFields();
  page = 0;
  showTable();
}

function highlight(node) {
  const dots = (node.data || []).map((trace, place) => [trace, place])
    .filter(([trace]) => trace.customdata && trace.mode === "markers");
  if (node === parallel || dots.length === 0) return;
  const points = dots.map(([trace]) => chosen &&
    trace.customdata.map((row, place) => (chosen.has(row) ? place : -1)).filter((place) => place >= 0));
  if (chosen || dots.some(([trace]) => trace.selectedpoints)) {
    Plotly.restyle(node, { selectedpoints: points }, dots.map(([, place]) => place));
  }
}

// ---- the same brushes as fields, for keyboards and screen readers ----

function makeFields() {
  byId("brushes").replaceChildren(...view.dimensions.map(({ name, kind, choices }, place) => {
    const field = make("fieldset", { "data-place": place }, make("legend", {}, name));
    if (kind === "choice") {
      choices.forEach((choice, value) => {
        const box = make("input", { type: "checkbox", value });
        box.addEventListener("change", () => {
          const checked = [...field.querySelectorAll(":checked")].map((other) => Number(other.value));
          const all = checked.length === 0 || checked.length === choices.length;
          setBrush(place, all ? null : checked.map((one) => [one - 0.25, one + 0.25]));
        });
        field.append(make("label", {}, box, " ", make("span", {}, choice)));
      });
      return field;
    }
    const ends = ["from", "to"].map((end) => make("input", { type: "number", step: "any", "aria-label": `${name} ${end}` }));
    for (const end of ends) {
      end.addEventListener("change", () => {
        const [low, high] = ends.map((other) => {
          if (other.value === "") return null;
          return kind === "log" ? Math.log10(Math.max(Number(other.value), Number.MIN_VALUE)) : Number(other.value);
        });
        setBrush(place, low === null && high === null ? null : [[low ?? -1e300, high ?? 1e300]]);
      });
    }
    field.append(ends[0], " to ", ends[1]);
    return field;
  }));
}

function fillFields() {
  for (const field of byId("brushes").children) {
    const ranges = brushes[field.dataset.place];
    const { kind } = view.dimensions[field.dataset.place];
    const within = (value) => Boolean(ranges?.some(([low, high]) => value >= low && value <= high));
    if (kind === "choice") {
      for (const box of field.querySelectorAll("input")) box.checked = within(Number(box.value));
      continue;
    }
    const ends = ranges ? [ranges[0][0], ranges.at(-1)[1]] : [-1e300, 1e300];
    field.querySelectorAll("input").forEach((input, place) => {
      const open = Math.abs(ends[place]) >= 1e300;
      input.value = open ? "" : shown(kind === "log" ? 10 ** ends[place] : ends[place]);
    });
  }
}

let pointer = [0, 0];

function pointAt(row) {
  hover(row);
  const tip = byId("tip");
  tip.hidden = row === null;
  if (row === null) return;
  tip.textContent = [nameOf(row), ...configuration(row)].join("\n");
  const left = Math.min(pointer[0] + 14, innerWidth - tip.offsetWidth - 8);
  Object.assign(tip.style, { left: `${Math.max(8, left)}px`, top: `${pointer[1] + 14}px` });
}

if (parallel) {
  let pressed = null; // where, and on which trial
  parallel.addEventListener("pointermove", (event) => { pointer = [event.clientX, event.clientY]; }, true);
  parallel.addEventListener("pointerdown", () => { pressed = [...pointer, hovered]; pointAt(null); }, true);
  parallel.addEventListener("pointerleave", () => pointAt(null));
  parallel.addEventListener("pointerup", (event) => {
    const still = pressed && Math.hypot(event.clientX - pressed[0], event.clientY - pressed[1]) < 4;
    mark(parallel);
    if (still) showRow(pressed[2]);
  }, true);
  byId("clear").addEventListener("click", () => {
    brushes = {};
    choose();
    if (parallel.data) drawParallel();
  });
  byId("view").addEventListener("change", (event) => {
    view = data.views[event.target.value];
    brushes = {};
    if (parallel.data) Plotly.purge(parallel);
    parallel.listening = false;
    makeFields();
    choose();
    draw(parallel);
  });
  for (const radio of document.querySelectorAll("input[name=colour]")) radio.addEventListener("change", () => draw(parallel));
  makeFields();
}
