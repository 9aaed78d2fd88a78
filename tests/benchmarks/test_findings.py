"""Rank correlations against SciPy's and exact cases; the order in which conditions break."""

import math

import findings
import numpy as np
import pytest
from pages import rebuild
from scipy import stats
from summaries import Summary, load_all


def group(distances, barriers, others):
    names = ("llfc_median", "error_barrier", "com_ratio")
    return [
        dict(zip(names, row, strict=True)) for row in zip(distances, barriers, others, strict=True)
    ]


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr(findings, "RESAMPLES", 50)


@pytest.fixture
def groups():
    draw = np.random.default_rng(1).normal(size=(3, 3, 9))
    return {f"sweep{i}": group(*numbers) for i, numbers in enumerate(draw)}


def test_the_correlation_over_all_points_is_spearmans(groups):
    columns = [findings.column("llfc_median")]
    points, sweeps, whole, within = findings.correlate(groups, columns, np.random.default_rng(0))
    rows = [row for rows in groups.values() for row in rows]
    pairs = np.array([(row["llfc_median"], row["error_barrier"]) for row in rows])
    assert (points, sweeps) == ("27", "3")
    assert whole.startswith(f"{stats.spearmanr(*pairs.T).statistic:.2f} [")
    each = [stats.spearmanr(*p.T).statistic for p in np.split(pairs, 3)]
    assert within.startswith(f"{np.mean(each):.2f} [")


def test_a_partial_correlation_is_that_of_three_pairwise_ones(groups):
    rows = [row for rows in groups.values() for row in rows]
    x, y, z = ([row[n] for row in rows] for n in ("llfc_median", "error_barrier", "com_ratio"))
    xy, xz, yz = (stats.spearmanr(*pair).statistic for pair in ((x, y), (x, z), (y, z)))
    partial = (xy - xz * yz) / math.sqrt((1 - xz**2) * (1 - yz**2))
    columns = [findings.column(name) for name in ("llfc_median", "com_ratio")]
    cells = findings.correlate(groups, columns, np.random.default_rng(0))
    assert cells[2].startswith(f"{partial:.2f} [")


def test_a_quantity_that_only_tells_sweeps_apart_says_nothing_within_them():
    near = group([1, 2, 3, 4], [4, 3, 2, 1], [0] * 4)
    far = group([11, 12, 13, 14], [14, 13, 12, 11], [0] * 4)
    cells = findings.correlate(
        {"near": near, "far": far}, [findings.column("llfc_median")], np.random.default_rng(0)
    )
    assert cells[3] == "-1.00 [-1.00, -1.00]"
    assert float(cells[2].split(" ")[0]) > 0.3


def test_no_correlation_of_what_was_not_measured(groups):
    cells = findings.correlate(groups, [findings.column("weak_median")], np.random.default_rng(0))
    assert cells == ["0", "0", "", ""]


def sweep(ratios):
    """A sweep over k from (weak additivity, commutativity) of each k."""
    rows = [
        {"seed": 0, "k": k, "pair": f"spawn_k{k}", "align": "none", "weak_ratio": w, "com_ratio": c}
        for k, (w, c) in enumerate(ratios)
    ]
    return Summary({}, [], {}, "runs", rows)


@pytest.mark.parametrize(
    ("ratios", "words"),
    [
        ([(0.2, 0.3), (0.05, 0.2), (0.05, 0.05)], "commutativity at 1, weak additivity at 0"),
        ([(0.2, 0.02), (0.2, 0.02), (0.05, 0.05)], "weak additivity at 1"),
        ([(0.02, 0.02), (0.02, 0.02), (0.05, 0.05)], "neither"),
        ([(0.02, 0.5), (0.02, 0.5), (0.05, 0.5)], "commutativity from the start"),
    ],
)
def test_conditions_break_as_k_falls(ratios, words):
    rows = findings.follow_conditions("made", sweep(ratios))
    (line,) = findings.table_of_conditions(rows)[2:]
    assert line.split(" | ")[2] == "2 → 0"
    assert line.endswith(f"| {words} |")


def test_a_run_at_chance_counts_for_nothing():
    kept = sweep([(0.02, 0.02), (0.02, 0.02), (0.05, 0.05)])
    dead = kept.rows[0] | {"seed": 1, "informative": False, "com_ratio": 1e4}
    kept.rows.append(dead)
    rows = findings.follow_conditions("made", kept)
    assert max(row["com_ratio"] for row in rows) == 0.05


def test_what_varies_nothing_is_no_sweep():
    assert findings.follow_conditions("made", sweep([(0.2, 0.3)])) == []


def test_the_tables_of_the_page_are_those_of_what_is_kept():
    """The intervals need all resamples; they are compared in the slow test."""
    page = findings.PAGE.read_text("utf-8")
    for line in findings.table_of_conditions(findings.conditions(load_all())):
        assert line in page, line
    assert rebuild(page, "findings", "found").count("| quantity at") == 0


@pytest.mark.slow
def test_the_correlations_of_the_page_are_those_of_what_is_kept(monkeypatch):
    monkeypatch.setattr(findings, "RESAMPLES", 2_000)
    page = findings.PAGE.read_text("utf-8")
    assert rebuild(page, "findings", findings.tables(load_all())) == page
