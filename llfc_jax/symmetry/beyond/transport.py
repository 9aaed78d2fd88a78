"""A network carried to another by an element of its symmetry, and kept in a file."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llfc_jax.errors import MatchingError
from llfc_jax.io import aside
from llfc_jax.symmetry.beyond.element import Element
from llfc_jax.symmetry.beyond.spec import SymmetrySpec
from llfc_jax.types import Variables

FIELDS = ("permutation", "matrices", "log_scales", "signs")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Transport:
    """What takes a network B to the frame of another, A, without changing B's function.

    Attributes:
        spec: the network's symmetry.
        element: what is done to B, once it is folded.
        gains: A's gains, by path, which the moved B takes: the line between them is then the one
            between the folded networks.
        remark: what is to be said about how it was found.
    """

    spec: SymmetrySpec = dataclasses.field(metadata={"static": True})
    element: Element
    gains: Mapping[str, Any]
    remark: str = dataclasses.field(default="", metadata={"static": True})

    def to(self, a: Variables) -> "Transport":
        """Returns the one that takes B to A as it is, of one between the folded networks."""
        leaves, spec = jax.tree.leaves(a), self.spec
        held = {spec.unfolded.leaves[fold.leaf][0]: leaves[fold.leaf] for fold in spec.folds}
        return dataclasses.replace(self, gains=held)

    def apply(self, variables: Variables) -> Any:
        """Returns B, or a later checkpoint of it, in A's frame: the same function as before."""
        moved = self.spec.apply(self.element, self.spec.fold(variables))
        return self.spec.unfold(moved, self.gains)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes spec, element and gains to one .npz file (plain arrays, no pickles)."""
        arrays = element_arrays(self.element)
        arrays |= {f"gain:{name}": np.asarray(gain) for name, gain in self.gains.items()}
        with aside(Path(path)) as place, place.open("wb") as file:
            words = {"symmetry": self.spec.to_json(), "remark": self.remark}
            arrays |= {name: np.array(text) for name, text in words.items()}
            np.savez_compressed(file, **arrays)  # pyright: ignore

    @classmethod
    def read(cls, file: Mapping[str, Any]) -> "Transport":
        """Returns what `save` wrote, from the arrays of the opened file.

        Raises:
            MatchingError: they are none.
        """
        spec = SymmetrySpec.from_json(str(file["symmetry"]))
        named = {key: jnp.asarray(file[key]) for key in file if ":" in key}
        gains = {key: named.pop(key) for key in list(named) if key.startswith("gain:")}
        gains = {key.removeprefix("gain:"): gain for key, gain in gains.items()}
        element = read_element(named)
        spec.validate(element)
        return cls(spec, element, gains, str(file["remark"]))


def element_arrays(element: Element) -> dict[str, Any]:
    """Returns an element as named arrays."""
    return {
        f"{field}:{name}": np.asarray(array)
        for field in FIELDS
        for name, array in getattr(element, field).items()
    }


def read_element(arrays: Mapping[str, Any]) -> Element:
    """Returns the element of named arrays.

    Raises:
        MatchingError: a name is unknown.
    """
    held: dict[str, dict[str, Any]] = {field: {} for field in FIELDS}
    for key, array in arrays.items():
        field, _, name = key.partition(":")
        if field not in held:
            raise MatchingError(f"unknown entry {key!r}")
        held[field][name] = array
    return Element(**held)
