"""How hard the tests with random inputs try: `LLFC_FUZZ=20 pytest ...` takes 20 times as many."""

import os

from hypothesis import settings

EFFORT = float(os.environ.get("LLFC_FUZZ", "1"))


def examples(number: int) -> settings:
    """So many examples, times the effort asked for."""
    return settings(max_examples=max(1, round(number * EFFORT)), deadline=None)
