"""Figures of curves and planes, as Vega-Lite charts."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llfc_jax.landscape.plane import PlaneResult
from llfc_jax.report import figures
from llfc_jax.report.charts import Chart
from llfc_jax.report.style import SCREEN, Theme

if TYPE_CHECKING:
    import altair as alt

LEVELS = 12  # bands of colour


def draw_curve(
    results: Mapping[str, Any], of: str = "error", theme: Theme = SCREEN
) -> "figures.Figure":
    """Returns loss or error along several ways between two modes, a line each.

    Args:
        results: name of the way -> its "lmc" result.
        of: "error" or "loss".
        theme: colours and sizes; `report.style.PAPER` for a column of a paper.
    """
    rows = [
        {"way": name, "alpha": alpha, of: float(value)}
        for name, found in results.items()
        for alpha, value in zip(found.alphas, getattr(found, of), strict=True)
    ]
    chart = Chart(
        name=f"curve_{of}",
        title=f"{of.capitalize()} along each way between the networks",
        caption="A line each; a hump is a barrier.",
        x="alpha",
        y={of: of},
        x_label="α (0: network b, 1: network a)",
        y_label="error (share of samples)" if of == "error" else of,
        lines="way",
        panels=(),
    )
    return figures.draw(chart, rows, theme)


def draw_plane(
    found: PlaneResult,
    of: str = "loss",
    marks: Mapping[str, tuple[float, float]] | None = None,
    path: Sequence[tuple[float, float]] = (),
    theme: Theme = SCREEN,
) -> "alt.LayerChart | alt.FacetChart":
    """Returns a plane in bands of equal colour, with points and a path on it.

    The bands are quantiles of the grid, so that the valley shows beside walls that are many times
    higher.

    Args:
        found: what was measured.
        of: "loss" or "error".
        marks: name -> (x, y) of points to be named, as `Plane.project` gives them.
        path: points (x, y) to be joined by a line, in order: a curve, or a run's checkpoints.
        theme: colours and sizes; `report.style.PAPER` for a column of a paper.
    """
    import altair as alt

    values = [
        {"x": x, "y": y, of: float(value)}
        for y, row in zip(found.ys, getattr(found, of), strict=True)
        for x, value in zip(found.xs, row, strict=True)
    ]
    half = [(axis[1] - axis[0]) / 2 if len(axis) > 1 else 0.5 for axis in (found.xs, found.ys)]
    for row in values:
        row |= {f"{name}{k}": row[name] + sign * half["xy".index(name)]
                for name in "xy" for k, sign in ((1, -1), (2, 1))}  # fmt: skip
    size = round(theme.width * (0.55 if theme.heading else 0.7))
    tight = alt.Scale(nice=False, zero=False)
    surface = (
        alt.Chart(alt.InlineData(values=values))
        .mark_rect()
        .encode(
            x=alt.X("x1:Q", title="distance along the first direction", scale=tight),
            x2="x2:Q",
            y=alt.Y("y1:Q", title="distance along the second direction", scale=tight),
            y2="y2:Q",
            color=alt.Color(
                f"{of}:Q",
                title=of,
                scale=alt.Scale(type="threshold", domain=_levels(values, of), scheme="viridis"),
                legend=alt.Legend(
                    format=".3g", orient="right", titleOrient="top", gradientLength=size // 2
                ),
            ),
            tooltip=["x:Q", "y:Q", alt.Tooltip(f"{of}:Q", format=".4g")],
        )
    )
    layers: list[Any] = [surface]
    if path:
        points = [{"x": x, "y": y, "order": i} for i, (x, y) in enumerate(path)]
        layers.append(
            alt.Chart(alt.InlineData(values=points))
            .mark_line(
                color="white", strokeWidth=2, point=alt.OverlayMarkDef(color="white", size=12)
            )
            .encode(x="x:Q", y="y:Q", order="order:O")
        )
    if marks:
        named = [{"name": name, "x": x, "y": y} for name, (x, y) in marks.items()]
        base = alt.Chart(alt.InlineData(values=named)).encode(x="x:Q", y="y:Q")
        layers.append(base.mark_point(filled=True, size=70, color="white", stroke="black"))
        layers.append(
            base.mark_text(dy=-12, color="white", fontWeight="bold").encode(text="name:N")
        )
    exact = {} if theme.heading else {"usermeta": {"width": theme.width, "scaled": True}}
    return alt.layer(*layers, config=theme.config(), **exact).properties(
        width=size, height=round(0.85 * size)
    )


def _levels(values: Sequence[Mapping[str, float]], of: str) -> list[float]:
    """Returns the borders between the bands: quantiles of the grid, each once."""
    numbers = sorted(row[of] for row in values if row[of] == row[of])
    places = (round(k * (len(numbers) - 1) / LEVELS) for k in range(1, LEVELS))
    return sorted({numbers[place] for place in places})
