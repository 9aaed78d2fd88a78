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
from llfc_jax.symmetry.beyond.spec import SymmetrySpec
from llfc_jax.symmetry.checking import double_precision

ANY, ORTHOGONAL, ONES = "invertible matrices", "orthogonal matrices", " that keep the ones"
PLAIN, SCALES, SIGNS = "permutations", ", positive scales", ", signs"
WHOLE: dict[str, list[tuple[int, int, str]]] = {
    # (units, units of the parent or 0, what they may be) of every group; behind each, why.
    "gpt2": [
        (2, 0, PLAIN + SCALES + SIGNS),  # heads: what their widths may do, all at once
        (4, 2, ANY), (4, 2, ANY),  # queries with keys; values with the output
        (8, 0, PLAIN + SCALES + SIGNS),  # the last gain stands before the tied embedding
        (12, 0, PLAIN),  # gelu
    ],
    "llama": [
        (2, 0, PLAIN + SCALES + SIGNS), (2, 2, PLAIN), (4, 2, ANY),  # rotary fixes queries and keys
        (8, 0, ORTHOGONAL), (12, 0, PLAIN + SCALES + SIGNS),  # SwiGLU: the linear branch
    ],
    "gemma": [
        (2, 0, PLAIN), (4, 0, ANY),  # one head of values, read by both heads of queries
        (8, 0, PLAIN + SCALES + SIGNS), (12, 0, PLAIN + SCALES + SIGNS),
    ],
    "t5": [
        (2, 0, PLAIN + SCALES + SIGNS), (4, 2, ANY), (4, 2, ANY),
        (8, 0, PLAIN + SCALES + SIGNS), (12, 0, PLAIN + SCALES),  # relu
    ],
    "swin": [
        (2, 0, PLAIN + SCALES + SIGNS), (4, 2, ANY), (4, 2, ANY),
        (8, 0, ORTHOGONAL + ONES), (10, 0, PLAIN + SIGNS), (12, 0, PLAIN),
    ],
    "mixtral": [
        (2, 0, PLAIN + SCALES + SIGNS), (4, 2, ANY), (8, 0, ORTHOGONAL),
        (4, 0, PLAIN + SCALES + SIGNS), (6, 4, PLAIN + SCALES + SIGNS),
    ],
    "mlp_mixer": [(7, 0, PLAIN), (8, 0, PLAIN + SCALES + SIGNS), (12, 0, PLAIN)],
    "perceiver": [
        (8, 0, ANY), (6, 0, PLAIN), (10, 0, ORTHOGONAL + ONES), (12, 0, PLAIN),
        (2, 0, PLAIN + SCALES + SIGNS), (2, 0, PLAIN + SCALES + SIGNS),
        (4, 2, ANY), (4, 2, ANY), (4, 2, ANY), (4, 2, ANY), (8, 0, ANY), (7, 0, ANY),
    ],
}  # fmt: skip


def kinds_of(spec: SymmetrySpec) -> collections.Counter[tuple[int, int, str]]:
    sizes = {group.name: group.size for group in spec.permutations.groups}
    groups = spec.permutations.group
    return collections.Counter(
        (sizes[a.group], sizes.get(groups[a.group].parent, 0), a.kind) for a in spec.actions
    )


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
    if name in WHOLE:
        assert kinds_of(whole) == collections.Counter(WHOLE[name]), whole.explain()
    changes |= more
    assert max(changes.values()) < TOLERANCE, (changes, whole.explain())
