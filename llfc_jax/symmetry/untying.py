"""Tied weights taken apart: the same function, with an array of its own for each use of a weight.

A language model whose head is its embedding has less symmetry than one with two arrays: the gain of
the norm before the head would have to be moved into the embedding too, which also writes.
"""

import dataclasses
from typing import Any

import jax
import numpy as np

from llfc_jax.errors import MatchingError, unknown
from llfc_jax.frameworks import Network
from llfc_jax.graph import trace
from llfc_jax.graph.trace import Program, is_literal
from llfc_jax.types import Apply, Inputs, Model, Variables


@dataclasses.dataclass(frozen=True)
class Untied:
    """A network whose uses of one weight read arrays of their own.

    Its variables are `{"network": the network's, "copies": [one for each use but the first]}`.

    Attributes:
        apply: the network with the weight tied.
        path: of the weight.
    """

    apply: Apply
    path: str

    def __call__(self, variables: Variables, x: Inputs) -> Any:
        """Runs the network.

        Raises:
            MatchingError: the variables have another number of copies.
        """
        own, copies = variables["network"], list(variables["copies"])
        program = trace(self.apply, own, x).program
        leaf = program.leaves[program.paths.index(self.path)]
        if _uses(program, leaf) != 1 + len(copies):
            raise MatchingError(
                f"{self.path} is read {_uses(program, leaf)} times, and there are {len(copies)} "
                "copies"
            )
        values = dict(program.constants) | dict(
            zip((*program.leaves, *program.inputs), jax.tree.leaves((own, x)), strict=True)
        )
        arrays = iter([values[leaf], *copies])
        for equation in program.equations:
            if leaf in equation.inputs:
                values[leaf] = next(arrays)
            given = [a.val if is_literal(a) else values[a] for a in equation.inputs]
            with jax.named_scope(equation.scope):
                values.update(zip(equation.outputs, equation.bind(*given), strict=True))
        return jax.tree.unflatten(program.output_tree, [values[n] for n in program.outputs])


def untie(
    network: Model, variables: Variables, x: Inputs, path: str
) -> tuple[Untied, dict[str, Any], int]:
    """Gives each use of a weight an array of its own; the function stays the same.

    Both networks of a pair are untied alike: the untied network takes the second's variables as
    `{"network": b, "copies": [b's weight, ...]}`, which `untie` on it returns.

    Args:
        network: a module of any framework, or a function apply(variables, x).
        variables: its variables.
        x: a batch.
        path: the weight, as in "params/embed/embedding".

    Returns:
        The untied network, its variables, and how many parameters it has more.

    Raises:
        MatchingError: there is no such weight, or it is used once.
    """
    view = Network.of(network)
    variables = view.variables(variables)
    program = trace(view.apply, variables, x).program
    if path not in program.paths:
        raise MatchingError(unknown("weight", path, program.paths))
    number = program.paths.index(path)
    uses = _uses(program, program.leaves[number])
    if uses < 2:
        raise MatchingError(f"{path} is read once, so nothing is tied to it")
    array = jax.tree.leaves(variables)[number]
    held = {"network": variables, "copies": [array] * (uses - 1)}
    return Untied(view.apply, path), held, (uses - 1) * int(np.size(array))


def _uses(program: Program, leaf: int) -> int:
    """How many equations read a leaf."""
    return sum(leaf in equation.inputs for equation in program.equations)
