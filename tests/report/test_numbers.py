import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llfc_jax.report.numbers import clean, format_spread, format_value, is_numeric, plain


def test_cells_in_words():
    cells = (None, math.nan, "", [], True, 3, 2.0, 0.123456, 1.5e-7, ["a", 0.5], 60000)
    words = ("–", "–", "–", "–", "yes", "3", "2", "0.1235", "1.5e-7", "a; 0.5", "60000")
    assert tuple(map(format_value, cells)) == words


@pytest.mark.parametrize(
    ("value", "spread", "text"),
    [
        (0.123456, 0.0034, "0.123 ± 0.003"),
        (0.123456, 0.0014, "0.1235 ± 0.0014"),
        (1234.5, 120.0, "1230 ± 120"),
        (87.6543, 0.26, "87.7 ± 0.3"),
        (5.7e-7, 3e-8, "(5.7 ± 0.3)e-7"),
        (0.0, 0.05, "0.00 ± 0.05"),
        (0.5, 0.0, "0.5"),
        (0.11, 1e-16, "0.11"),
        (0.5, math.nan, "0.5"),
        (math.nan, 0.1, "–"),
        (0.01, 3.0, "0 ± 3"),
    ],
)
def test_a_number_has_the_digits_that_its_spread_supports(value, spread, text):
    assert format_spread(value, spread) == text


@given(st.floats(), st.floats())
def test_any_number_is_written_near_what_it_is(value, spread):
    text = format_spread(value, spread)
    if "±" in text and "e" not in text:
        shown, deviation = map(float, text.split(" ± "))
        assert abs(shown - value) <= 0.51 * spread
        assert deviation == pytest.approx(spread, rel=0.5)


def test_what_json_holds():
    assert [plain(x) for x in (math.inf, math.nan, None, True, 2.0, 1 / 3)] == [
        *(None, None, None, True, 2, 0.333333)
    ]
    assert plain("a\ud800\x00b") == clean("a\ud800\x00b") == "a��b"
    assert is_numeric([{"a": 1}, {"a": None}], "a")
    assert not is_numeric([{"a": 1}, {"a": "x"}], "a")
    assert not is_numeric([], "a")
