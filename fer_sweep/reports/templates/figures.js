const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("data").textContent);
const root = document.documentElement;

const make = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
};

const shown = (value) => {
  const small = value !== 0 && Math.abs(value) < 1e-3;
  return small ? value.toExponential(2).replace(/\.?0+e/, "e") : String(Number(value.toPrecision(4)));
};

// ---- theme: figures are made in light colours, each with a dark partner ----

const systemDark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => root.dataset.theme === "dark" || (root.dataset.theme === "auto" && systemDark.matches);
const colour = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).match(/#\w+/g)[isDark() ? 1 : 0];

function themed(spec) {
  const dark = isDark() ? data.dark : {};
  const copy = JSON.parse(JSON.stringify(spec), (_, value) =>
    typeof value === "string" && Object.hasOwn(dark, value) ? dark[value] : value);
  const layout = copy.layout;
  const text = { color: colour("text"), size: 13, family: getComputedStyle(root).fontFamily };
  Object.assign(layout, {
    paper_bgcolor: colour("card"), plot_bgcolor: colour("card"), font: text,
    margin: layout.margin || { l: 62, r: 14, t: 12, b: 50 },
    hoverlabel: { bgcolor: colour("ground"), bordercolor: colour("quiet"), font: text },
  });
  layout.legend = { ...layout.legend, bgcolor: "rgba(0,0,0,0)" };
  for (const axis of ["xaxis", "yaxis"]) {
    const lines = { gridcolor: colour("grid"), zerolinecolor: colour("line"), linecolor: colour("line") };
    if (copy.data[0]?.type !== "parcoords") layout[axis] = { ...lines, automargin: true, ...layout[axis] };
  }
  return copy;
}

const CONFIG = {
  responsive: true, displaylogo: false, displayModeBar: false, showTips: false, showLink: false, sendData: false,
};
const drawn = new Set();

// Plotly takes a good part of a second to start, so it starts once the page is painted and the table usable.
const started = new Promise((resolve) => {
  const start = () => {
    const source = byId("plotly");
    if (window.Plotly || !source) return;
    document.head.append(make("script", {}, source.textContent));
    performance.mark("plotly-started");
    resolve();
  };
  addEventListener("DOMContentLoaded", () => {
    requestAnimationFrame(() => setTimeout(start));
    setTimeout(start, 500); // a page in the background has no frames
  });
});

async function draw(node) {
  await started;
  if (node.id === "parallel") return drawParallel();
  const { data: traces, layout } = themed(data.figures[node.dataset.figure]);
  for (const trace of traces) {
    if (trace.mode === "markers" && trace.customdata) trace.text = trace.customdata.map(tooltip);
  }
  drawn.add(node);
  await Plotly.react(node, traces, layout, CONFIG);
  performance.mark(`drawn-${node.dataset.figure}`);
  highlight(node);
  if (!node.listening) listen(node);
}

const redraw = () => drawn.forEach(draw);
byId("theme").addEventListener("change", (event) => {
  root.dataset.theme = event.target.value;
  try { localStorage.setItem("fersweep-theme", event.target.value); } catch { /* a file may have no storage */ }
  redraw();
});
systemDark.addEventListener("change", redraw);
try {
  const kept = localStorage.getItem("fersweep-theme");
  if (["light", "dark"].includes(kept)) root.dataset.theme = byId("theme").value = kept;
} catch { /* no storage */ }

// ---- figures are saved as they are shown ----

for (const button of document.querySelectorAll("[data-save]")) {
  button.addEventListener("click", async () => {
    const node = button.closest(".card").querySelector(".plot");
    if (!drawn.has(node)) await draw(node);
    if (!node.data) return; // no WebGL
    const filename = node.id || node.dataset.figure;
    await Plotly.downloadImage(node, {
      format: button.dataset.save, filename, scale: 2, width: node.offsetWidth, height: node.offsetHeight });
  });
}
