"""Networks as they are published: the groups that a person would write down, and no wrong one.

`python tests/symmetry/architectures.py --tries 20` plants more permutations.
"""

import collections

import jax
import numpy as np
import pytest
from architectures import ARCHITECTURES, brought_back, groups_of
from programs import TOLERANCE, element_changes, largest_changes

from llfc_jax.symmetry import permutation_spec
from llfc_jax.symmetry.beyond.derive import symmetry_spec
from llfc_jax.symmetry.checking import double_precision


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_an_architecture_has_the_groups_it_must_have(name: str) -> None:
    net = ARCHITECTURES[name]
    variables, x = net.variables(), net.batch()
    spec = permutation_spec(net.apply, variables, x)
    assert groups_of(spec) == collections.Counter(net.groups), spec.explain()
    assert not spec.notes
    assert brought_back(net, spec, seed=1, noise=1e-3)
    with double_precision():
        wide = {k: v.astype(float) for k, v in variables.items()}
        x = x if net.words else x.astype(float)
        jaxpr = jax.make_jaxpr(net.apply)(wide, x)
        changes = largest_changes(jaxpr, spec, wide, x, np.random.default_rng(0))
        whole = symmetry_spec(net.apply, wide, x)
        more = element_changes(jaxpr, whole, wide, x, np.random.default_rng(0))
    assert changes is not None
    assert more is not None
    changes |= more
    assert max(changes.values()) < TOLERANCE, (changes, whole.explain())
