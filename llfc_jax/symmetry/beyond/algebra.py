"""Composition and inverses of elements: matrices, scales and signs act first, then units move.

Elements in NumPy stay in NumPy.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llfc_jax.symmetry.axes import library
from llfc_jax.symmetry.beyond.element import Element
from llfc_jax.symmetry.spec import PermutationSpec
from llfc_jax.types import AnyArray


def compose(permutations: PermutationSpec, second: Element, first: Element) -> Element:
    """Returns the element that is first `first`, then `second`."""
    pulled = _pull_back(permutations, second, first.permutation)
    matrices = {
        name: _product(pulled.matrices.get(name), first.matrices.get(name))
        for name in {**first.matrices, **second.matrices}
    }
    scales = {
        name: first.log_scales.get(name, 0) + pulled.log_scales.get(name, 0)
        for name in {**first.log_scales, **second.log_scales}
    }
    signs = {
        name: first.signs.get(name, 1) * pulled.signs.get(name, 1)
        for name in {**first.signs, **second.signs}
    }
    permutation = permutations.compose(second.permutation, first.permutation)
    return Element(permutation, matrices, scales, signs)


def invert(permutations: PermutationSpec, element: Element) -> Element:
    """Returns the element that undoes this one."""
    inverse, xp = permutations.invert(element.permutation), library(*jax.tree.leaves(element))
    undone = Element(
        inverse,  # not looked at
        {name: xp.linalg.inv(m) for name, m in element.matrices.items()},
        {name: -xp.asarray(s) for name, s in element.log_scales.items()},
        dict(element.signs),
    )
    return dataclasses.replace(_pull_back(permutations, undone, inverse), permutation=inverse)


def _pull_back(
    permutations: PermutationSpec, element: Element, permutation: Mapping[str, Any]
) -> Element:
    """What an element's matrices, scales and signs are before the units move."""
    back, parents = permutations.invert(permutation), permutations.parents
    xp = library(*jax.tree.leaves((element, permutation)))

    def rows(name: str, array: AnyArray, axes: int) -> Any:
        array, index = xp.asarray(array), xp.asarray(back[name])
        if name in parents:
            array = xp.take(array, back[parents[name]], -1 - axes)
        for k in range(1, axes + 1):
            # The index runs along this axis, and along the parent's where there is one.
            shape = [1] * array.ndim
            shape[-k] = index.shape[-1]
            if name in parents:
                shape[-1 - axes] = len(index)
            array = xp.take_along_axis(array, index.reshape(shape), -k)
        return array

    return Element(
        element.permutation,
        {name: rows(name, m, 2) for name, m in element.matrices.items()},
        {name: rows(name, s, 1) for name, s in element.log_scales.items()},
        {name: rows(name, s, 1) for name, s in element.signs.items()},
    )


def _product(second: AnyArray | None, first: AnyArray | None) -> Any:
    if first is None or second is None:
        return second if first is None else first
    if library(second, first) is np:
        return np.matmul(second, first)
    return jnp.matmul(second, first, precision="highest")
