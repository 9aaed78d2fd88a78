"""What every matching method returns."""

import dataclasses

import jax
from jaxtyping import Array, Float, Int

from llfc_jax.symmetry.beyond.transport import Transport


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Match:
    """A permutation of B towards A, and how it was found.

    Attributes:
        permutation: index array per group; `spec.apply(permutation, b)` is the matched B.
        objective: the method's objective at `permutation`; see the method for what it is and
            whether more or less is better.
        history: the objective after each sweep or step (NaN after the last one, if compiled).
        sweeps: number of sweeps or steps taken.
        method: name of the method.
        transport: where more than permutations was matched, what takes B to A; `permutation` is
            a part of it, and `transport.apply(b)` is the matched B.
    """

    permutation: dict[str, jax.Array]
    objective: Float[Array, ""]
    history: Float[Array, " steps"]
    sweeps: Int[Array, ""]
    method: str = dataclasses.field(metadata={"static": True})
    transport: Transport | None = None
