import io

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from llfc_jax.report import table

from . import made


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


def test_show_follows_the_console():
    out = io.StringIO()
    table.show(made.SUMMARY, made.SUMMARY_COLUMNS, console=Console(file=out))
    assert out.getvalue() == table.render(made.SUMMARY, made.SUMMARY_COLUMNS)
    out = io.StringIO()
    table.show(
        made.SUMMARY,
        made.SUMMARY_COLUMNS,
        console=Console(file=out, force_terminal=True, width=140),
    )
    assert "\x1b[33mnot connected" in out.getvalue()


@given(st.text(), st.text(min_size=1))
def test_hostile_text_is_shown_as_text(cell, heading):
    text = table.render([{"a": f"[red]{cell}", "b": "end"}], {"a": heading, "b": "b"})
    assert "\x1b" not in text
    assert "[red]" in text
    assert len(text.splitlines()) == 3


def test_no_rows():
    assert "pair" in table.render([], made.SUMMARY_COLUMNS)
