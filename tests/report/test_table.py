import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from llfc_jax.report import table

from . import made

MANY = [
    {"pair": f"p{i}", "align": "weight", **{f"column {c}": (i + 1) / (c + 3) for c in range(12)}}
    for i in range(3)
]
COLUMNS = {f"column {c}": f"column {c}" for c in range(12)}


def test_plain_where_it_is_no_terminal():
    text = table.render(made.SUMMARY, made.SUMMARY_COLUMNS, title="Summary")
    lines = text.splitlines()
    assert lines[0] == "Summary"
    assert "\x1b" not in text
    assert len(lines) == 3 + len(made.SUMMARY)
    assert [word in lines[1] for word in made.SUMMARY_COLUMNS.values()] == [True] * 8
    assert "not connected" in lines[7]
    assert lines[7].split()[:2] == ["independent", "none"]


def test_numbers_stand_to_the_right():
    lines = table.render([{"n": 5}, {"n": 123.5}], {"n": "count"}).splitlines()
    assert lines[2] == "    5"
    assert lines[3] == "123.5"


def test_every_row_says_what_it_is_of():
    rows = [{"pair": "p", "align": "weight", "split": "test", "renormalise": "repair", "n": 1}]
    head, _, body = table.render(rows, {"n": "count"}).splitlines()
    assert re.split(r" {2,}", head) == ["pair", "aligned by", "split", "renormalised", "count"]
    assert body.split() == ["p", "weight", "test", "repair", "1"]


@pytest.mark.parametrize("width", [20, 60, 80, 200])
def test_what_does_not_fit_follows_below_and_no_digit_is_lost(width):
    text = table.render(MANY, COLUMNS, width=width)
    blocks = text.split("\n\n")
    assert max(map(len, text.splitlines())) <= max(width, 35)
    assert all(line.split()[:2] == ["p1", "weight"] for b in blocks for line in [b.splitlines()[3]])
    cells = sorted(cell for block in blocks for cell in block.splitlines()[2].split()[2:])
    assert cells == sorted(f"{1 / (c + 3):.4g}" for c in range(12))
    assert len(blocks) == {20: 12, 60: 4, 80: 3, 200: 1}[width]


def test_show_follows_the_console():
    out = io.StringIO()
    table.show(made.SUMMARY, made.SUMMARY_COLUMNS, console=Console(file=out))
    assert out.getvalue() == table.render(made.SUMMARY, made.SUMMARY_COLUMNS)
    for wide, blocks in ((False, 3), (True, 1)):
        out = io.StringIO()
        console = Console(file=out, force_terminal=True, width=70)
        table.show(made.SUMMARY, made.SUMMARY_COLUMNS, console=console, wide=wide)
        assert "\x1b[33mnot connected" in out.getvalue()
        assert out.getvalue().count("\n\n") == blocks - 1


def test_latex_and_markdown():
    rows = [{"pair": "a_b|c", "n": -1.5e-7, "m": 0.123456, "half": 0.0034}]
    columns = {"n": "1 - cosine_α", "m": "50 % & more"}
    assert table.to_latex(rows, columns, {"m": "half"}) == (
        "\\begin{tabular}{lrr}\n\\toprule\n"
        "pair & $1 - \\cos_\\alpha$ & 50 \\% \\& more \\\\\n\\midrule\n"
        "a\\_b|c & $-1.5 \\times 10^{-7}$ & $0.123 \\pm 0.003$ \\\\\n\\bottomrule\n\\end{tabular}\n"
    )
    assert table.to_markdown(rows, columns) == (
        "| pair | 1 - cosine_α | 50 % & more |\n| --- | ---: | ---: |\n"
        "| a_b\\|c | -1.5e-7 | 0.1235 |\n"
    )


@given(st.text(), st.text(min_size=1))
def test_hostile_text_is_shown_as_text(cell, heading):
    text = table.render([{"a": f"[red]{cell}", "b": "end"}], {"a": heading, "b": "b"})
    assert "\x1b" not in text
    assert "[red]" in text
    assert text.splitlines()[-1].endswith("end")


def test_no_rows():
    assert "error of a" in table.render([], made.SUMMARY_COLUMNS)
