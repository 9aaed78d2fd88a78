// The page: draws every figure from the embedded rows, with choices, and filters the tables.

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes))
    if (value === true) made.setAttribute(key, "");
    else if (value !== null && value !== false) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function choice(label, options, act) {
  const select = element("select", {}, ...options.map((text, i) => element("option", { value: i }, text)));
  select.addEventListener("change", () => act(Number(select.value)));
  return { control: element("label", {}, `${label} `, select), select };
}

function check(label, checked, act) {
  const box = element("input", { type: "checkbox", checked });
  box.addEventListener("change", () => act(box.checked));
  return element("label", {}, box, ` ${label}`);
}

function slider(label, values, start, act) {
  const input = element("input", { type: "range", min: 0, max: values.length - 1, step: 1, value: start });
  const output = element("output", {}, show(values[start]));
  input.setAttribute("aria-valuetext", show(values[start]));
  input.addEventListener("input", () => {
    const value = values[Number(input.value)];
    output.textContent = show(value);
    input.setAttribute("aria-valuetext", show(value));
    act(value);
  });
  return element("label", {}, `${label} `, input, " ", output);
}

/** A figure: its choices, its drawing and the values under the pointer or the keyboard. */
class Figure {
  constructor(chart) {
    this.given = chart;
    this.chart = { ...chart, where: { ...chart.where } };
    this.table = DATA.tables[chart.table];
    this.line = null;
    this.own = false;
    this.root = document.getElementById(chart.id);
    this.plot = this.root.querySelector(".plot");
    this.note = element("p", { class: "note" });
    this.legend = element("div", { class: "legend" });
    this.canvas = element("div", { class: "canvas" });
    this.tip = element("div", { class: "tip", hidden: true });
    this.spoken = element("p", { class: "hidden", "aria-live": "polite" });
    this.chosen = new Set(); // columns that have a control, which says what is chosen
    const controls = element("div", { class: "controls", role: "group", "aria-label": "Choices" });
    if (!this.root.hasAttribute("data-plain")) controls.append(...this.controls());
    this.plot.replaceChildren(controls, this.legend, this.note, this.canvas, this.tip, this.spoken);
    this.listen();
    this.width = 0;
    new ResizeObserver(() => {
      const width = Math.round(this.canvas.clientWidth);
      if (width && width !== this.width) this.draw();
    }).observe(this.canvas);
    this.draw();
  }

  heading(column) {
    return this.table.headings[column] ?? column;
  }

  controls() {
    const { given, chart, table } = this;
    const made = [];
    for (const [column, value] of Object.entries(given.where)) {
      const values = valuesOf(table, column);
      const start = values.findIndex((v) => same(v, value));
      if (values.length < 2 || start < 0) continue;
      this.chosen.add(column);
      const act = (v) => {
        chart.where[column] = v;
        this.draw();
      };
      if (values.every(isNumber) && values.length > 3)
        made.push(slider(this.heading(column), values, start, act));
      else {
        const { control, select } = choice(this.heading(column), values.map(show), (i) => act(values[i]));
        select.value = start;
        made.push(control);
      }
    }
    const lines = given.lines ? valuesOf(table, given.lines) : [];
    if (lines.length > 1) {
      const options = ["all", ...lines.map(show)];
      const act = (i) => {
        this.line = i ? lines[i - 1] : null;
        this.draw();
      };
      made.push(choice(this.heading(given.lines), options, act).control);
    }
    const taken = [given.x, given.lines, ...given.panels, ...Object.keys(given.where), ...Object.values(given.band)];
    const others = Object.keys(table.headings).filter(
      (c) => !taken.includes(c) && !(c in given.y) && table.columns[c]?.every((v) => v === null || isNumber(v)),
    );
    const own = Object.keys(given.y).length > 1 ? Object.keys(given.y) : [];
    const metrics = [...own, ...others];
    if (metrics.length) {
      const words = metrics.map((c) => given.y[c] ?? this.heading(c));
      const act = (i) => {
        const column = metrics[i - 1];
        chart.y = i ? { [column]: words[i - 1] } : given.y;
        chart.y_label = i ? words[i - 1] : given.y_label;
        this.draw();
      };
      made.push(choice("show", [Object.values(given.y).join(", "), ...words], act).control);
    }
    made.push(
      check("logarithmic", given.log, (on) => {
        chart.log = on;
        this.draw();
      }),
    );
    if (makePlan(given, table).panels.length > 1)
      made.push(
        check("a scale per panel", false, (on) => {
          this.own = on;
          this.draw();
        }),
      );
    return made;
  }

  draw() {
    this.tip.hidden = true;
    this.width = Math.round(this.canvas.clientWidth) || 640;
    this.plan = makePlan(this.chart, this.table, this.line);
    const notes = this.plan.pinned.map(([column, value]) => {
      const words = `${this.heading(column)} = ${show(value)}`; // said by its control on screen
      return element("span", { class: this.chosen.has(column) ? "paper" : null }, words);
    });
    if (this.plan.clipped) {
      const floor = powerOfTen(this.plan.floor);
      notes.push(element("span", {}, `values below ${floor} are drawn at ${floor}`));
    }
    this.note.replaceChildren(...notes);
    if (!this.plan.panels.length) {
      this.panels = [];
      this.legend.replaceChildren();
      this.canvas.replaceChildren(element("p", { class: "note" }, "No finite values to draw"));
      return;
    }
    const { svg, panels } = drawPlan(this.chart, this.plan, this.width, this.own);
    this.panels = panels;
    this.cursors = node("g", { class: "cursors", "aria-hidden": "true" });
    this.stops = panels.map(({ box, label }, index) => {
      const others = panels.length > 1 ? ", page keys change the panel" : "";
      const words = `${label ? `${label}: ` : ""}arrow keys read the values${others}`;
      const stop = node("rect", {
        class: "stop",
        tabindex: index ? -1 : 0,
        role: "application",
        "aria-label": words,
        "data-panel": index,
        ...{ x: box.x, y: box.y, width: box.w, height: box.h },
      });
      svg.append(stop);
      return stop;
    });
    svg.append(this.cursors);
    this.canvas.replaceChildren(svg);
    this.legend.replaceChildren(...this.legendEntries());
  }

  legendEntries() {
    const { chart, plan } = this;
    const shown = plan.panels.flatMap((p) => p.series);
    const swatch = (look) => {
      const key = node("svg", { viewBox: "0 0 26 10", class: "swatch", "aria-hidden": "true" });
      if (chart.mark === "bars")
        key.append(
          node("rect", { x: 6, y: 0, width: 14, height: 10, fill: look.colour, "fill-opacity": OPACITY[look.kind] }),
        );
      else {
        if (chart.mark === "line")
          key.append(
            node("path", { d: "M1 5H25", class: "line", stroke: look.colour, "stroke-dasharray": DASHES[look.kind] }),
          );
        key.append(marker(look, 13, 5));
      }
      return key;
    };
    const entry = (look, words) => element("span", {}, swatch(look), words);
    const made = [];
    for (const [y, words] of Object.entries(chart.y)) {
      const mine = shown.filter((s) => s.y === y);
      if (!mine.length || (Object.keys(chart.y).length < 2 && plan.lines.length)) continue;
      const look = lookOf(chart, plan, y, mine[0].line);
      const grey = mine[0].line !== null && plan.lines.length > 1;
      made.push(entry(grey ? { ...look, colour: "var(--soft)", shape: look.kind } : look, words));
    }
    const first = Object.keys(chart.y)[0];
    if (plan.lines.length > DATA.names && this.line === null) {
      const bars = plan.lines.map((line) =>
        element("i", { style: `background:${lookOf(chart, plan, first, line).colour}` }),
      );
      const [from, to] = [plan.lines[0], plan.lines.at(-1)].map(show);
      made.push(
        element("span", {}, `${this.heading(chart.lines)} ${from} `, element("span", { class: "strip" }, ...bars), ` ${to}`),
      );
    } else if (plan.lines.length > 1)
      for (const line of plan.lines) {
        if (this.line !== null && !same(line, this.line)) continue;
        const words = isNumber(line) ? `${this.heading(chart.lines)} = ${show(line)}` : show(line);
        made.push(entry(lookOf(chart, plan, first, line), words));
      }
    return made.length > 1 || plan.lines.length > 1 ? made : [];
  }

  /** Reads panel `index` out at place `x`, the line nearest to `height` (pixels) in front. */
  read(index, x, height) {
    const { chart, plan } = this;
    const found = this.panels.map(({ panel, px, py }) =>
      panel.series.flatMap((series) => {
        const point = series.points.find((p) => p.x === x);
        return point && isNumber(point.y) ? [{ series, point, at: [px(x), py(point.y)] }] : [];
      }),
    );
    const here = found[index];
    if (!here.length) return;
    const near = here.reduce((a, b) => (Math.abs(b.at[1] - height) < Math.abs(a.at[1] - height) ? b : a));
    const line = near.series.line ?? here.find((h) => h.series.line !== null)?.series.line ?? null;
    const crowd = plan.lines.length > 6 && this.line === null;
    const chosen = (h) => !crowd || h.series.line === null || same(h.series.line, line);

    this.cursors.replaceChildren();
    this.panels.forEach(({ box, px }, i) => {
      const at = px(x);
      this.cursors.append(node("line", { x1: at, x2: at, y1: box.y, y2: box.y + box.h }));
      for (const h of found[i].filter(chosen)) {
        const { colour } = lookOf(chart, plan, h.series.y, h.series.line);
        if (crowd && h.series.line !== null) {
          const points = h.series.points.map((p) => [px(p.x), isNumber(p.y) ? this.panels[i].py(p.y) : NaN]);
          this.cursors.append(node("path", { d: pathOf(points), class: "line front", stroke: colour }));
        }
        this.cursors.append(node("circle", { cx: h.at[0], cy: h.at[1], r: 4, stroke: colour }));
      }
    });
    const where = plan.names ? plan.names[x] : `${this.heading(chart.x)} = ${show(x)}`;
    const items = here.filter(chosen).map((h) => {
      const name = [];
      if (h.series.line !== null)
        name.push(isNumber(h.series.line) ? `${this.heading(chart.lines)} ${show(h.series.line)}` : show(h.series.line));
      if (Object.keys(chart.y).length > 1 || !name.length) name.push(chart.y[h.series.y]);
      const spread = h.point.spread === null ? "" : ` ± ${show(h.point.spread)}`;
      return [lookOf(chart, plan, h.series.y, h.series.line).colour, name.join(", "), show(h.point.y) + spread];
    });
    const label = this.panels[index].label;
    this.tip.replaceChildren(
      element("b", {}, [label, where].filter(Boolean).join(" · ")),
      ...items.map(([colour, name, value]) =>
        element("div", {}, element("i", { style: `background:${colour}` }), element("span", {}, name), element("b", {}, value)),
      ),
    );
    this.tip.hidden = false;
    const scale = this.canvas.clientWidth / this.width;
    const left = this.canvas.offsetLeft + this.panels[index].px(x) * scale;
    const room = this.plot.clientWidth - this.tip.offsetWidth;
    const beside = left + 14 > room ? left - 14 - this.tip.offsetWidth : left + 14;
    this.tip.style.left = `${Math.max(0, Math.min(room, beside))}px`;
    this.tip.style.top = `${this.canvas.offsetTop + (this.panels[index].box.y + 6) * scale}px`;
    this.reading = { index, x, height: near.at[1] };
    return [label, where, ...items.map(([, name, value]) => `${name} ${value}`)].filter(Boolean).join("; ");
  }

  quiet() {
    this.tip.hidden = true;
    this.cursors?.replaceChildren();
  }

  places(index) {
    const all = this.panels[index].panel.series.flatMap((s) => s.points.filter((p) => isNumber(p.y)).map((p) => p.x));
    return distinct(all).sort((a, b) => a - b);
  }

  listen() {
    const point = (event) => {
      const stop = event.target.closest?.(".stop");
      if (!stop) return this.quiet();
      const frame = this.canvas.getBoundingClientRect();
      const scale = this.width / frame.width;
      const [px, py] = [(event.clientX - frame.left) * scale, (event.clientY - frame.top) * scale];
      const index = Number(stop.dataset.panel);
      const at = this.panels[index].px;
      const nearest = this.places(index).reduce((a, b) => (Math.abs(at(b) - px) < Math.abs(at(a) - px) ? b : a));
      this.read(index, nearest, py);
    };
    this.canvas.addEventListener("pointermove", point);
    this.canvas.addEventListener("pointerdown", point);
    this.canvas.addEventListener("pointerleave", () => this.quiet());
    this.canvas.addEventListener("focusout", () => this.quiet());
    this.canvas.addEventListener("focusin", (event) => {
      if (!event.target.matches(":focus-visible")) return;
      const index = Number(event.target.dataset.panel);
      const places = this.places(index);
      this.spoken.textContent = this.read(index, places[Math.floor(places.length / 2)], 0) ?? "";
    });
    this.canvas.addEventListener("keydown", (event) => {
      if (!event.target.matches(".stop")) return;
      if (event.key === "Escape") return this.quiet();
      const index = Number(event.target.dataset.panel);
      if (event.key === "PageDown" || event.key === "PageUp") {
        const next = this.stops[index + (event.key === "PageDown" ? 1 : -1)];
        if (!next) return;
        event.preventDefault();
        this.stops.forEach((stop) => stop.setAttribute("tabindex", stop === next ? 0 : -1));
        next.focus();
        return;
      }
      const places = this.places(index);
      const start = this.reading?.index === index ? places.indexOf(this.reading.x) : -1;
      const moves = { ArrowRight: start + 1, ArrowLeft: start - 1, Home: 0, End: places.length - 1 };
      let height = this.reading?.height ?? 0;
      let next = moves[event.key] ?? start;
      if (event.key === "ArrowUp" || event.key === "ArrowDown") height = this.neighbour(index, event.key, height);
      else if (!(event.key in moves)) return;
      event.preventDefault();
      next = Math.max(0, Math.min(places.length - 1, next));
      this.spoken.textContent = this.read(index, places[next], height) ?? "";
    });
  }

  /** Height of the next line above or below at the place that is being read. */
  neighbour(index, key, height) {
    const { panel, py } = this.panels[index];
    const points = panel.series.map((s) => s.points.find((p) => p.x === this.reading?.x));
    const heights = points.filter((p) => p && isNumber(p.y)).map((p) => py(p.y));
    const beyond = heights.filter((h) => (key === "ArrowUp" ? h < height - 0.01 : h > height + 0.01));
    if (!beyond.length) return height;
    return key === "ArrowUp" ? Math.max(...beyond) : Math.min(...beyond);
  }
}

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
          return element(c ? "td" : "th", c ? { class: isNumber(value) ? "number" : null } : { scope: "row" }, show(value));
        }),
      ),
    );
    body.replaceChildren(...shown);
    const beyond = rows.length > shown.length ? `the first ${shown.length} of ` : "";
    const chosen = rows.length < table.count ? ` chosen of ${table.count}` : "";
    caption.textContent = `${table.title}: ${beyond}${rows.length} rows${chosen}; all are in ${table.name}.csv`;
  };
  const made = table.keys.flatMap((column) => {
    const values = valuesOf(table, column);
    if (values.length < 2 || !(column in table.headings)) return [];
    const act = (i) => {
      if (i) kept[column] = values[i - 1];
      else delete kept[column];
      draw();
    };
    return [choice(table.headings[column], ["all", ...values.map(show)], act).control];
  });
  if (made.length)
    details.querySelector("summary").after(
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
