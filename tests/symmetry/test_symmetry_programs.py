"""No group of a random program's spec changes what the program computes.

`python tests/symmetry/programs.py 2000` examines as many as wanted, with any seed.
"""

import os
import secrets

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from programs import decided_by_rounding, examine

from llfc_jax.symmetry.checking import double_precision

PROGRAMS = 300
BATCHES = 3


@pytest.mark.slow
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


@pytest.mark.parametrize(
    ("scale", "activation", "rounding"),
    [(1.0, jax.nn.relu, False), (1.0, jnp.tanh, False), (1e3, jnp.tanh, True)],
    ids=["zeros that tie in exact arithmetic", "no tie", "tanh at its limit"],
)
def test_only_rounding_excuses_a_change(scale, activation, rounding) -> None:
    rng = np.random.default_rng(0)
    w, x = scale * rng.normal(size=(3, 5)), rng.normal(size=(16, 3)) - 1

    def apply(weights, x):
        return jax.nn.one_hot(jnp.argmax(activation(x @ weights[0]), 1), 5, dtype=x.dtype)

    with double_precision():
        jaxpr = jax.make_jaxpr(apply)([w], x)
        assert decided_by_rounding(jaxpr, [w], x, rng) == rounding
