// The page: filters above its tables, its theme, and its figures.

/** Selects above a table that keep the rows with one value. */
function filterTable(details, table) {
  const columns = Object.keys(table.headings);
  const kept = {};
  const body = details.querySelector("tbody");
  const caption = details.querySelector("caption");
  const draw = () => {
    const rows = Array.from({ length: table.count }, (_, i) => i).filter((i) =>
      Object.entries(kept).every(([column, value]) => same(table.columns[column][i], value)),
    );
    const shown = rows.slice(0, DATA.rows).map((i) =>
      element(
        "tr",
        {},
        ...columns.map((column, c) => {
          const value = table.columns[column]?.[i] ?? null;
          return element(
            c ? "td" : "th",
            c ? { class: isNumber(value) ? "number" : null } : { scope: "row" },
            show(value),
          );
        }),
      ),
    );
    body.replaceChildren(...shown);
    const beyond = rows.length > shown.length ? `the first ${shown.length} of ` : "";
    const chosen = rows.length < table.count ? ` chosen of ${table.count}` : "";
    const file = `all are in ${table.name}.csv`;
    caption.textContent = `${table.title}: ${beyond}${rows.length} rows${chosen}; ${file}`;
  };
  const made = table.keys.flatMap((column) => {
    const values = valuesOf(table, column);
    if (values.length < 2 || !(column in table.headings)) return [];
    const act = (i) => {
      if (i) kept[column] = values[i - 1];
      else delete kept[column];
      draw();
    };
    return [choice(table.headings[column], ["all", ...values.map(show)], 0, act)];
  });
  if (made.length)
    details
      .querySelector("summary")
      .after(
        element("div", { class: "controls", role: "group", "aria-label": "Rows to show" }, ...made),
      );
}

function theme() {
  const button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  const dark = () => (root.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const label = () => {
    button.textContent = dark() ? "Light" : "Dark";
    button.setAttribute("aria-label", `Switch to ${dark() ? "light" : "dark"} colours`);
  };
  try {
    const kept = localStorage.getItem("llfc-theme");
    if (kept === "dark" || kept === "light") root.dataset.theme = kept;
  } catch {} // a page from a file may have no storage
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    try {
      localStorage.setItem("llfc-theme", root.dataset.theme);
    } catch {}
    label();
  });
  system.addEventListener("change", label);
  button.hidden = false;
  label();
}

theme();
DATA.charts.forEach((chart) => new Figure(chart));
document.querySelectorAll("details.numbers").forEach((details) => {
  filterTable(details, DATA.tables[Number(details.dataset.table)]);
});
