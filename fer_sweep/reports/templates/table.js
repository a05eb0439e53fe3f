// ---- the table of trials ----

const LABELS = { mark: "", reason: "note", seconds: "minutes" };
const KINDS = {
  mark: "text", sweep: "text", trial: "text", state: "text", verdict: "text", reason: "text",
  best_val_acc: "percent", val_acc_clean: "percent", train_val_gap: "points", macro_f1: "number",
  best_epoch: "whole", epochs: "whole", parameters: "whole", seconds: "minutes", images_per_second: "whole",
};
const { rows } = data.table;
const columns = data.table.columns.map((key) => {
  const name = key.replace(/^param\./, "");
  // A parameter named as a measurement is, such as epochs, keeps its prefix.
  return { key, label: LABELS[key] ?? (columnOf[name] === undefined || name === key ? name : key), kind: KINDS[key] ?? "parameter" };
});
const ROWS_A_PAGE = 50;
let page = 0;
let order = { column: columnOf.best_val_acc, descending: true };
let compared = []; // at most two rows
const isNumber = ({ kind }) => !["text", "parameter"].includes(kind);
const WRITE = {
  percent: (value) => `${(100 * value).toFixed(2)} %`,
  points: (value) => `${value < 0 ? "" : "+"}${(100 * value).toFixed(1)} points`,
  minutes: (value) => (value / 60).toFixed(1),
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

// ---- the filter: words, and conditions with units as the table shows them ----

const ALIASES = {
  accuracy: "best_val_acc", acc: "best_val_acc", clean: "val_acc_clean", gap: "train_val_gap", weights: "parameters",
  time: "seconds",
};
// What a condition without a column is about.
const MEANT = { point: "train_val_gap", points: "train_val_gap", s: "seconds", min: "seconds", h: "seconds" };
const SECONDS = { s: 1, min: 60, h: 3600 };
const TESTS = {
  "<": (a, b) => a < b, ">": (a, b) => a > b, "<=": (a, b) => a <= b, ">=": (a, b) => a >= b,
  "=": (a, b) => a === b, "!=": (a, b) => a !== b,
};
const CONDITION = /([^\s<>=!"]+)?\s*(<=|>=|!=|=|<|>)\s*("[^"]*"|[^\s<>=!"]+)(\s*(?:%|(?:points?|s|min|h)\b))?/g;
const QUANTITY = /^([-+.\de]+)(%|points?|s|min|h)?$/;

function placeOf(name) {
  const wanted = name.toLowerCase();
  const find = (test) => columns.findIndex((column) => test(column).toLowerCase() === wanted);
  const place = [find(({ label }) => label), find(({ key }) => key), find(({ key }) => key.replace(/^param\./, ""))];
  return place.find((one) => one >= 0) ?? columnOf[ALIASES[wanted]] ?? -1;
}

// 60%, 60 and 0.6 are the same accuracy; 12.6 points, 12.6 and 0.126 the same gap; 5 min, 5 and 300 s the same time.
function amount([, digits, unit], name, { kind }) {
  const number = Number(digits);
  if (kind === "minutes") return number * SECONDS[unit ?? (name === "seconds" ? "s" : "min")];
  return ["percent", "points"].includes(kind) && (unit || Math.abs(number) >= 1) ? number / 100 : number;
}

function condition([, name, operator, value, unit = ""], unknown) {
  const wanted = value.replaceAll('"', "").toLowerCase();
  const quantity = QUANTITY.exec(wanted.replaceAll(",", "") + unit.trim()) ?? [];
  let place = name ? placeOf(name) : -1;
  // The word before a condition without a column, as in pruned >60%.
  const isWord = place < 0 && rows.some((row) => row.some((cell) => String(cell).toLowerCase() === name?.toLowerCase()));
  if (!name || isWord) place = columnOf[MEANT[quantity[2]] ?? "best_val_acc"];
  if (place < 0) {
    unknown.push(name);
    return () => true;
  }
  return (row) => {
    if (isWord && !contains(row, name.toLowerCase())) return false;
    const cell = row[place];
    if (cell === null) return operator === "!=";
    const number = amount(quantity, name, columns[place]);
    return typeof cell === "number" && !Number.isNaN(number)
      ? TESTS[operator](cell, number)
      : TESTS[operator](String(cell).toLowerCase(), wanted);
  };
}

const contains = (row, word) => row.some((cell) => cell !== null && String(cell).toLowerCase().includes(word));

function filter() {
  const unknown = [];
  const text = byId("filter").value;
  const tests = [...text.matchAll(CONDITION)].map((found) => condition(found, unknown));
  for (const word of text.replace(CONDITION, " ").toLowerCase().split(/\s+/).filter(Boolean)) {
    tests.push((row) => contains(row, word));
  }
  byId("unknown").textContent = unknown.length === 0 ? ""
    : `Unknown column ${unknown.join(", ")}. Columns: ${columns.map(({ label, key }) => label || key).join(", ")}`;
  return tests;
}

// ---- rows ----

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
    head.append(make("th", { scope: "col", class: `${isNumber(column) ? "number" : ""} ${column.key}` }, button));
  });
  byId("table").tHead.replaceChildren(head);
}

function makeCell(place, column, at) {
  const kind = { mark: "mark", reason: "note", trial: "trial" }[column.key] ?? (isNumber(column) ? "number" : "");
  const isName = column.key === "trial";
  const text = written(rows[place][at], column);
  const cell = make(isName ? "th" : "td", { class: kind, ...(isName && { scope: "row" }) });
  if (column.key === "mark") {
    const box = make("input", { type: "checkbox", "aria-label": `compare ${nameOf(place)}` });
    box.checked = compared.includes(place);
    box.addEventListener("change", () => {
      compared = [...compared.filter((row) => row !== place), ...(box.checked ? [place] : [])].slice(-2);
      showCompared();
      showTable();
    });
    cell.append(box, " ");
  }
  const model = isName && dotOf(place);
  if (model) cell.append(make("span", { class: "dot", style: `color:${model}`, "aria-hidden": "true" }, "● "));
  cell.append(column.key === "verdict" && text ? make("span", { class: `verdict ${text}` }, text) : text);
  return cell;
}

function dotOf(row) {
  const light = columnOf["param.model"] === undefined ? null : data.colours[rows[row][columnOf["param.model"]]];
  return light && `light-dark(${light}, ${data.dark[light]})`;
}

const inOrder = () => {
  const tests = filter();
  return rows.map((_, place) => place)
    .filter((place) => (!chosen || chosen.has(place)) && tests.every((test) => test(rows[place])))
    .sort((a, b) => compare(rows[a][order.column], rows[b][order.column]));
};

function showTable() {
  const found = inOrder();
  const pages = Math.max(1, Math.ceil(found.length / ROWS_A_PAGE));
  page = Math.min(page, pages - 1);
  const body = found.slice(page * ROWS_A_PAGE, (page + 1) * ROWS_A_PAGE).map((place) => {
    const line = make("tr", { class: rows[place][0], "data-row": place });
    line.append(...columns.map((column, at) => makeCell(place, column, at)));
    line.addEventListener("mouseenter", () => hover(place));
    line.addEventListener("mouseleave", () => hover(null));
    return line;
  });
  byId("table").tBodies[0].replaceChildren(...body);
  [...byId("table").tHead.rows[0].cells].forEach((cell, place) => {
    cell.setAttribute("aria-sort", place !== order.column ? "none" : order.descending ? "descending" : "ascending");
  });
  byId("table").style.setProperty("--mark-width", `${byId("table").tHead.rows[0].cells[0].offsetWidth}px`);
  byId("found").textContent = `${found.length} of ${rows.length} trials`;
  byId("page").textContent = `page ${page + 1} of ${pages}`;
  byId("previous").disabled = page === 0;
  byId("next").disabled = page === pages - 1;
}

// A trial that was clicked in a figure: its page, its row.
function showRow(row) {
  if (row === null) return;
  if (!inOrder().includes(row)) {
    byId("filter").value = "";
    if (chosen && !chosen.has(row)) byId("clear").click();
  }
  page = Math.floor(inOrder().indexOf(row) / ROWS_A_PAGE);
  showTable();
  const line = byId("table").querySelector(`tr[data-row="${row}"]`);
  line.classList.add("target");
  line.tabIndex = -1;
  line.scrollIntoView({ block: "center" });
  line.focus({ preventScroll: true });
}

// ---- two trials side by side ----

function showCompared() {
  const box = byId("compared");
  box.hidden = compared.length < 2;
  if (box.hidden) return;
  const [a, b] = compared;
  const line = (at) => make("tr", {}, make("th", { scope: "row" }, columns[at].label),
    ...compared.map((row) => make("td", {}, written(rows[row][at], columns[at]) || "–")));
  const all = columns.map((_, at) => at);
  const differ = all.filter((at) => columns[at].key.startsWith("param.") && rows[a][at] !== rows[b][at]);
  const results = all.filter((at) => !columns[at].key.startsWith("param.") && !["mark", "trial", "sweep", "reason"].includes(columns[at].key));
  byId("difference").textContent = [["best_val_acc", 0, "accuracy"], ["train_val_gap", 1, "gap"]].map(([key, at, what]) => {
    if (!data.chance[a] || !data.chance[b]) return "";
    const apart = rows[a][columnOf[key]] - rows[b][columnOf[key]];
    const chance = Math.hypot(data.chance[a][at], data.chance[b][at]);
    const words = Math.abs(apart) > chance ? "beyond noise" : "not beyond noise";
    return `Their ${what} differs by ${(100 * Math.abs(apart)).toFixed(2)} points, ${words}: chance explains up to ${(100 * chance).toFixed(2)}.`;
  }).join(" ");
  byId("side-by-side").replaceChildren(
    make("thead", {}, make("tr", {}, make("th", { scope: "col" }, ""), ...compared.map((row) => make("th", { scope: "col" }, nameOf(row))))),
    make("tbody", {}, ...[...differ, ...results].map(line)));
}

byId("filter").addEventListener("input", () => { page = 0; showTable(); });
byId("previous").addEventListener("click", () => { page -= 1; showTable(); });
byId("next").addEventListener("click", () => { page += 1; showTable(); });
makeHead();
showTable();
performance.mark("table-shown");
