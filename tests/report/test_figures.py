"""Charts as specs, and what Vega draws from them: values are read back from the marks' labels."""

import collections
import dataclasses
import html
import itertools
import json
import math
import re
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llfc_jax.errors import ReportError
from llfc_jax.report import figures, history, style, vega
from llfc_jax.report.charts import Chart
from llfc_jax.report.points import read

from . import made
from . import test_page as made_page

vl_convert = pytest.importorskip("vl_convert", reason="vl-convert draws the figures")
ERROR, LAYERS, ALL, ALONG, BARS = (*made.LMC.charts[:1], *made.LLFC.charts)


def svg(chart, rows, theme=style.SCREEN):
    return vl_convert.vegalite_to_svg(vega.build_spec(chart, rows, theme))


def labels(text, kind="point"):
    """What Vega says of every mark of a kind, as dictionaries."""
    found = re.findall(
        rf'aria-label="([^"]*)" role="graphics-symbol" aria-roledescription="{kind}"', text
    )
    return [dict(part.split(": ", 1) for part in html.unescape(f).split("; ")) for f in found]


def words(text):
    return [html.unescape(t) for t in re.findall(r">([^<>]+)</t(?:ext|span)>", text)]


def make(rows, **changes):
    """The chart of columns x and y alone."""
    kind = {
        "name": "c",
        "title": "t",
        "caption": "",
        "x": "x",
        "y": {"y": "y"},
        "x_label": "x",
        "y_label": "y",
    }
    return Chart(**(kind | {"panels": ()} | changes)), rows


def test_points_hold_the_values_of_the_rows():
    rows = made.lmc_rows(aligns=("none",))
    points = labels(svg(ERROR, rows))
    assert len(points) == len(rows)
    for split in ("train", "test"):
        mine = [
            float(p["error"]) for p in points if p["split"] == split and p["pair"] == "independent"
        ]
        wanted = [r["error"] for r in rows if r["split"] == split and r["pair"] == "independent"]
        assert mine == pytest.approx(wanted, rel=1e-3)


def test_panels_have_names_and_the_line_above_says_what_is_pinned():
    said = words(svg(LAYERS, made.llfc_rows()))
    for pair, align in itertools.product(made.PAIRS, made.ALIGNS):
        assert f"{pair} · {'not aligned' if align == 'none' else f'aligned by {align}'}" in said
    assert LAYERS.title in said
    assert "α = 0.5" in said
    said = words(svg(LAYERS, made.llfc_rows(aligns=("weight",))))
    assert "aligned by weight  ·  α = 0.5" in said
    assert {*made.PAIRS} <= {*said}


def test_pairs_run_across_and_alignments_down_unless_there_are_more_of_those():
    content = read(ERROR, made.lmc_rows())
    assert content.across == 3
    assert content.labels == [
        f"{p} · {how}" for how in ("not aligned", "aligned by weight") for p in made.PAIRS
    ]
    two = [r for r in made.lmc_rows(aligns=tuple("abcdef")) if r["pair"] != "spawn_k5"]
    content = read(ERROR, two)
    assert content.across == 3
    assert content.labels[:6] == [f"spawn_k1 · aligned by {a}" for a in "abcdef"]


def test_names_along_x_stand_in_order_of_appearance():
    rows = [{"x": name, "y": i} for i, name in enumerate(["zeta", "alpha", "10", "9"])]
    said = words(svg(*make(rows)))
    assert [w for w in said if w in ("zeta", "alpha", "10", "9")] == ["zeta", "alpha", "10", "9"]


def test_where_compares_numbers_to_rounding_and_can_be_turned():
    rows = [row | {"alpha": row["alpha"] + 3e-8} for row in made.llfc_rows(aligns=("none",))]
    assert len(labels(svg(LAYERS, rows))) == 2 * 3 * len(made.MLP)
    spec = vega.build_spec(LAYERS, rows, style.SCREEN)
    (by_alpha,) = (p for p in spec["params"] if p["name"] == "by_alpha")
    assert by_alpha["bind"]["options"] == pytest.approx(made.ALPHAS, abs=1e-6)
    by_alpha["value"] = 0.9
    text = vl_convert.vegalite_to_svg(spec)
    assert "not aligned  ·  α = 0.9" in words(text)
    row = next(r for r in rows if abs(r["alpha"] - 0.9) < 1e-6 and r["pair"] == "independent")
    point = next(
        p
        for p in labels(text)
        if p["pair"] == "independent" and p["layer, in depth order"] == "Dense_0"
    )
    assert point["shown"] == "1 - cosine_alpha"
    assert float(point["1 - cosine"]) == pytest.approx(row["distance"], rel=1e-3)


def test_the_menu_of_a_pair_leaves_only_its_panels():
    spec = vega.build_spec(ERROR, made.lmc_rows(), style.SCREEN)
    (by_pair,) = (p for p in spec["params"] if p["name"] == "by_pair")
    by_pair["value"] = "spawn_k5"
    points = labels(vl_convert.vegalite_to_svg(spec))
    assert {p["pair"] for p in points} == {"spawn_k5"}
    assert len(points) == 2 * 2 * len(made.ALPHAS)


@pytest.mark.parametrize("hole", [math.nan, math.inf, -math.inf, None, "nothing"])
def test_what_is_no_finite_number_is_a_gap(hole):
    rows = [{"x": i, "y": float(i)} for i in range(7)]
    rows[3]["y"] = hole
    text = svg(*make(rows))
    assert [p["x"] for p in labels(text)] == ["0", "1", "2", "4", "5", "6"]
    (line,) = re.findall(r'aria-roledescription="line mark"[^>]* d="([^"]*)"', text) or re.findall(
        r'd="([^"]*)"[^>]*aria-roledescription="line mark"', text
    )
    assert line.count("M") == 2  # in two parts


def test_floor_of_a_logarithmic_axis():
    rows = [{"x": i, "y": y} for i, y in enumerate([0.0, -1.0, 1e-12, 3e-4, 0.2])]
    chart, _ = make(rows, log=True)
    content = read(chart, rows)
    assert content.floor == pytest.approx(1e-8)  # eight decades below 1
    assert content.clipped
    text = svg(chart, rows)
    assert "values below 1e-8 are drawn at 1e-8" in words(text)
    heights = [
        float(y)
        for y in re.findall(
            r'transform="translate\([\d.]+,([\d.]+)\)" d="[^"]*" fill="#1a62ab"', text
        )
    ]
    assert len(heights) == 5
    assert heights[0] == heights[1] == heights[2] > heights[3] > heights[4]
    assert [float(p["y"]) for p in labels(text)] == pytest.approx([1e-8] * 3 + [3e-4, 0.2])
    assert not read(chart, rows[3:]).clipped
    assert read(chart, rows[:2]).clipped
    singles = [{"x": 1, "y": 200.0, "one": one} for one in (60.0, 340.0)]
    chart, _ = make(singles, log=True, dots={"y": "one"})
    assert read(chart, singles).floor == 10  # below every dot


def test_ticks_of_a_logarithmic_axis():
    def ticks(*values):
        chart, rows = make([{"x": i, "y": y} for i, y in enumerate(values)], log=True, x_label="")
        drawn = svg(chart, rows)
        axis = drawn[drawn.index("Y-axis") :]
        return [w for w in words(axis[: axis.index("role-axis-title")]) if w]

    assert ticks(1e-6, 1.0) == ["10⁻⁶", "10⁻⁵", "10⁻⁴", "10⁻³", "0.01", "0.1", "1"]
    assert ticks(0.03, 4.0) == ["0.05", "0.1", "0.2", "0.5", "1", "2"]
    assert len(ticks(2.1, 2.3)) > 2


def test_history_has_a_panel_per_pair_and_a_line_per_network():
    rows = [
        {"pair": pair, "run": run, "epoch": e, "loss": ord(run) / e, "accuracy": e / ord(run)}
        for pair, run, e in itertools.product("pq", "ab", (1, 2, 3))
    ]
    for chart in history.SECTION.charts:
        points = labels(svg(chart, rows))
        assert collections.Counter((p["pair"], p["run"]) for p in points) == dict.fromkeys(
            itertools.product("pq", "ab"), 3
        )


def test_nothing_to_draw_is_said():
    for rows in ([], [r | {"distance": math.nan, "baseline": None} for r in made.llfc_rows()]):
        assert "no finite values to draw" in words(svg(LAYERS, rows))
    pinned = dataclasses.replace(LAYERS, where={"alpha": 7.0})
    assert "no finite values to draw" in words(svg(pinned, made.llfc_rows()))


def test_bands_bars_dots_and_maps():
    rows = made.llfc_rows(aligns=("none",))
    assert svg(LAYERS, rows).count('aria-roledescription="area mark"') == 6
    assert len(labels(svg(BARS, rows), "bar")) == 3 * len(made.MLP)
    heat = dataclasses.replace(ALONG, mark="heat", log=True)
    cells = labels(svg(heat, rows), "rect mark")
    assert len(cells) == len(rows)
    assert {c["layer"] for c in cells} == {*made.MLP}
    seeds = [{"x": x, "mean": x, "half": 1.0, "one": x + s} for x in (1, 2) for s in (-0.5, 0.5)]
    chart, _ = make(
        seeds, y={"mean": "m"}, band={"mean": "half"}, spread="bars", dots={"mean": "one"}
    )
    text = svg(chart, seeds)
    assert len(labels(text, "rule mark")) == 4
    assert {p["y"] for p in labels(text) if "m" not in p} == {"0.5", "1.5", "2.5"}


def test_lines_differ_without_colour():
    spec = vega.build_spec(LAYERS, made.llfc_rows(), style.PAPER)
    line, points = (layer["encoding"] for layer in spec["spec"]["layer"][-2:])
    dashes, shapes = line["strokeDash"]["scale"]["range"], points["shape"]["scale"]["range"]
    assert len({map(str, dashes)}) == len({*shapes}) - 1 == 1 or len({*map(str, dashes)}) == 2
    assert len({*shapes}) == 2
    few = [{"x": x, "y": x * n, "n": str(n)} for x in range(40) for n in range(4)]
    chart, _ = make(few, lines="n")
    line, points = (
        layer["encoding"] for layer in vega.build_spec(chart, few, style.PAPER)["layer"]
    )
    assert "shape" not in points  # too many points for markers
    assert len({*map(str, line["strokeDash"]["scale"]["range"])}) == 4


def test_hostile_columns_and_names():
    nasty = "a.b[0]'\"\\ </script> `$`\ud800\x00"
    rows = [
        {nasty: x, f"y{nasty}": x + i, "l" + nasty: f"{nasty}{i}"} for x in (1, 2) for i in (0, 1)
    ]
    chart, _ = make(
        rows, x=nasty, y={f"y{nasty}": nasty}, lines="l" + nasty, title=nasty, x_label=nasty
    )
    text = svg(chart, rows)
    assert text.count('aria-roledescription="point"') == 4
    assert "<script" not in text


@settings(max_examples=8, deadline=None)
@given(st.lists(st.tuples(st.floats(), st.floats()), max_size=6), st.booleans(), st.booleans())
def test_any_numbers_draw(points, log, log_x):
    rows = [{"x": abs(x) or 1.0 if log_x else x, "y": y} for x, y in points]
    chart, _ = make(rows, log=log, log_x=log_x)
    assert svg(chart, rows).startswith("<svg")


def test_files_of_every_kind(tmp_path):
    figure = figures.draw(ERROR, made.lmc_rows(aligns=("none",)))
    for kind, start in (("svg", b"<svg"), ("png", b"\x89PNG"), ("pdf", b"%PDF"), ("json", b"{")):
        path = figures.save(figure, tmp_path / "new" / f"error.{kind}")
        assert path.read_bytes().startswith(start)
    with pytest.raises(ReportError, match=r"written as \.svg, \.png, \.pdf or \.json, not \.gif"):
        figures.save(figure, tmp_path / "error.gif")


def test_a_papers_figures_have_its_width(tmp_path):
    section = dataclasses.replace(made.LMC, charts=made.LMC.charts[:1])
    rows = made.lmc_rows()
    for theme in (style.PAPER, style.PAPER_WIDE):
        (path,) = figures.save_all(section, rows, tmp_path, ("pdf",), theme)
        box = re.search(rb"MediaBox \[0 0 ([\d.]+)", path.read_bytes())
        assert box is not None
        assert float(box[1]) == pytest.approx(theme.width, abs=1.5)
    assert figures.caption(LAYERS, made.llfc_rows()).endswith("dashed baseline. (α = 0.5)")


def test_the_same_rows_give_the_same_bytes(tmp_path):
    section = dataclasses.replace(made.LLFC, charts=made.LLFC.charts[:1])
    first, second = (
        figures.save_all(section, made.llfc_rows(), tmp_path / name)[0].read_bytes()
        for name in "ab"
    )
    assert first == second


def test_without_vl_convert_the_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ReportError, match=r"pip install 'llfc-jax\[figures\]'"):
        figures.save({}, tmp_path / "x.svg")


def test_altair_takes_every_spec():
    altair = pytest.importorskip("altair")
    alphas = (0.0, 0.5, 1.0)
    for section, rows in (
        (made.LMC, made.lmc_rows(alphas)),
        (made.LLFC, made.llfc_rows(made.MLP[:2], alphas)),
    ):
        for chart in section.charts[:2]:
            figure = figures.draw(chart, rows)
            assert isinstance(figure, altair.FacetChart)
            spec = figure.to_dict()  # validates against the schema
            assert json.dumps(spec["transform"]) == json.dumps(
                vega.build_spec(chart, rows, style.SCREEN)["transform"]
            )
    single = figures.draw(
        LAYERS, [r for r in made.llfc_rows(aligns=("none",)) if r["pair"] == "spawn_k1"]
    )
    assert isinstance(single, altair.LayerChart)
    assert "vega-embed" in single._repr_mimebundle_(None, None)["text/html"]  # pyright: ignore


def test_a_loss_is_shown_where_there_is_no_error_and_alignments_where_there_are_several(tmp_path):
    error = dataclasses.replace(ERROR, name="error")
    loss = dataclasses.replace(made.LMC.charts[1], name="loss", unless="error")
    lines = dataclasses.replace(loss, name="lines", unless="", lines="align", compares=True)
    section = dataclasses.replace(made.LMC, charts=(error, loss, lines))
    judged, one = made.lmc_rows(), made.lmc_rows(aligns=("none",))
    unjudged = [row | {"error": math.nan} for row in one]
    for rows, names in ((judged, {"error", "lines"}), (one, {"error"}), (unjudged, {"loss"})):
        written = figures.save_all(section, rows, tmp_path, ["json"])
        assert {path.stem for path in written} == names
        page = made_page.write(tmp_path / "page.html", sections=[(section, rows)])
        assert {c["name"] for c in made_page.Page(page).data()["charts"]} == names
