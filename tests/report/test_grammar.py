import dataclasses
import math

import pytest

from llfc_jax.report import grammar

from . import made

ERROR, LAYERS, ALL = made.LMC.charts[0], made.LLFC.charts[0], made.LLFC.charts[1]


def test_one_panel_per_pair_and_alignment_in_order_of_appearance():
    plan = grammar.plan(ERROR, made.lmc_rows())
    assert [p.key for p in plan.panels] == [(p, a) for p in made.PAIRS for a in made.ALIGNS]
    assert plan.varying == ("pair", "align")
    assert plan.pinned == {}
    assert plan.grid() == ((0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2))


def test_columns_of_one_value_are_pinned_rather_than_repeated():
    plan = grammar.plan(LAYERS, made.llfc_rows(aligns=("weight",)))
    assert plan.pinned == {"alpha": 0.5, "align": "weight"}
    assert [p.key for p in plan.panels] == [(pair,) for pair in made.PAIRS]
    assert plan.grid() is None


def test_points_are_the_rows_that_count():
    rows = made.llfc_rows()
    plan = grammar.plan(LAYERS, rows)
    series = plan.panels[0].series[0]
    mine = [r for r in rows if (r["pair"], r["align"]) == ("spawn_k1", "none")]
    assert plan.names == made.MLP
    assert series.x == tuple(range(len(made.MLP)))
    assert series.values == tuple(r["distance"] for r in mine if r["alpha"] == 0.5)
    assert series.deviation == tuple(r["distance_std"] for r in mine if r["alpha"] == 0.5)


def test_where_compares_numbers_to_rounding():
    rows = [row | {"alpha": row["alpha"] + 3e-8} for row in made.llfc_rows()]
    assert len(grammar.plan(LAYERS, rows).panels) == 6


def test_a_column_that_is_the_same_for_all_lines_is_drawn_once():
    plan = grammar.plan(ALL, made.llfc_rows())
    lines = [s.line for s in plan.panels[0].series if s.y == "baseline"]
    assert lines == [None]
    assert [s.line for s in plan.panels[0].series if s.y == "distance"] == list(made.ALPHAS)


def test_lines_of_numbers_ascend_and_layers_keep_their_depth():
    rows = list(reversed(made.llfc_rows()))
    assert grammar.plan(ALL, rows).lines == made.ALPHAS
    plan = grammar.plan(made.LLFC.charts[2], made.llfc_rows())
    assert plan.lines == made.MLP
    assert plan.ordered
    assert not grammar.plan(ERROR, made.lmc_rows()).ordered


@pytest.mark.parametrize("hole", [math.nan, math.inf, -math.inf, None, "nothing"])
def test_what_is_no_finite_number_is_a_gap(hole):
    rows = made.lmc_rows()
    rows[3]["error"] = hole
    values = grammar.plan(ERROR, rows).panels[0].series[0].values
    assert math.isnan(values[3])
    assert sum(map(math.isnan, values)) == 1


def test_floor_of_a_logarithmic_axis():
    rows = [{"x": i, "y": y} for i, y in enumerate([0.0, -1.0, 1e-12, 3e-4, 0.2])]
    chart = dataclasses.replace(LAYERS, x="x", y={"y": "y"}, panels=(), where={}, band={})
    plan = grammar.plan(chart, rows)
    assert plan.floor == pytest.approx(1e-8)  # eight decades below 1
    assert plan.clipped == 3
    assert plan.bottom == plan.floor
    plan = grammar.plan(chart, rows[3:])
    assert plan.floor == pytest.approx(1e-4)
    assert plan.clipped == 0
    assert plan.floor < plan.bottom < 3e-4
    assert grammar.plan(chart, rows[:2]).clipped == 2


def test_nothing_to_draw():
    assert grammar.plan(LAYERS, []).panels == ()
    rows = [row | {"distance": math.nan, "baseline": None} for row in made.llfc_rows()]
    assert grammar.plan(LAYERS, rows).panels == ()
    assert grammar.plan(dataclasses.replace(LAYERS, where={"alpha": 7.0}), rows).panels == ()


def test_cells_in_words():
    assert [grammar.show(v) for v in (None, math.nan, "", [], True, 3, 2.0, 0.123456)] == [
        *("–", "–", "–", "–", "yes", "3", "2", "0.1235")
    ]
    assert grammar.show(1.5e-7) == "1.5e-7"
    assert grammar.show(["a", "b"]) == "a; b"
