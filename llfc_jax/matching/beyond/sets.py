"""Parts of a network's symmetry, by name: what a matching method may move."""

import dataclasses

from llfc_jax.errors import MatchingError, unknown
from llfc_jax.symmetry.beyond.element import Action
from llfc_jax.symmetry.beyond.spec import SymmetrySpec

PERMUTATION = "permutation"
PARTS = {
    "heads": "matrices inside the heads of attention and other groups of groups",
    "stream": "matrices of whole axes, as of the residual stream",
    "scales": "positive scales of single units",
    "orthogonal": "matrices are orthogonal only",
    "full": "all of these but the last",
}


def parse_symmetry(symmetry: str) -> frozenset[str]:
    """Returns the parts that a name such as "heads+stream" asks for; none for "permutation".

    Raises:
        MatchingError: an unknown part.
    """
    parts = frozenset(symmetry.split("+"))
    for part in parts:
        if part != PERMUTATION and part not in PARTS:
            raise MatchingError(unknown("part of a symmetry", part, (PERMUTATION, *PARTS)))
    if "full" in parts or parts == {"orthogonal"}:
        parts |= {"heads", "stream", *(["scales"] if "full" in parts else [])}
    return parts - {PERMUTATION, "full"}


def restrict(spec: SymmetrySpec, symmetry: str) -> SymmetrySpec:
    """Returns a spec that allows only the parts of this name, and permutations."""
    parts = parse_symmetry(symmetry)
    parents = spec.permutations.parents

    def one(action: Action) -> Action:
        part = "heads" if action.group in parents else "stream"
        matrix = action.matrix if part in parts else "none"
        if matrix == "any" and "orthogonal" in parts:
            matrix = "orthogonal"
        scales = action.scales if "scales" in parts else 0
        return dataclasses.replace(action, matrix=matrix, scales=scales, signs=0)

    return dataclasses.replace(spec, actions=tuple(map(one, spec.actions)))
