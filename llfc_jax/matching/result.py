"""What every matching method returns."""

import dataclasses

import jax


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Matching:
    """A permutation of B towards A, and how it was found.

    Attributes:
        permutation: index array per group; `spec.apply(permutation, b)` is the matched B.
        objective: the method's own objective at `permutation`; see the method for what it is and
            whether more or less is better. One number per pair.
        history: the objective after each sweep or step, NaN after the last one: [steps].
        sweeps: number of sweeps or steps taken.
        method: name of the method.
    """

    permutation: dict[str, jax.Array]
    objective: jax.Array
    history: jax.Array
    sweeps: jax.Array
    method: str = dataclasses.field(metadata={"static": True})
