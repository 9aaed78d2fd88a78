// Reads values out of a figure: under the pointer, at a touch, or by the arrow keys.

class Reader {
  constructor(figure) {
    this.figure = figure;
    this.tip = element("div", { class: "tip", hidden: true });
    this.spoken = element("p", { class: "hidden", "aria-live": "polite" });
    this.marks = node("g", { class: "cursors", "aria-hidden": "true" });
    const { canvas } = figure;
    canvas.addEventListener("pointermove", (event) => this.point(event));
    canvas.addEventListener("pointerdown", (event) => this.point(event));
    canvas.addEventListener("pointerleave", () => this.quiet());
    canvas.addEventListener("focusout", () => this.quiet());
    canvas.addEventListener("focusin", (event) => this.enter(event.target));
    canvas.addEventListener("keydown", (event) => {
      if (event.target.matches(".stop") && this.press(event)) event.preventDefault();
    });
  }

  /** Puts a stop for pointer and keyboard over each panel of a newly drawn figure. */
  attach(svg) {
    const { panels } = this.figure;
    const others = panels.length > 1 ? ", page keys change the panel" : "";
    this.last = null;
    this.stops = panels.map(({ box, label }, index) =>
      node("rect", {
        class: "stop",
        tabindex: index ? -1 : 0,
        role: "application",
        "aria-label": `${label ? `${label}: ` : ""}arrow keys read the values${others}`,
        "data-panel": index,
        ...{ x: box.x, y: box.y, width: box.w, height: box.h },
      }),
    );
    this.quiet();
    svg.append(...this.stops, this.marks);
  }

  quiet() {
    this.tip.hidden = true;
    this.marks.replaceChildren();
  }

  /** The places along x at which panel `index` has values. */
  places(index) {
    const points = this.figure.panels[index].panel.series.flatMap((series) => series.points);
    return distinct(points.filter((p) => isNumber(p.y)).map((p) => p.x)).sort((a, b) => a - b);
  }

  point(event) {
    const stop = event.target.closest?.(".stop");
    if (!stop) return this.quiet();
    const { canvas, width, panels } = this.figure;
    const frame = canvas.getBoundingClientRect();
    const scale = width / frame.width;
    const index = Number(stop.dataset.panel);
    const off = (x) => Math.abs(panels[index].px(x) - (event.clientX - frame.left) * scale);
    const nearest = this.places(index).reduce((a, b) => (off(b) < off(a) ? b : a));
    return this.read(index, nearest, (event.clientY - frame.top) * scale);
  }

  enter(stop) {
    if (!stop.matches(".stop:focus-visible")) return;
    const index = Number(stop.dataset.panel);
    const places = this.places(index);
    this.spoken.textContent = this.read(index, places[Math.floor(places.length / 2)], 0);
  }

  /** Acts on a key; returns whether it was one of ours. */
  press({ key, target }) {
    const index = Number(target.dataset.panel);
    if (key === "Escape") this.quiet();
    if (key === "PageDown" || key === "PageUp") {
      const next = this.stops[index + (key === "PageDown" ? 1 : -1)];
      if (!next) return false;
      for (const stop of this.stops) stop.setAttribute("tabindex", stop === next ? 0 : -1);
      next.focus();
      return true;
    }
    const places = this.places(index);
    const now = this.last?.index === index ? places.indexOf(this.last.x) : -1;
    const end = places.length - 1;
    const moves = { ArrowRight: now + 1, ArrowLeft: now - 1, Home: 0, End: end };
    const turns = { ArrowUp: -1, ArrowDown: 1 };
    if (!(key in moves) && !(key in turns)) return false;
    const x = places[Math.max(0, Math.min(end, moves[key] ?? now))];
    const height = this.last?.height ?? 0;
    const line = key in turns ? this.neighbour(index, x, turns[key], height) : height;
    this.spoken.textContent = this.read(index, x, line);
    return true;
  }

  /** Height of the next line above (-1) or below (1) `height` at place `x`. */
  neighbour(index, x, turn, height) {
    const heights = this.valuesAt(index, x).map((found) => found.at[1]);
    const beyond = heights.filter((h) => turn * (h - height) > 0.01);
    return beyond.length ? turn * Math.min(...beyond.map((h) => turn * h)) : height;
  }

  valuesAt(index, x) {
    const { panel, px, py } = this.figure.panels[index];
    return panel.series.flatMap((series) => {
      const point = series.points.find((p) => p.x === x);
      return point && isNumber(point.y) ? [{ series, point, at: [px(x), py(point.y)] }] : [];
    });
  }

  /** Shows the values of panel `index` at place `x`, the line nearest to `height` in front. */
  read(index, x, height) {
    const { plan, panels, line } = this.figure;
    const here = this.valuesAt(index, x);
    if (!here.length) return "";
    const off = (found) => Math.abs(found.at[1] - height);
    const near = here.reduce((a, b) => (off(b) < off(a) ? b : a));
    const front = near.series.line ?? here.find((h) => h.series.line !== null)?.series.line ?? null;
    const crowd = plan.lines.length > 6 && line === null; // then only the line in front is told
    const chosen = (h) => !crowd || h.series.line === null || same(h.series.line, front);
    this.last = { index, x, height: near.at[1] };

    this.marks.replaceChildren();
    panels.forEach((_, i) => this.mark(i, x, this.valuesAt(i, x).filter(chosen), crowd));
    return this.tell(index, x, here.filter(chosen));
  }

  mark(index, x, values, crowd) {
    const { chart, plan, panels } = this.figure;
    const { box, px, py } = panels[index];
    const at = px(x);
    this.marks.append(node("line", { x1: at, x2: at, y1: box.y, y2: box.y + box.h }));
    for (const {
      series,
      at: [cx, cy],
    } of values) {
      const stroke = lookOf(chart, plan, series.y, series.line).colour;
      if (crowd && series.line !== null) {
        const points = series.points.map((p) => [px(p.x), isNumber(p.y) ? py(p.y) : NaN]);
        this.marks.append(node("path", { d: pathOf(points), class: "line front", stroke }));
      }
      this.marks.append(node("circle", { cx, cy, r: 4, stroke }));
    }
  }

  /** Fills and places the box of values; returns it in words. */
  tell(index, x, values) {
    const { chart, plan, panels } = this.figure;
    const { label } = panels[index];
    const place = plan.names ? plan.names[x] : `${this.figure.heading(chart.x)} = ${show(x)}`;
    const several = Object.keys(chart.y).length > 1;
    const items = values.map(({ series, point }) => {
      const line = series.line === null ? [] : [this.figure.wordsOf(series.line)];
      const name = several || !line.length ? [...line, chart.y[series.y]] : line;
      const spread = point.spread === null ? "" : ` ± ${show(point.spread)}`;
      const { colour } = lookOf(chart, plan, series.y, series.line);
      return { colour, name: name.join(", "), value: show(point.y) + spread };
    });
    this.tip.replaceChildren(
      element("b", {}, [label, place].filter(Boolean).join(" · ")),
      ...items.map(({ colour, name, value }) =>
        element(
          "div",
          {},
          element("i", { style: `background:${colour}` }),
          element("span", {}, name),
          element("b", {}, value),
        ),
      ),
    );
    this.place(panels[index], x);
    const words = items.map(({ name, value }) => `${name} ${value}`);
    return [label, place, ...words].filter(Boolean).join("; ");
  }

  /** Beside the mark, on the side with room. */
  place({ px, box }, x) {
    const { canvas, plot, width } = this.figure;
    this.tip.hidden = false;
    const scale = canvas.clientWidth / width;
    const at = canvas.offsetLeft + px(x) * scale;
    const room = plot.clientWidth - this.tip.offsetWidth;
    const left = at + 14 > room ? at - 14 - this.tip.offsetWidth : at + 14;
    this.tip.style.left = `${Math.max(0, Math.min(room, left))}px`;
    this.tip.style.top = `${canvas.offsetTop + (box.y + 6) * scale}px`;
  }
}
