"""The tables of docs/beyond_permutations*.md are those of the rows that are kept."""

import symmetry_tables as script
from pages import rebuild


def test_the_pages_are_those_of_the_rows_that_are_kept():
    for mark, text in script.page_texts(script.kept()).items():
        page = (script.DOCS / script.PAGES[mark]).read_text("utf-8")
        assert rebuild(page, mark, text) == page


def test_a_median_stands_with_its_spread():
    assert script._spread([1.0, 2.0, 4.0]) == "2 (1 to 4)"
    assert script._spread([101.4], "%", digits=3) == "101 %"
    assert script._spread([]) == "–"


def test_the_figure_has_a_panel_per_method_and_the_median_over_seeds():
    def row(name, seed, loss, control="trained"):
        own = {"config": "c", "width": 8, "row": name, "control": control, "seed": seed}
        return own | {"line": [[0.0, 0.1], [0.5, loss]]}

    rows = [row("none", seed, 3.0) for seed in (0, 1, 2)]
    rows += [row("learned, full", seed, loss) for seed, loss in ((0, 1.0), (1, 5.0), (2, 2.0))]
    rows += [row("weight, permutations", 0, 3.0)]
    rows += [row("learned, full", 0, 4.0, "shuffled"), row("learned without labels", 0, 9.0)]
    drawn = script.lines(rows)
    labels = "learned without labels"
    assert {r["method"] for r in drawn} == {"weight", "learned", "learned, b shuffled", labels}
    assert {r["aligned over"] for r in drawn} == {"as trained", "permutations", "full"}
    middle = [r for r in drawn if r["alpha"] == 0.5 and r["aligned over"] == "full"]
    assert {r["median"] for r in middle if r["method"] == "learned"} == {2.0}
    assert {r["median"] for r in middle if r["method"] == "learned, b shuffled"} == {4.0}
    assert {r["median"] for r in middle if r["method"] == labels} == {9.0}
    assert drawn[0]["aligned over"] == "as trained"
    assert script.lines([{k: v for k, v in r.items() if k != "line"} for r in rows]) == []
