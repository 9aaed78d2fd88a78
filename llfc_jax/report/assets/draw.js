// Draws a plan as one SVG that fills its container's width, and reads values out of it.

const DASHES = ["", "5 3", "1.5 2.5", "7 2.5 1.5 2.5", "9 4"];
const OPACITY = [1, 0.45, 0.2, 0.7, 0.1]; // of bars
const CHARACTER = 5.9; // width of a character of the axis labels, pixels
const LONGEST = 24; // characters of a name along x

function node(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** Colour, kind (dash, opacity, filled or not) and shape (of the markers) of a line. */
function lookOf(chart, plan, y, line) {
  const kind = Math.max(0, Object.keys(chart.y).indexOf(y)) % DASHES.length;
  const place = plan.lines.findIndex((value) => same(value, line));
  if (line === null) {
    const colour = plan.lines.length > 1 ? "var(--ink)" : `var(--c${kind % DATA.hues})`;
    return { colour, kind, shape: kind };
  }
  if (!plan.ordered) return { colour: `var(--c${place % DATA.hues})`, kind, shape: place };
  const t = place / Math.max(1, plan.lines.length - 1);
  return { colour: `var(--s${Math.round(t * (DATA.levels - 1))})`, kind, shape: kind };
}

/** Scale of a set of panels: limits, ticks and the map from a value to a share of the height. */
function scaleOf(chart, plan, panels) {
  const values = [];
  for (const { series } of panels)
    for (const { points } of series)
      for (const p of points)
        if (isNumber(p.y)) values.push(p.y - (p.spread ?? 0), p.y + (p.spread ?? 0));
  let low = values.reduce((a, b) => Math.min(a, b), Infinity);
  let high = values.reduce((a, b) => Math.max(a, b), -Infinity);
  if (chart.log) {
    const { floor, bottom } = plan;
    const top = Math.max(Math.log10(Math.max(high, 1e-300)), bottom + 0.3);
    const end = top + 0.06 * (top - bottom);
    const share = (v) => (Math.log10(Math.max(v, 10 ** bottom)) - bottom) / (end - bottom);
    const ticks = [];
    const step = Math.ceil((end - bottom) / 6);
    for (let e = floor; e <= end; e += step)
      if (end - bottom >= 2) ticks.push([10 ** e, powerOfTen(e)]);
      else for (const m of [1, 2, 5]) ticks.push([m * 10 ** e, show(m * 10 ** e)]);
    return { ticks: ticks.filter(([v]) => v >= 10 ** bottom * 0.999 && share(v) <= 1), share };
  }
  if (chart.mark === "bars") [low, high] = [Math.min(low, 0), Math.max(high, 0)];
  const margin = 0.06 * (high - low) || 0.05 * Math.abs(high) || 0.5;
  if (!(chart.mark === "bars" && low === 0)) low -= margin;
  high += margin;
  const ticks = ticksBetween(low, high, 5);
  const decimals = Math.max(...ticks.map((v) => (String(v).split(".")[1] ?? "").length));
  const words = (v) => (String(v).includes("e") ? show(v) : v.toFixed(decimals));
  return { ticks: ticks.map((v) => [v, words(v)]), share: (v) => (v - low) / (high - low) };
}

function pathOf(points) {
  let pen = "M";
  return points
    .map(([x, y]) => {
      if (!isNumber(y)) return (pen = "M") && "";
      const step = `${pen}${x.toFixed(1)} ${y.toFixed(1)}`;
      pen = "L";
      return step;
    })
    .join("");
}

const SHAPES = [
  "", // a circle
  "-2.5,-2.5 2.5,-2.5 2.5,2.5 -2.5,2.5",
  "0,-3.2 3,2.2 -3,2.2",
  "0,-3.4 3.4,0 0,3.4 -3.4,0",
  "0,3.2 3,-2.2 -3,-2.2",
];

function marker({ colour, kind, shape }, x, y) {
  const paint = { fill: kind === 0 ? colour : "var(--page)", stroke: colour };
  const points = SHAPES[shape % SHAPES.length];
  if (!points) return node("circle", { cx: x.toFixed(1), cy: y.toFixed(1), r: 2.6, ...paint });
  const transform = `translate(${x.toFixed(1)} ${y.toFixed(1)})`;
  return node("polygon", { points, transform, ...paint });
}

/** Draws `plan` as an SVG element `width` pixels wide; returns it with its panels' geometry. */
function drawPlan(chart, plan, width, own) {
  const names = plan.names;
  const wanted = names ? Math.max(150, Math.min(320, 10 * names.length + 20)) : 140;
  const fit = Math.max(1, Math.min(4, Math.floor((width - 44) / wanted)));
  const places = placesOf(plan, fit);
  const columns = 1 + Math.max(...places.map((p) => p[1]));
  const count = 1 + Math.max(...places.map((p) => p[0]));
  const shared = scaleOf(chart, plan, plan.panels);
  const scales = plan.panels.map((panel) => (own ? scaleOf(chart, plan, [panel]) : shared));

  const tickWidth =
    10 + CHARACTER * Math.max(...scales.flatMap((s) => s.ticks.map((t) => t[1].length)));
  const left = Math.max(26, tickWidth);
  const gap = own ? left + 8 : 16;
  const cell = (width - left - 8 - gap * (columns - 1)) / columns;
  const height = Math.round(Math.min(columns === 1 ? 280 : 210, Math.max(130, cell * 0.68)));
  const short = (name) => (name.length > LONGEST ? `…${name.slice(1 - LONGEST)}` : name);
  const longest = Math.max(0, ...(names ?? []).map((name) => short(name).length));
  const upright = names && longest * CHARACTER + 6 > cell / names.length;
  const under = names ? (upright ? longest * CHARACTER + 10 : 18) : 18;
  const head = plan.vary ? 32 : 14;
  const top = 12;
  const total = top + count * (height + head) + under + 20;

  const svg = node("svg", {
    viewBox: `0 0 ${width} ${total}`,
    role: "group",
    "aria-label": `${chart.title}. ${chart.caption}`,
  });
  const text = (words, x, y, attributes = {}) => {
    svg.append(node("text", { x, y, ...attributes }, words));
  };
  text(`↑ ${chart.y_label}`, 0, 10, { class: "axis" });
  text(chart.x_label, left + (width - left) / 2, total - 4, {
    class: "axis",
    "text-anchor": "middle",
  });

  const points = plan.panels.flatMap((p) => p.series.flatMap((s) => s.points));
  const xs = points.filter((p) => isNumber(p.y)).map((p) => p.x);
  const along = chart.log_x ? Math.log : (x) => x;
  let [low, high] = [Math.min(...xs), Math.max(...xs)].map(along);
  if (names) [low, high] = [-0.6, names.length - 0.4];
  if (low === high) [low, high] = [low - 0.5, high + 0.5];
  const pad = names ? 0 : 8;
  const keys = distinct(plan.panels.flatMap((p) => p.series.map((s) => `${s.y} ${s.line}`)));

  const panels = plan.panels.map((panel, index) => {
    const [row, column] = places[index];
    const box = {
      x: left + column * (cell + gap),
      y: top + head + row * (height + head),
      w: cell,
      h: height,
    };
    const scale = scales[index];
    const px = (x) => box.x + pad + ((along(x) - low) / (high - low)) * (box.w - 2 * pad);
    const py = (v) => box.y + box.h * (1 - Math.min(1, Math.max(-0.02, scale.share(v))));
    const label = panel.key.map(show).join(" · ");
    if (label) text(label, box.x, box.y - 8, { class: "name" });
    for (const [value, words] of scale.ticks) {
      const y = py(value);
      svg.append(node("line", { class: "rule", x1: box.x, x2: box.x + box.w, y1: y, y2: y }));
      if (column === 0 || own)
        text(words, box.x - 5, y + 3.5, { class: "tick", "text-anchor": "end" });
    }
    const bottom = !places.some((p) => p[0] === row + 1 && p[1] === column);
    if (names && bottom) {
      const step = upright ? Math.ceil(11 / (cell / names.length)) : 1;
      for (let i = 0; i < names.length; i += step) {
        const turn = upright
          ? {
              transform: `rotate(-90 ${px(i)} ${box.y + box.h + 6})`,
              "text-anchor": "end",
              dy: 3.5,
            }
          : { "text-anchor": "middle", dy: 10 };
        text(short(names[i]), px(i), box.y + box.h + 6, { class: "tick", ...turn });
      }
    } else if (!names && bottom) {
      const ticks = chart.log_x ? distinct(xs) : ticksBetween(low, high, Math.min(5, cell / 45));
      for (const tick of ticks)
        text(show(tick), px(tick), box.y + box.h + 16, { class: "tick", "text-anchor": "middle" });
    }
    svg.append(
      node("line", {
        class: "base",
        x1: box.x,
        x2: box.x + box.w,
        y1: box.y + box.h,
        y2: box.y + box.h,
      }),
    );
    for (const series of panel.series) {
      const look = lookOf(chart, plan, series.y, series.line);
      const points = series.points.map((p) => [px(p.x), isNumber(p.y) ? py(p.y) : NaN]);
      const group = node("g", {
        class: "series",
        "data-y": series.y,
        "data-line": series.line ?? "",
      });
      const banded = series.points.filter((p) => p.spread !== null && isNumber(p.y));
      // No logarithm reaches zero: a band that does goes down to where the axis begins.
      const under = (p) => (chart.log && p.spread >= p.y ? box.y + box.h : py(p.y - p.spread));
      if (chart.mark === "bars") {
        const bar = (0.8 * (box.w / (high - low))) / keys.length;
        const shift = (keys.indexOf(`${series.y} ${series.line}`) - keys.length / 2) * bar;
        const zero = py(0);
        for (const [x, y] of points)
          if (isNumber(y))
            group.append(
              node("rect", {
                x: x + shift + bar * 0.03,
                width: bar * 0.94,
                y: Math.min(y, zero),
                height: Math.abs(y - zero),
                fill: look.colour,
                "fill-opacity": OPACITY[look.kind],
              }),
            );
        for (const p of banded) {
          const x = px(p.x) + shift + bar / 2;
          group.append(
            node("line", {
              x1: x,
              x2: x,
              y1: under(p),
              y2: py(p.y + p.spread),
              class: "whisker",
            }),
          );
        }
      } else {
        if (banded.length) {
          const upper = banded.map((p) => [px(p.x), py(p.y + p.spread)]);
          const lower = banded.map((p) => [px(p.x), under(p)]).reverse();
          const d = `${pathOf([...upper, ...lower])}Z`;
          group.append(node("path", { d, fill: look.colour, class: "band" }));
        }
        if (chart.mark === "line")
          group.append(
            node("path", {
              d: pathOf(points),
              stroke: look.colour,
              class: "line",
              "stroke-dasharray": DASHES[look.kind],
            }),
          );
        const seen = points.filter((p) => isNumber(p[1]));
        if (
          chart.mark === "dots" ||
          seen.length === 1 ||
          (seen.length <= 25 && plan.lines.length <= DATA.names)
        )
          for (const [x, y] of seen) group.append(marker(look, x, y));
      }
      svg.append(group);
    }
    return { panel, box, px, py, label };
  });
  return { svg, panels };
}
