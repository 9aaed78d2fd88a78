"""Networks as they are published: the groups that a person would write down, and no wrong one.

`python tests/symmetry/architectures.py --tries 20` plants more permutations.
"""

import collections
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from architectures import ARCHITECTURES, brought_back, groups_of
from programs import TOLERANCE, element_changes, largest_changes

from llfc_jax.symmetry import permutation_spec
from llfc_jax.symmetry.beyond.derive import symmetry_spec
from llfc_jax.symmetry.beyond.element import Element, complement_of_ones
from llfc_jax.symmetry.beyond.spec import SymmetrySpec
from llfc_jax.symmetry.checking import double_precision, identity

ANY, ORTHOGONAL, ONES = "invertible matrices", "orthogonal matrices", " that keep the ones"
PLAIN, SCALES, SIGNS = "permutations", ", positive scales", ", signs"
TURNED = "scaled rotations of 2 pairs of units"
WHOLE: dict[str, list[tuple[int, int, str]]] = {
    # (units, units of the parent or 0, what they may be) of every group; behind each, why.
    "gpt2": [
        (2, 0, PLAIN),  # heads
        (4, 2, ANY), (4, 2, ANY),  # queries with keys; values with the output
        (8, 0, PLAIN + SCALES + SIGNS),  # the last gain stands before the tied embedding
        (12, 0, PLAIN),  # gelu
    ],
    "llama": [
        # Rotary embeddings: queries and keys may be turned and scaled, pair by pair.
        (2, 0, PLAIN), (2, 2, PLAIN), (4, 2, TURNED), (4, 2, ANY),
        (8, 0, ORTHOGONAL), (12, 0, PLAIN + SCALES + SIGNS),  # SwiGLU: the linear branch
    ],
    "gemma": [
        (2, 0, PLAIN), (4, 0, TURNED),
        (4, 0, ANY),  # one head of values, read by both heads of queries
        (8, 0, PLAIN + SCALES + SIGNS), (12, 0, PLAIN + SCALES + SIGNS),
    ],
    "t5": [
        (2, 0, PLAIN), (4, 2, ANY), (4, 2, ANY),
        (8, 0, PLAIN + SCALES + SIGNS), (12, 0, PLAIN + SCALES),  # relu
    ],
    "swin": [
        (2, 0, PLAIN), (4, 2, ANY), (4, 2, ANY),
        (8, 0, ORTHOGONAL + ONES), (10, 0, PLAIN + SIGNS), (12, 0, PLAIN),
    ],
    "mixtral": [
        (2, 0, PLAIN), (4, 2, TURNED), (4, 2, ANY), (8, 0, ORTHOGONAL),
        (4, 0, PLAIN), (6, 4, PLAIN + SCALES + SIGNS),
    ],
    "mlp_mixer": [(7, 0, PLAIN), (8, 0, PLAIN + SCALES + SIGNS), (12, 0, PLAIN)],
    "perceiver": [
        (8, 0, ANY), (6, 0, PLAIN), (10, 0, ORTHOGONAL + ONES), (12, 0, PLAIN),
        (2, 0, PLAIN), (2, 0, PLAIN),
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


def near_identity(spec: SymmetrySpec, t: Any) -> Element:
    """The element of a vector of the symmetry's parameters, to first order around zero."""
    t, matrices, scales = iter(jnp.split(t, len(t))), {}, {}
    for action in spec.actions:
        *outer, n = spec.shape(action.group)
        places = int(np.prod(outer, dtype=int))
        if action.matrix == "none":
            if action.scales:
                numbers = jnp.concatenate([next(t) for _ in range(action.scales * places * n)])
                scales[action.group] = numbers.reshape(action.scales, *outer, n)
            continue
        if action.pairs:
            shape = (2, *outer, len(action.pairs))
            numbers = jnp.concatenate([next(t) for _ in range(int(np.prod(shape)))]).reshape(shape)
            matrices[action.group] = action.turned(n, 1 + numbers[0], numbers[1])
            continue
        m = n - 1 if action.keeps_ones else n
        skew = action.matrix == "orthogonal"
        rows, columns = np.tril_indices(m, -1) if skew else np.indices((m, m)).reshape(2, -1)
        numbers = jnp.concatenate([next(t) for _ in range(places * len(rows))]).reshape(places, -1)
        small = jnp.zeros((places, m, m)).at[:, rows, columns].set(numbers)
        small = jnp.eye(m) + (small - small.swapaxes(1, 2) if skew else small)
        basis = complement_of_ones(n) if action.keeps_ones else np.eye(n)
        whole = basis @ small @ basis.T + (1 / n if action.keeps_ones else 0)
        matrices[action.group] = whole.reshape(*outer, n, n)
    assert next(t, None) is None
    return Element(identity(spec.permutations), matrices, scales)


@pytest.mark.parametrize("name", ["gpt2", "llama", "mixtral"])
def test_no_dimension_of_a_symmetry_is_counted_twice(name: str) -> None:
    net = ARCHITECTURES[name]
    with double_precision(), jax.numpy_rank_promotion("allow"):
        x = net.batch() if net.words else net.batch().astype(float)
        weights = {k: jnp.asarray(v, float) for k, v in net.variables().items()}
        spec = symmetry_spec(net.apply, weights, x)
        folded = spec.fold(weights)

        def moved(t: Any) -> Any:
            changed = spec.apply(near_identity(spec, t), folded)
            return jnp.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(changed)])

        slopes = jax.jit(jax.jacfwd(moved))(jnp.zeros(spec.degrees))
    assert np.linalg.matrix_rank(np.asarray(slopes), tol=1e-6) == spec.degrees
