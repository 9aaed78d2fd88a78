"""Charts as Altair objects for notebooks, and as SVG, PNG and PDF files."""

import importlib.util
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from llfc_jax.errors import ReportError
from llfc_jax.io import aside
from llfc_jax.report import style
from llfc_jax.report.charts import Chart, Section
from llfc_jax.report.html import sentence
from llfc_jax.report.marks import wrap_titles
from llfc_jax.report.numbers import Rows, clean, describe
from llfc_jax.report.points import is_shown, read
from llfc_jax.report.vega import Spec, build_spec, floor_words

if TYPE_CHECKING:
    import altair

Figure: TypeAlias = "altair.LayerChart | altair.FacetChart"


def draw(chart: Chart, rows: Rows, theme: style.Theme = style.SCREEN) -> Figure:
    """Returns `rows` drawn as `chart` says, as an Altair chart; notebooks show it.

    `style.PAPER` is a theme for a column of a paper, `style.PAPER_WIDE` for two. The chart's menus
    choose pair, alignment and what `chart.where` pins; a click on the legend shows one line, the
    pointer reads values, dragging and pinching move and zoom (`vega.build_spec`).
    """
    import altair  # takes a quarter of a second, which pages do without

    points = read(chart, rows)
    spec = build_spec(chart, rows, theme, points, data="points")
    figure = (altair.FacetChart if "facet" in spec else altair.LayerChart).from_dict(spec)
    figure.data = altair.Data(values=points.data)  # not checked point by point
    return figure


def save(figure: "Figure | Spec", path: str | os.PathLike[str]) -> Path:
    """Writes a chart as .svg, .png (300 dots per inch), .pdf or .json (its Vega-Lite spec).

    One that was drawn with a paper's theme is exactly as wide as this theme says.

    Args:
        figure: what `draw` or `vega.build_spec` returns.
        path: the file; its ending says the kind.

    Raises:
        ReportError: for another ending, or where vl-convert is missing, which draws the files.
    """
    path = Path(path)
    kind = path.suffix.lstrip(".")
    spec = figure if isinstance(figure, dict) else figure.to_dict()
    if width := spec.get("usermeta", {}).get("width"):
        spec = _fit(spec, width)
    content = json.dumps(spec, ensure_ascii=False) if kind == "json" else _convert(spec, kind)
    with aside(path) as place:
        place.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def save_all(
    section: Section,
    rows: Rows,
    directory: str | os.PathLike[str],
    formats: Iterable[str] = ("svg",),
    theme: style.Theme = style.SCREEN,
) -> list[Path]:
    """Writes the charts that a page shows as `directory/NAME.FORMAT`; returns the paths."""
    return [
        save(spec, Path(directory) / f"{chart.name}.{kind}")
        for chart in section.charts
        for points in [read(chart, rows)]
        if is_shown(chart, rows, points)
        for spec in [build_spec(chart, rows, theme, points)]
        for kind in formats
    ]


def caption(chart: Chart, rows: Rows) -> str:
    """Returns the words below a figure in a paper: title, what to see, and what was pinned."""
    points = read(chart, rows)
    pinned = {**points.shared, **chart.where}
    notes = [describe(column, value) for column, value in pinned.items()]
    notes += [floor_words(points)] if chart.log and points.clipped else []
    said = f"{sentence(chart.title)} {chart.caption}"
    return clean(said + (f" ({', '.join(notes)})" if notes else ""))


def _convert(spec: Spec, kind: str) -> str | bytes:
    if kind not in ("svg", "png", "pdf"):
        raise ReportError(f"a figure is written as .svg, .png, .pdf or .json, not .{kind}")
    if importlib.util.find_spec("vl_convert") is None:
        raise ReportError("writing figures needs vl-convert; run: pip install 'llfc-jax[figures]'")
    import vl_convert

    spec = _without_pointer(spec)
    if kind == "png":
        return vl_convert.vegalite_to_png(spec, ppi=300)
    if kind == "pdf":
        return vl_convert.vegalite_to_pdf(spec)
    svg = vl_convert.vegalite_to_svg(spec)
    first = min(map(int, re.findall(r'id="clip(\d+)"', svg)), default=1)  # counts on between files
    return re.sub(r"(?<=[\"#]clip)\d+", lambda m: str(int(m[0]) - first + 1), svg)


def _without_pointer(spec: Spec) -> Spec:
    """Returns the spec without its selections, and without points that only the pointer sees."""
    spec = json.loads(json.dumps(spec))
    spec["params"] = [
        {"name": p["name"], "value": p["name"] != "hover"} if "select" in p else p
        for p in spec.get("params", [])
    ]
    panel: dict[str, Any] = spec.get("spec", spec)
    seen = [x for x in panel["layer"] if x["encoding"].get("opacity", {}).get("value") != 0]
    panel["layer"] = seen
    return spec


def _fit(spec: Spec, width: float) -> Spec:
    """Returns the spec with panels so wide that the whole figure has the given width."""
    spec = json.loads(json.dumps(spec))
    panel: dict[str, Any] = spec.get("spec", spec)
    for _ in range(5):  # once is exact, unless titles wrap, or labels turn or drop out
        measured = re.search(r'width="([\d.]+)"', str(_convert(spec, "svg")))
        excess = (float(measured[1]) if measured else width) - width
        if abs(excess) < 1:
            break
        fitted = max(30.0, panel["width"] - excess / spec.get("columns", 1))
        if spec["usermeta"].get("scaled"):
            panel["height"] *= fitted / panel["width"]
        panel["width"] = fitted
        wrap_titles(panel, spec["config"]["axis"]["titleFontSize"])
    return spec
