import pytest

from llfc_jax.errors import ConfigError
from llfc_jax.report import comparison
from llfc_jax.report.html import with_keys
from llfc_jax.report.page import Verdict, write_page

from . import made
from .test_page import Page


def run(name, scale, **details):
    rows = [row | {"error": row["error"] * scale} for row in made.lmc_rows(aligns=("none",))]
    llfc = [row | {"distance": row["distance"] * scale} for row in made.llfc_rows(aligns=("none",))]
    return comparison.Run(name, made.SUMMARY, [(made.LMC, rows), (made.LLFC, llfc)], details)


RUNS = [
    run("width 64", 1.0, seed=0, config={"network": {"width": 64, "depth": 3}}),
    run("width 512", 0.5, seed=0, config={"network": {"width": 512, "depth": 3}}),
]


def test_one_line_per_run_and_their_own_lines_as_a_choice():
    (lmc, rows), (llfc, _) = comparison.join_runs(RUNS)
    assert [row["run"] for row in rows[:: len(rows) // 2]] == ["width 64", "width 512"]
    assert [chart.lines for chart in (*lmc.charts, *llfc.charts)] == ["run"] * 6
    assert lmc.charts[0].where == {"split": "test"}
    assert llfc.charts[1].where == {"alpha": 0.5}
    assert llfc.charts[2].where == {"layer": "Dense_3"}
    assert list(with_keys(rows, llfc.columns))[:2] == ["run", "pair"]


def test_only_differences_are_listed():
    rows, columns = comparison.differing(RUNS)
    assert rows == [{"name": "config.network.width", "0": "64", "1": "512"}]
    assert columns == {"name": "setting", "0": "width 64", "1": "width 512"}


def test_the_page_holds_all_runs(tmp_path):
    report = comparison.make_comparison(RUNS, made.SUMMARY_COLUMNS, [Verdict("Two widths.")])
    write_page(tmp_path / "compare.html", report)
    parsed = Page((tmp_path / "compare.html").read_text("utf-8"))
    said = " ".join(parsed.text)
    for words in ("Runs side by side", "Two widths.", "width 64", "width 512", "network.width"):
        assert words in said
    assert len(parsed.all("tr")) == 2 * len(made.SUMMARY) + 3
    data = parsed.data()
    listed = data["sections"]["lmc"]["rows"]
    assert {row["run"] for row in listed} == {"width 64", "width 512"}
    menus = {menu["column"]: menu["value"] for menu in data["choices"]}
    assert menus == {"pair": None, "split": "test", "layer": "Dense_3", "alpha": 0.5}


def test_a_measure_that_only_one_run_has(tmp_path):
    less = comparison.Run("less", [], RUNS[0].sections[:1])
    assert [len(rows) for _, rows in comparison.join_runs([less, RUNS[1]])] == [132, 231]
    write_page(tmp_path / "compare.html", comparison.make_comparison([less], {}))


def test_names_must_differ():
    with pytest.raises(ConfigError, match="two runs are called 'width 64'; give each"):
        comparison.make_comparison([RUNS[0]] * 2, {})
