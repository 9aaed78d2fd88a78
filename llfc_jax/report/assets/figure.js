// One figure of the page: its choices, its drawing, its legend.

class Figure {
  constructor(chart) {
    this.given = chart;
    this.chart = { ...chart, where: { ...chart.where } };
    this.table = DATA.tables[chart.table];
    this.line = null; // the one value of the `lines` column that is shown, or all
    this.own = false; // whether each panel has its own scale
    this.chosen = new Set(); // columns that have a control, which says what is chosen
    this.plot = document.querySelector(`#${chart.id} .plot`);
    this.note = element("p", { class: "note" });
    this.legend = element("div", { class: "legend" });
    this.canvas = element("div", { class: "canvas" });
    this.reader = new Reader(this);
    const controls = element("div", { class: "controls", role: "group", "aria-label": "Choices" });
    if (!this.plot.parentElement.hasAttribute("data-plain"))
      controls.append(
        ...this.whereControls(),
        ...this.lineControls(),
        ...this.metricControls(),
        ...this.scaleControls(),
      );
    const { tip, spoken } = this.reader;
    this.plot.replaceChildren(controls, this.legend, this.note, this.canvas, tip, spoken);
    new ResizeObserver(() => {
      const width = Math.round(this.canvas.clientWidth);
      if (width && width !== this.width) this.draw();
    }).observe(this.canvas);
    this.draw();
  }

  heading(column) {
    return this.table.headings[column] ?? column;
  }

  wordsOf(line) {
    return isNumber(line) ? `${this.heading(this.chart.lines)} = ${show(line)}` : show(line);
  }

  /** What the chart pins and the rows leave open: a slider for numbers, else a list. */
  whereControls() {
    return Object.entries(this.given.where).flatMap(([column, value]) => {
      const values = valuesOf(this.table, column);
      const start = values.findIndex((v) => same(v, value));
      if (values.length < 2 || start < 0) return [];
      this.chosen.add(column);
      const act = (v) => {
        this.chart.where[column] = v;
        this.draw();
      };
      if (values.every(isNumber) && values.length > 3)
        return [slider(this.heading(column), values, start, act)];
      return [choice(this.heading(column), values.map(show), start, (i) => act(values[i]))];
    });
  }

  lineControls() {
    const lines = this.given.lines ? valuesOf(this.table, this.given.lines) : [];
    if (lines.length < 2) return [];
    const act = (i) => {
      this.line = i ? lines[i - 1] : null;
      this.draw();
    };
    return [choice(this.heading(this.given.lines), ["all", ...lines.map(show)], 0, act)];
  }

  /** The chart's own columns, together or alone, and every other column of numbers. */
  metricControls() {
    const { given, table } = this;
    const taken = [given.x, given.lines, ...given.panels];
    taken.push(...Object.keys(given.where), ...Object.values(given.band), ...Object.keys(given.y));
    const numbers = (column) => table.columns[column]?.every((v) => v === null || isNumber(v));
    const own = Object.keys(given.y).length > 1 ? Object.keys(given.y) : [];
    const others = Object.keys(table.headings).filter((c) => !taken.includes(c) && numbers(c));
    const columns = [...own, ...others];
    if (!columns.length) return [];
    const words = columns.map((c) => given.y[c] ?? this.heading(c));
    const act = (i) => {
      this.chart.y = i ? { [columns[i - 1]]: words[i - 1] } : given.y;
      this.chart.y_label = i ? words[i - 1] : given.y_label;
      this.draw();
    };
    return [choice("show", [Object.values(given.y).join(", "), ...words], 0, act)];
  }

  scaleControls() {
    const made = [
      check("logarithmic", this.given.log, (on) => {
        this.chart.log = on;
        this.draw();
      }),
    ];
    if (makePlan(this.given, this.table).panels.length > 1)
      made.push(
        check("a scale per panel", false, (on) => {
          this.own = on;
          this.draw();
        }),
      );
    return made;
  }

  draw() {
    this.width = Math.round(this.canvas.clientWidth) || 640;
    this.plan = makePlan(this.chart, this.table, this.line);
    this.note.replaceChildren(...this.notes());
    if (!this.plan.panels.length) {
      this.reader.quiet();
      this.legend.replaceChildren();
      this.canvas.replaceChildren(element("p", { class: "note" }, "No finite values to draw"));
      return;
    }
    const { svg, panels } = drawPlan(this.chart, this.plan, this.width, this.own);
    this.panels = panels;
    this.reader.attach(svg);
    this.canvas.replaceChildren(svg);
    this.legend.replaceChildren(...this.legendEntries());
  }

  notes() {
    const made = this.plan.pinned.map(([column, value]) => {
      const words = `${this.heading(column)} = ${show(value)}`;
      return element("span", { class: this.chosen.has(column) ? "paper" : null }, words);
    });
    if (this.plan.clipped) {
      const floor = powerOfTen(this.plan.floor);
      made.push(element("span", {}, `values below ${floor} are drawn at ${floor}`));
    }
    return made;
  }

  legendEntries() {
    const { chart, plan } = this;
    const entry = (look, words) => element("span", {}, this.swatch(look), words);
    const columns = Object.keys(chart.y);
    const shown = plan.panels.flatMap((p) => p.series);
    const several = plan.lines.length > 1;
    const made = [];
    for (const y of columns) {
      const first = shown.find((s) => s.y === y);
      if (!first || (columns.length < 2 && first.line !== null)) continue;
      const look = lookOf(chart, plan, y, first.line);
      const grey = first.line !== null && several; // the lines have the colours
      const all = first.line === null && several ? `, for every ${this.heading(chart.lines)}` : "";
      const how = grey ? { ...look, colour: "var(--soft)", shape: look.kind } : look;
      made.push(entry(how, chart.y[y] + all));
    }
    const lines = plan.lines.filter((line) => shown.some((s) => same(s.line, line)));
    if (lines.length > DATA.names) made.push(this.strip(lines));
    else if (several)
      for (const line of lines) {
        made.push(entry(lookOf(chart, plan, columns[0], line), this.wordsOf(line)));
      }
    return made.length > 1 || several ? made : [];
  }

  swatch(look) {
    const key = node("svg", { viewBox: "0 0 26 10", class: "swatch", "aria-hidden": "true" });
    if (this.chart.mark === "bars") {
      const paint = { fill: look.colour, "fill-opacity": OPACITY[look.kind] };
      key.append(node("rect", { x: 6, y: 0, width: 14, height: 10, ...paint }));
      return key;
    }
    const paint = { stroke: look.colour, "stroke-dasharray": DASHES[look.kind] };
    if (this.chart.mark === "line")
      key.append(node("path", { d: "M1 5H25", class: "line", ...paint }));
    key.append(marker(look, 13, 5));
    return key;
  }

  /** A strip of colours in place of a legend too long to read. */
  strip(lines) {
    const y = Object.keys(this.chart.y)[0];
    const colours = lines.map((line) => lookOf(this.chart, this.plan, y, line).colour);
    const bars = colours.map((colour) => element("i", { style: `background:${colour}` }));
    const strip = element("span", { class: "strip" }, ...bars);
    const name = this.heading(this.chart.lines);
    return element("span", {}, `${name} ${show(lines[0])} `, strip, ` ${show(lines.at(-1))}`);
  }
}
