// Draws the page's charts with Vega-Lite and keeps its choices, tables and colours in step.
const packed = Uint8Array.from(atob(document.getElementById("data").textContent), (c) => c.charCodeAt(0));
const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
const DATA = await new Response(unpacked).json();
const ROWS = 200; // of a table that the page shows; the rest is in the section's CSV
const chosen = {}; // column -> value, null for all
const views = new Map(); // figure -> its drawn view

/** An element with properties and children. */
function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

const WORDS = new Map([[null, "–"], [undefined, "–"], [true, "yes"], [false, "no"]]);
const show = (cell) =>
  WORDS.get(cell) ?? (Number.isInteger(cell) || isNaN(cell) ? `${cell}` : `${+(+cell).toPrecision(4)}`);

/** Draws a figure as wide as the page gives it room, with as many panels side by side as fit. */
async function draw(figure) {
  const chart = DATA.charts[figure.dataset.chart];
  const spec = structuredClone(chart.specs[Number(figure.dataset.other ?? 0)]);
  const plot = figure.querySelector(".plot");
  if (!plot.clientWidth) return; // hidden on narrow screens
  const room = Math.max(260, plot.clientWidth - 4);
  const panel = spec.spec ?? spec;
  const columns = Math.max(1, Math.min(spec.columns ?? 1, Math.floor(room / chart.least)));
  if (spec.spec) spec.columns = columns;
  panel.width = Math.round(Math.min(spec.spec ? 420 : 620, (room - chart.margin) / columns - 20));
  if (chart.mark !== "heat") panel.height = Math.round(Math.max(110, Math.min(260, panel.width * 0.62)));
  for (const param of spec.params) {
    if (param.name === "room") param.value = room;
    if (param.name.startsWith("by_")) {
      delete param.bind; // the page has one menu for all charts
      const column = chart.choices[param.name];
      if (column in chosen) param.value = chosen[column];
    }
  }
  spec.datasets = { points: chart.points };
  views.get(figure)?.finalize();
  const tooltip = { disableDefaultStyle: true };
  const options = { actions: false, renderer: "svg", config: DATA.config, tooltip };
  const { view } = await vegaEmbed(plot, spec, options);
  views.set(figure, view);
}

/** Saves a figure in the page's light colours. */
async function save(figure) {
  const colours = await views.get(figure).toSVG();
  const svg = colours.replace(/var\(--(\w+)\)/g, (_, name) => DATA.colours[name]);
  const link = make("a", { download: `${DATA.charts[figure.dataset.chart].name}.svg` });
  link.href = `data:image/svg+xml,${encodeURIComponent(svg)}`;
  link.click();
}

function addTools(figure) {
  const chart = DATA.charts[figure.dataset.chart];
  const tools = figure.querySelector(".tools");
  if (chart.specs.length > 1) {
    const words = ["Linear scale", "Logarithmic scale"];
    if (!chart.log) words.reverse();
    const button = make("button", { type: "button", textContent: words[0], className: "scale" });
    button.onclick = () => {
      figure.dataset.other = 1 - Number(figure.dataset.other ?? 0);
      button.textContent = words[Number(figure.dataset.other)];
      draw(figure);
    };
    tools.append(button);
  }
  const button = make("button", { type: "button", textContent: "Save as SVG" });
  button.onclick = () => save(figure);
  tools.append(button);
}

/** One menu per column that charts share; it moves all of them and the tables. */
function addChoice({ column, label, values, value }) {
  const options = values.map((v, i) =>
    make("option", { value: i, textContent: v === null ? "all" : show(v), selected: v === value }),
  );
  const select = make("select", { autocomplete: "off", name: column }, ...options);
  select.onchange = () => {
    chosen[column] = values[Number(select.value)];
    for (const [figure, view] of views) {
      const { choices } = DATA.charts[figure.dataset.chart];
      const name = Object.keys(choices).find((key) => choices[key] === column);
      if (name) view.signal(name, chosen[column]).runAsync();
    }
    document.querySelectorAll("details.numbers[open]").forEach(fillTable);
  };
  document.getElementById("choices").append(make("label", {}, `${label} `, select));
}

/** The rows of a section that are among the reader's choices. */
function fillTable(details) {
  const name = details.dataset.section;
  const { columns, keys, rows } = DATA.sections[name];
  const limits = keys.filter((key) => (chosen[key] ?? null) !== null);
  const found = rows.filter((row) => limits.every((key) => row[key] === chosen[key]));
  const shown = found.slice(0, ROWS);
  const kind = (column) => (shown.some((row) => typeof row[column] === "number") ? "number" : "");
  const cell = (tag, column, text) => make(tag, { textContent: text, className: kind(column) });
  const head = Object.entries(columns).map(([column, heading]) => cell("th", column, heading));
  const body = shown.map((row) =>
    make("tr", {}, ...Object.keys(columns).map((column) => cell("td", column, show(row[column])))),
  );
  const first = shown.length < found.length ? `The first ${shown.length} of ` : "";
  const caption = `${first}${found.length} rows; all ${rows.length} are in ${name}.csv`;
  const table = make("table", {}, make("caption", { textContent: caption }));
  table.append(make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...body));
  details.querySelector(".scroll")?.remove();
  details.append(make("div", { className: "scroll", tabIndex: 0 }, table));
}

const figures = [...document.querySelectorAll("figure")];
async function drawAll() {
  for (const figure of figures) await draw(figure);
  document.documentElement.dataset.drawn = figures.length;
}
figures.forEach(addTools);
DATA.choices.forEach(addChoice);
document.querySelectorAll("details.numbers").forEach((details) => {
  details.ontoggle = () => details.open && fillTable(details);
});
document.getElementById("theme").onclick = () => {
  const { dataset } = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  dataset.theme = (dataset.theme ?? system) === "dark" ? "light" : "dark";
};
let width = innerWidth;
addEventListener("resize", () => {
  if (innerWidth === width) return; // a phone's bars come and go
  width = innerWidth;
  clearTimeout(drawAll.waiting);
  drawAll.waiting = setTimeout(drawAll, 200);
});
drawAll();
