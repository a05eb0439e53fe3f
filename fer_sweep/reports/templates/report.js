"use strict";
// One page, no network: everything shown comes from the JSON in #data, and Plotly draws it.
(() => {
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const root = document.documentElement;

  const make = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  };

  // ---- theme: figures are made in light colours, each with a dark partner ----

  const systemDark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => root.dataset.theme === "dark" || (root.dataset.theme === "auto" && systemDark.matches);
  const colour = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();

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
    drawn.add(node);
    await Plotly.react(node, traces, layout, CONFIG);
    performance.mark(`drawn-${node.dataset.figure}`);
    highlight(node);
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
    if (!parallel.listening) parallel.on("plotly_restyle", readBrushes);
    parallel.listening = true;
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

  const shown = (value) => {
    const small = value !== 0 && Math.abs(value) < 1e-3;
    return small ? value.toExponential(2).replace(/\.?0+e/, "e") : String(Number(value.toPrecision(4)));
  };

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

  if (parallel) {
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

  // ---- the table of trials ----

  const LABELS = { mark: "", parameters: "weights", reason: "note" };
  const KINDS = {
    mark: "text", sweep: "text", trial: "text", state: "text", verdict: "text", reason: "text",
    best_val_acc: "percent", val_acc_clean: "percent", train_val_gap: "points", macro_f1: "number",
    best_epoch: "whole", epochs: "whole", parameters: "whole", seconds: "whole", images_per_second: "whole",
  };
  const { rows } = data.table;
  const columns = data.table.columns.map((key) => (
    { key, label: LABELS[key] ?? key.replace(/^param\./, ""), kind: KINDS[key] ?? "parameter" }));
  const ROWS_A_PAGE = 50;
  let page = 0;
  let order = { column: columns.findIndex(({ key }) => key === "best_val_acc"), descending: true };
  const isNumber = ({ kind }) => !["text", "parameter"].includes(kind);
  const WRITE = {
    percent: (value) => `${(100 * value).toFixed(2)} %`,
    points: (value) => `${value < 0 ? "" : "+"}${(100 * value).toFixed(1)}`,
    whole: (value) => Math.round(value).toLocaleString("en-US"),
    number: (value) => value.toFixed(3),
    parameter: (value) => (typeof value === "number" ? shown(value) : String(value)),
    text: String,
  };
  const written = (value, { kind }) => (value === null ? "" : WRITE[kind](value));

  function compare(a, b) {
    if (a === null || b === null) return (a === null) - (b === null);
    const sign = order.descending ? -1 : 1;
    if (typeof a === "number" && typeof b === "number") return sign * (a - b);
    return sign * String(a).localeCompare(String(b), "en", { numeric: true });
  }

  const TESTS = {
    "<": (a, b) => a < b, ">": (a, b) => a > b, "<=": (a, b) => a <= b, ">=": (a, b) => a >= b,
    "=": (a, b) => a === b, "!=": (a, b) => a !== b,
  };

  function condition(word) {
    const [, name, operator, wanted] = word.match(/^([^<>=!]+)(<=|>=|!=|=|<|>)(.+)$/) || [];
    const place = columns.findIndex(({ key, label }) => name && (key === name || label === name));
    if (place < 0) return (row) => row.some((cell) => cell !== null && String(cell).toLowerCase().includes(word.toLowerCase()));
    return (row) => {
      const cell = row[place];
      if (cell === null) return operator === "!=";
      return typeof cell === "number" && !Number.isNaN(Number(wanted))
        ? TESTS[operator](cell, Number(wanted))
        : TESTS[operator](String(cell).toLowerCase(), wanted.toLowerCase());
    };
  }

  function makeHead() {
    const head = make("tr");
    columns.forEach((column, place) => {
      const button = make("button", { type: "button" }, column.label || "mark");
      button.addEventListener("click", () => {
        const again = order.column === place;
        order = { column: place, descending: again ? !order.descending : isNumber(column) };
        page = 0;
        showTable();
      });
      head.append(make("th", { scope: "col", class: isNumber(column) ? "number" : "" }, button));
    });
    byId("table").tHead.replaceChildren(head);
  }

  function showTable() {
    const tests = byId("filter").value.split(/\s+/).filter(Boolean).map(condition);
    const found = rows.map((_, place) => place)
      .filter((place) => (!chosen || chosen.has(place)) && tests.every((test) => test(rows[place])))
      .sort((a, b) => compare(rows[a][order.column], rows[b][order.column]));
    const pages = Math.max(1, Math.ceil(found.length / ROWS_A_PAGE));
    page = Math.min(page, pages - 1);
    const body = found.slice(page * ROWS_A_PAGE, (page + 1) * ROWS_A_PAGE).map((place) => {
      const line = make("tr", { class: rows[place][0] });
      columns.forEach((column, at) => {
        const kind = column.key === "mark" ? "mark" : column.key === "reason" ? "note" : isNumber(column) ? "number" : "";
        const isName = column.key === "trial";
        line.append(make(isName ? "th" : "td", { class: kind, ...(isName && { scope: "row" }) }, written(rows[place][at], column)));
      });
      return line;
    });
    byId("table").tBodies[0].replaceChildren(...body);
    [...byId("table").tHead.rows[0].cells].forEach((cell, place) => {
      cell.setAttribute("aria-sort", place !== order.column ? "none" : order.descending ? "descending" : "ascending");
    });
    byId("found").textContent = `${found.length} of ${rows.length} trials`;
    byId("page").textContent = `page ${page + 1} of ${pages}`;
    byId("previous").disabled = page === 0;
    byId("next").disabled = page === pages - 1;
  }

  byId("filter").addEventListener("input", () => { page = 0; showTable(); });
  byId("previous").addEventListener("click", () => { page -= 1; showTable(); });
  byId("next").addEventListener("click", () => { page += 1; showTable(); });
  makeHead();
  showTable();
  performance.mark("table-shown");

  // ---- figures are drawn when they come near ----

  const plots = document.querySelectorAll(".plot");
  const near = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      near.unobserve(target);
      draw(target);
    }
  }, { rootMargin: "300px" });
  plots.forEach((plot) => near.observe(plot));
  addEventListener("beforeprint", () => plots.forEach((plot) => { if (!drawn.has(plot)) draw(plot); }));
})();
