import dataclasses
import itertools
import math
import re
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.colors import to_rgb

from llfc_jax.report import figures, style

from . import made

ERROR, LAYERS, ALL, ALONG, BARS = (*made.LMC.charts[:1], *made.LLFC.charts)


def panels(figure):
    return [ax for ax in figure.axes if ax.axison and ax.get_label() != "<colorbar>"]


def words(figure):
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]


def test_every_panel_and_label_is_there():
    figure = figures.draw(LAYERS, made.llfc_rows())
    titles = [ax.get_title(loc="left") for ax in panels(figure)]
    assert sorted(titles) == sorted(f"{p} · {a}" for p in made.PAIRS for a in made.ALIGNS)
    said = words(figure)
    for wanted in (LAYERS.title, LAYERS.x_label, LAYERS.y_label, "alpha = 0.5", *LAYERS.y.values()):
        assert wanted in said
    assert set(made.MLP) <= set(said)


def test_pairs_run_across_and_alignments_down():
    figure = figures.draw(ERROR, made.lmc_rows())
    places = {ax.get_title(loc="left"): ax.get_position() for ax in panels(figure)}
    assert places["spawn_k1 · none"].x0 == places["spawn_k1 · weight"].x0
    assert places["spawn_k1 · none"].y0 == places["independent · none"].y0
    assert places["spawn_k1 · none"].x0 < places["spawn_k5 · none"].x0


def test_lines_hold_the_values():
    rows = made.lmc_rows()
    ax = panels(figures.draw(ERROR, rows))[0]
    train, test = ax.get_lines()
    mine = [r for r in rows if (r["pair"], r["align"]) == ("spawn_k1", "none")]
    assert list(train.get_ydata()) == [r["error"] for r in mine if r["split"] == "train"]
    assert list(test.get_xdata()) == list(made.ALPHAS)
    assert train.get_color() != test.get_color()


def test_columns_differ_by_dash_and_lines_by_an_ordered_colour():
    ax = panels(figures.draw(LAYERS, made.llfc_rows()))[0]
    assert len({str(line.get_linestyle()) for line in ax.get_lines()}) == 2
    ax = panels(figures.draw(ALONG, made.llfc_rows()))[0]
    lightness = [np.dot(to_rgb(line.get_color()), (0.2, 0.7, 0.1)) for line in ax.get_lines()]
    assert lightness == sorted(lightness)


def test_many_layers_get_a_strip_of_colours_and_thinned_names():
    rows = made.llfc_rows([f"blocks_{i}/Conv_0" for i in range(60)], aligns=("none",))
    figure = figures.draw(ALONG, rows)
    assert any(ax.get_label() == "<colorbar>" for ax in figure.axes)
    figure = figures.draw(dataclasses.replace(LAYERS, where={"alpha": 0.5}), rows)
    shown = panels(figure)[-1].get_xticklabels()
    assert 20 <= len(shown) < 60
    boxes = [label.get_window_extent() for label in shown]
    assert all(a.x1 <= b.x0 + 1 for a, b in itertools.pairwise(boxes))


@pytest.mark.parametrize("chart", [ERROR, LAYERS, ALL, ALONG, BARS], ids=lambda c: c.name)
def test_no_text_leaves_the_figure_or_lies_on_another(chart, monkeypatch):
    figure = figures.draw(chart, made.lmc_rows() if chart is ERROR else made.llfc_rows())
    drawn = []
    monkeypatch.setattr(
        RendererAgg, "draw_text", lambda *given, mtext=None, **_: drawn.append(mtext)
    )
    figure.canvas.draw()
    boxes = [(text.get_text(), text.get_window_extent()) for text in drawn]
    assert len(boxes) > 10
    frame = figure.bbox.padded(1)
    for i, (text, box) in enumerate(boxes):
        assert frame.contains(box.x0, box.y0), text
        assert frame.contains(box.x1, box.y1), text
        for other, place in boxes[:i]:
            apart = box.x0 > place.x1 - 2 or place.x0 > box.x1 - 2
            assert apart or box.y0 > place.y1 - 2 or place.y0 > box.y1 - 2, (text, other)


@pytest.mark.parametrize("chart", [ERROR, LAYERS, ALL, ALONG, BARS], ids=lambda c: c.name)
@pytest.mark.parametrize("rows", ["none", "nan", "one", "zeros"])
def test_poor_data_is_drawn_all_the_same(chart, rows, tmp_path):
    source = made.lmc_rows() if chart is ERROR else made.llfc_rows()
    holes = dict.fromkeys(chart.y, math.nan)
    data = {
        "none": [],
        "nan": [row | holes for row in source],
        "one": [row for row in source if all(row[k] == v for k, v in chart.where.items())][:1],
        "zeros": [row | dict.fromkeys(chart.y, 0.0) for row in source],
    }[rows]
    figure = figures.draw(chart, data)
    png, svg = figures.save(figure, tmp_path, "figure")
    assert png.stat().st_size > 1000
    ElementTree.parse(svg)
    if rows in ("none", "nan"):
        assert "No finite values to draw" in words(figure)


def test_the_floor_is_said():
    rows = [
        row | {"distance": 0.0} if row["layer"] == "Dense_0" else row for row in made.llfc_rows()
    ]
    assert any("are drawn at 10⁻" in text for text in words(figures.draw(LAYERS, rows)))


def test_a_band_that_reaches_zero_goes_down_to_where_the_axis_begins():
    rows = [row | {"distance": 0.01, "distance_std": 0.02} for row in made.llfc_rows()]
    ax = figures.draw(dataclasses.replace(LAYERS, y={"distance": "d"}), rows).axes[0]
    (band,) = ax.collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (ax.get_ylim()[0], pytest.approx(0.03))
    assert 0 < ax.get_ylim()[0] < 0.01


def test_powers_along_x_stand_evenly_with_their_values_as_ticks():
    chart = dataclasses.replace(ALONG, x="width", log_x=True, where={}, lines=None)
    rows = [{"width": w, "distance": 0.1 / w} for w in (0.5, 1.0, 2.0, 4.0)]
    ax = figures.draw(chart, rows).axes[0]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0.5", "1", "2", "4"]
    pixels = [ax.transData.transform((x, 0.1))[0] for x in ax.get_xticks()]
    np.testing.assert_allclose(np.diff(pixels, 2), 0, atol=1e-6)


def test_the_same_rows_give_the_same_bytes(tmp_path):
    kept = {}
    for place in ("first", "second"):
        with matplotlib.rc_context({"font.size": 8 if place == "first" else 20}):
            files = figures.save(figures.draw(ALL, made.llfc_rows()), tmp_path / place, "figure")
        kept[place] = [path.read_bytes() for path in files]
    assert kept["first"] == kept["second"]
    assert b"<dc:date>" not in kept["first"][1]


def test_drawing_leaves_the_settings_alone():
    before = dict(matplotlib.rcParams)
    figures.draw(ERROR, made.lmc_rows())
    assert dict(matplotlib.rcParams) == before


@settings(max_examples=15, deadline=None)
@given(st.text(max_size=20), st.text(max_size=20))
def test_any_name_can_be_drawn(pair, layer):
    rows = [row | {"pair": pair, "layer": layer + row["layer"]} for row in made.llfc_rows()[:77]]
    chart = dataclasses.replace(LAYERS, title=f"${pair}$ {{", x_label=layer)
    ElementTree.fromstring(figures.to_svg(figures.draw(chart, rows)))


def linear(colour):
    return np.array(
        [c / 12.92 if c < 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    )


def luminance(colour):
    return float(linear(colour) @ (0.2126, 0.7152, 0.0722))


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_contrast_to_the_page(theme):
    def contrast(name):
        a, b = (luminance(style.variables()[n][theme]) for n in (name, "page"))
        return (max(a, b) + 0.05) / (min(a, b) + 0.05)

    assert contrast("ink") > 12
    assert contrast("soft") > 4.5
    for i in range(len(style.CATEGORICAL)):
        assert contrast(f"c{i}") > 3, i
    for i in range(style.LEVELS):
        assert contrast(f"s{i}") > 1.7, i


# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB
VISION = {
    "full": np.eye(3),
    "protan": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deutan": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritan": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}
LMS = [[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.6300]]
OKLAB = [[0.2105, 0.7936, -0.0041], [1.9780, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]]


@pytest.mark.parametrize("kind", VISION)
@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_the_first_hues_differ_for_every_kind_of_colour_vision(kind, theme):
    seen = []
    for pair in style.CATEGORICAL[:5]:
        cones = np.array(LMS) @ np.clip(np.array(VISION[kind]) @ linear(pair[theme]), 0, 1)
        seen.append(np.array(OKLAB) @ np.cbrt(cones))
    for i, a in enumerate(seen):
        for b in seen[:i]:
            assert np.linalg.norm(a - b) > 0.09  # about five just noticeable differences


def test_colours_of_a_figure_are_those_of_the_page():
    svg = figures.to_svg(figures.draw(ALL, made.llfc_rows()))
    known = {light for light, _ in style.variables().values()} | {"#ffffff", "#000000"}
    assert set(re.findall(r"#[0-9a-f]{6}\b", svg)) <= known
