"""A network as its trace: a flat list of equations in which every value has a number.

`jax.make_jaxpr` turns any `apply(variables, x)` into equations. Here nested calls are inlined, so
that each weight, each ReLU and each feature is a value of one flat list, whichever framework
wrote the network:

- `jit`, `remat`, `closed_call` and their kin: always inlined.
- `custom_jvp`, `custom_vjp`: kept whole, with their derivative rule, where no matrix product
  stands inside (`jax.nn.relu`, softmax, ...); inlined, and then differentiated by their body,
  where one does.
- `scan`, `while`, `cond`: kept whole. They evaluate and differentiate as ever, but no site inside
  them can be read or written: `Graph.opaque` names them, and `Graph.explain` says so.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias, TypeGuard

import jax
import numpy as np
from jax.extend import core
from jaxtyping import ArrayLike, PyTree

from llfc_jax.errors import GraphError
from llfc_jax.graph import convolutions
from llfc_jax.pair import leaf_paths
from llfc_jax.types import AnyArray, Apply, Inputs, Variables

Jaxpr: TypeAlias = core.Jaxpr | core.ClosedJaxpr
Atom: TypeAlias = int | core.Literal
"""An equation's input: the number of a value, or a literal."""

CALLS = ("jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint")
CUSTOM = ("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")
CONTROL = ("scan", "while", "cond")
LINEAR = ("dot_general", "conv_general_dilated")


@dataclasses.dataclass(frozen=True, eq=False)
class Equation:
    """One primitive applied to values.

    Attributes:
        primitive: the JAX primitive.
        params: its parameters.
        inputs: number of the value, or the literal, at each input.
        outputs: number of the value at each output.
        scope: module path in which it was traced, from the name stack ("" where none is written).
    """

    primitive: core.Primitive
    params: dict[str, Any]
    inputs: tuple[Any, ...]
    outputs: tuple[int, ...]
    scope: str

    @property
    def name(self) -> str:
        """Name of the primitive."""
        return self.primitive.name

    def bind(self, *values: ArrayLike) -> tuple[Any, ...]:
        """Evaluates this one equation on other values of the same shapes, as a tuple of outputs."""
        return convolutions.bind(self.primitive, self.params, values)


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """The flat trace, before its sites are named.

    Attributes:
        equations: all equations, in an order in which they can be evaluated.
        avals: shape and dtype of every value, by its number.
        leaves: numbers of the values that are the leaves of `variables`, in tree order.
        paths: path of each leaf, as in `params/Dense_0/kernel`.
        inputs: numbers of the leaves of `x`, in tree order.
        outputs: numbers of the leaves of what the network returns, in tree order.
        output_tree: their tree.
        constants: arrays that the network closes over, by number.
    """

    equations: tuple[Equation, ...]
    avals: dict[int, Any]
    leaves: tuple[int, ...]
    paths: tuple[str, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    output_tree: Any
    constants: dict[int, Any]

    @property
    def samples(self) -> int:
        """Number of samples in the traced batch."""
        return self.avals[self.inputs[0]].shape[0]


def is_literal(atom: object) -> TypeGuard[core.Literal]:
    """Returns whether an equation's input is a literal rather than the number of a value."""
    return isinstance(atom, core.Literal)


def body(equation: "Equation | core.JaxprEqn") -> Jaxpr | None:
    """Returns the jaxpr that a call equation runs, or None where it is no call."""
    if equation.primitive.name in CALLS + CUSTOM:
        for name in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
            if name in equation.params:
                return equation.params[name]
    return None


def subjaxprs(equation: "Equation | core.JaxprEqn") -> Iterator[Any]:
    """Yields every jaxpr among an equation's parameters, whatever the primitive."""
    for value in equation.params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if hasattr(item, "eqns") or hasattr(item, "jaxpr"):
                yield item


def count_linear(jaxpr: Jaxpr) -> int:
    """Returns number of matrix products and convolutions in a jaxpr, nested ones included."""
    return sum(
        (e.primitive.name in LINEAR) + sum(map(count_linear, subjaxprs(e)))
        for e in getattr(jaxpr, "jaxpr", jaxpr).eqns
    )


def strip_transforms(scope: str) -> str:
    """Returns a name stack without the transformations in it: `vmap(Net)/a` is `Net/a`."""
    parts = (part.rsplit("(", 1)[-1].rstrip(")") for part in scope.split("/"))
    return "/".join(part for part in parts if part)


class _Flattener:
    """Numbers the values and appends the equations of nested jaxprs to one list."""

    def __init__(self) -> None:
        self.avals: dict[int, Any] = {}
        self.equations: list[Equation] = []
        self.constants: dict[int, Any] = {}

    def new(self, aval: object) -> int:
        number = len(self.avals)
        self.avals[number] = aval
        return number

    def constant(self, value: AnyArray) -> int:
        number = self.new(jax.typeof(value))
        self.constants[number] = value
        return number

    def inline(self, jaxpr: Jaxpr, inputs: Sequence[Atom], scope: str) -> list[Any]:
        """Appends a jaxpr's equations; `inputs` and what it returns are numbers or literals."""
        consts, jaxpr = getattr(jaxpr, "consts", ()), getattr(jaxpr, "jaxpr", jaxpr)
        env = dict(zip(jaxpr.invars, inputs, strict=True))
        env |= {v: self.constant(c) for v, c in zip(jaxpr.constvars, consts, strict=True)}

        def read(atom: core.Var | core.Literal) -> Atom:
            return atom if isinstance(atom, core.Literal) else env[atom]

        for eqn in jaxpr.eqns:
            own = "/".join(p for p in (scope, str(eqn.source_info.name_stack)) if p)
            inner = body(eqn)
            if inner is not None and (eqn.primitive.name not in CUSTOM or count_linear(inner)):
                outputs = self.inline(inner, [read(a) for a in eqn.invars], own)
                env |= dict(zip(eqn.outvars, outputs, strict=True))
                continue
            numbers = tuple(self.new(v.aval) for v in eqn.outvars)
            env |= dict(zip(eqn.outvars, numbers, strict=True))
            inputs_ = tuple(read(a) for a in eqn.invars)
            self.equations.append(
                Equation(eqn.primitive, dict(eqn.params), inputs_, numbers, strip_transforms(own))
            )
        return [read(a) for a in jaxpr.outvars]


def abstract(tree: PyTree) -> Any:
    """Returns the tree with each array replaced by its shape and dtype.

    Raises:
        GraphError: a leaf is no array or number.
    """
    return jax.tree_util.tree_map_with_path(_abstract_leaf, tree)


def _abstract_leaf(path: jax.tree_util.KeyPath, leaf: Any) -> jax.ShapeDtypeStruct:
    if not hasattr(leaf, "dtype"):
        if not isinstance(leaf, (bool, int, float, complex)):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise GraphError(
                f"variables hold a {type(leaf).__name__} at {name or 'their root'!r}, which is "
                "no array; keep what is not an array out of the tree (closed over by apply)"
            )
        leaf = np.asarray(leaf, jax.dtypes.canonicalize_dtype(type(leaf)))
    # As JAX would take it: without x64, NumPy's float64 comes in as float32.
    dtype = jax.dtypes.canonicalize_dtype(leaf.dtype, allow_extended_dtype=True)
    return jax.ShapeDtypeStruct(np.shape(leaf), dtype)


def _words(shapes: Sequence[tuple[int, ...]]) -> str:
    return str(shapes[0]) if len(shapes) == 1 else ", ".join(map(str, shapes)) or "none"


def flatten(apply: Apply, variables: Variables, x: Inputs) -> Program:
    """Traces `apply(variables, x)` for the shapes of its arguments and inlines its calls.

    Raises:
        GraphError: `x` holds no samples, `apply` fails on it, or returns no array.
    """
    variables, x = abstract(variables), abstract(x)
    shapes = [leaf.shape for leaf in jax.tree.leaves(x)]
    if not shapes or () in shapes or len({shape[0] for shape in shapes}) > 1:
        raise GraphError(
            "x must be an array, or a tree of arrays, with the samples along the first axis; its "
            f"shapes are {_words(shapes)}"
        )
    try:
        closed, returned = jax.make_jaxpr(functools.partial(apply), return_shape=True)(variables, x)
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if isinstance(error, TypeError) and "missing" in first:
            first += (
                "; pass it to Network.of(network, name=value), or wrap the network: "
                "lambda v, x: apply(v, x, ...)"
            )
        elif any(word in first.lower() for word in ("rng", "random key", "`key`")):
            first += "; run it without randomness: Network.of(network, is_training=False) or such"
        elif "Could not find parameter" in first:  # Flax's own words
            first += (
                "; are these its own variables? PyTorch's weights need "
                "llfc_jax.convert.from_torch first"
            )
        raise GraphError(
            f"the network does not accept x of shape {_words(shapes)}: {first}"
        ) from error
    if not closed.jaxpr.outvars:
        raise GraphError("apply returns no array; it must return the network's output")
    flat = _Flattener()
    inputs = [flat.new(v.aval) for v in closed.jaxpr.invars]
    outputs = flat.inline(closed, inputs, "")
    outputs = [flat.constant(out.val) if is_literal(out) else out for out in outputs]
    leaves = len(jax.tree.leaves(variables))
    return Program(
        tuple(flat.equations),
        flat.avals,
        tuple(inputs[:leaves]),
        leaf_paths(variables),
        tuple(inputs[leaves:]),
        tuple(outputs),
        jax.tree.structure(returned),
        flat.constants,
    )
