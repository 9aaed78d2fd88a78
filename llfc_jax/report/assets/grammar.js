// From a chart and its table to panels, lines and points: the twin of grammar.py.

for (const { columns } of DATA.tables)
  for (const [column, cells] of Object.entries(columns))
    if (cells.codes) columns[column] = cells.codes.map((code) => cells.names[code]);

const SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹";

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const same = (a, b) => (isNumber(a) && isNumber(b) ? Math.abs(a - b) <= 1e-6 : a === b);
const distinct = (values) => [...new Set(values)];

function show(value) {
  if (value === null || value === undefined || value === "") return "–";
  if (value === true || value === false) return value ? "yes" : "no";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value) && Math.abs(value) < 1e7) return String(value);
  const size = Math.abs(value);
  const digits = size < 1e-4 || size >= 1e4 ? value.toExponential(3) : value.toPrecision(4);
  return digits.replace(/\.?0+(?=e|$)/, "");
}

function powerOfTen(exponent) {
  const digits = String(Math.abs(exponent)).replace(/\d/g, (d) => SUPERSCRIPTS[d]);
  return `10${exponent < 0 ? "⁻" : ""}${digits}`;
}

/** The values of a column that a reader can choose from: numbers ascending, names as they come. */
function valuesOf(table, column) {
  const values = distinct(table.columns[column] ?? []).filter((v) => v !== null);
  return values.every(isNumber) ? values.sort((a, b) => a - b) : values;
}

/** What `chart` draws from `table`; `line` keeps one value of the `lines` column. */
function makePlan(chart, table, line = null) {
  const cell = (column, i) => table.columns[column]?.[i] ?? null;
  const where = Object.entries(chart.where);
  let rows = Array.from({ length: table.count }, (_, i) => i)
    .filter((i) => where.every(([column, value]) => same(cell(column, i), value)))
    .filter((i) => cell(chart.x, i) !== null);
  const numeric = rows.every((i) => isNumber(cell(chart.x, i)));
  const names = numeric ? null : distinct(rows.map((i) => String(cell(chart.x, i))));
  const place = new Map(names?.map((name, index) => [name, index]));
  const at = (i) => (numeric ? cell(chart.x, i) : place.get(String(cell(chart.x, i))));

  let lines = [];
  if (chart.lines) {
    lines = distinct(rows.map((i) => cell(chart.lines, i))).filter((v) => v !== null);
    if (lines.every(isNumber)) lines.sort((a, b) => a - b);
  }
  const ordered =
    (lines.length > 0 && lines.every(isNumber)) ||
    chart.lines === "layer" ||
    lines.length > DATA.names;

  const keyOf = (i) => JSON.stringify(chart.panels.map((column) => cell(column, i)));
  const groups = new Map();
  for (const i of rows) {
    const key = keyOf(i);
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(i);
  }
  const varies = (y) => {
    const seen = new Map();
    return rows.some((i) => {
      const value = cell(y, i);
      if (!isNumber(value)) return false;
      const key = `${at(i)} ${keyOf(i)}`;
      if (!seen.has(key)) seen.set(key, value);
      const first = seen.get(key);
      return Math.abs(first - value) > 1e-6 * Math.max(Math.abs(first), Math.abs(value)) + 1e-12;
    });
  };
  const columns = Object.keys(chart.y);
  const once = new Set(columns.filter((y) => lines.length > 1 && !varies(y)));

  const seriesOf = (y, value, mine) => {
    let points = mine;
    if (value !== null) points = mine.filter((i) => same(cell(chart.lines, i), value));
    else if (once.has(y)) points = [...new Map(mine.map((i) => [at(i), i]).reverse()).values()];
    const made = points.map((i) => {
      const spread = chart.band[y] ? cell(chart.band[y], i) : null;
      const known = isNumber(cell(y, i));
      return { x: at(i), y: known ? cell(y, i) : NaN, spread: isNumber(spread) ? spread : null };
    });
    made.sort((a, b) => a.x - b.x);
    return { y, line: value, points: made };
  };
  const keys = [...groups.keys()].map((key) => JSON.parse(key));
  const vary = chart.panels
    .map((_, c) => c)
    .filter((c) => distinct(keys.map((k) => k[c])).length > 1);
  const panels = [...groups.values()].map((mine, index) => {
    const series = columns.flatMap((y) =>
      (!chart.lines || once.has(y) ? [null] : lines).map((value) => seriesOf(y, value, mine)),
    );
    const kept = series.filter((s) => line === null || s.line === null || same(s.line, line));
    const full = kept.filter((s) => s.points.some((p) => isNumber(p.y)));
    return { key: vary.map((c) => keys[index][c]), series: full };
  });
  const pinned = where.map(([column, value]) => [column, value]);
  chart.panels.forEach((column, c) => {
    if (keys.length && !vary.includes(c)) pinned.push([column, keys[0][c]]);
  });
  const drawn = panels.filter((panel) => panel.series.length);
  return {
    panels: drawn,
    pinned,
    names,
    lines,
    ordered,
    vary: vary.length,
    ...floorOf(chart, drawn),
  };
}

/** Floor of a logarithmic axis and where it begins, as powers of ten; values below the floor. */
function floorOf(chart, panels) {
  if (!chart.log) return { floor: null, clipped: 0, bottom: null };
  const values = panels.flatMap((p) => p.series.flatMap((s) => s.points.map((q) => q.y)));
  const positive = values.filter((v) => v > 0);
  const lowest = -DATA.decades;
  if (!positive.length) return { floor: lowest, clipped: values.length, bottom: lowest };
  const least = Math.log10(positive.reduce((a, b) => Math.min(a, b)));
  const most = Math.log10(positive.reduce((a, b) => Math.max(a, b)));
  const floor = Math.max(Math.floor(least + 1e-9), Math.ceil(most - 1e-9) - DATA.decades);
  const clipped = values.filter((v) => v < 10 ** floor * (1 - 1e-9)).length;
  return { floor, clipped, bottom: clipped ? floor : least - 0.06 * (most - least) - 0.04 };
}

/** (row, column) of each panel, at most `most` wide: a table of two panel columns, or wrapped. */
function placesOf(plan, most) {
  if (plan.vary === 2) {
    const across = distinct(plan.panels.map((p) => p.key[0]));
    const down = distinct(plan.panels.map((p) => p.key[1]));
    if (across.length <= most && across.length * down.length === plan.panels.length)
      return plan.panels.map((p) => [down.indexOf(p.key[1]), across.indexOf(p.key[0])]);
  }
  const count = plan.panels.length;
  const columns = Math.min(most, { 5: 3, 6: 3, 9: 3 }[count] ?? count);
  return plan.panels.map((_, i) => [Math.floor(i / columns), i % columns]);
}

/** Round steps between two numbers, at most `most` of them. */
function ticksBetween(low, high, most) {
  const rough = (high - low) / most || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 2.5, 5, 10].find((s) => s * power >= rough * (1 - 1e-9));
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++)
    ticks.push(Number((i * step).toPrecision(12)));
  return ticks;
}
