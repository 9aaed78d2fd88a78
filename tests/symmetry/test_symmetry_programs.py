"""No group of a random program's spec changes what the program computes.

`python tests/symmetry/programs.py 2000` examines as many as wanted, with any seed.
"""

import os
import secrets

import jax
import pytest
from programs import examine

from llfc_jax.symmetry.checking import double_precision

PROGRAMS = 300
BATCHES = 3


@pytest.mark.parametrize("batch", range(BATCHES))
def test_no_group_of_a_random_program_changes_it(batch: int) -> None:
    """A new seed each time, printed where it fails; LLFC_PROGRAMS_SEED repeats one."""
    seed = int(os.environ.get("LLFC_PROGRAMS_SEED", secrets.randbelow(10**6)))
    groups, numbers = 0, range(batch, PROGRAMS, BATCHES)
    with double_precision(), jax.numpy_rank_promotion("allow"):
        for number in numbers:
            found = examine([seed, number])
            groups += found.groups
            words = f"python tests/symmetry/programs.py --seed {seed} --only {number}"
            assert not found.wrong, f"{words}\n{found.wrong[0]}"
    assert groups > len(numbers)  # there is something to see
