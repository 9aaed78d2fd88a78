"""Traces that were made before, by network and shapes.

A network is traced once in a process for each shape of its arguments. What is kept goes when the
network does; of one network the latest few are kept.
"""

import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import jax
from jax.core import Tracer
from jax.extend import core

from llfc_jax.graph.trace import Apply, Equation, Program, abstract, subjaxprs
from llfc_jax.types import Inputs, Variables

T = TypeVar("T")
KEPT = 8  # shapes of one network

_kept: "weakref.WeakKeyDictionary[Any, OrderedDict[Any, Any]]" = weakref.WeakKeyDictionary()


def trace_once(
    make: Callable[[Apply, Any, Any], T],
    program_of: Callable[[T], Program],
    apply: Apply,
    variables: Variables,
    x: Inputs,
) -> T:
    """Returns `make(apply, variables, x)`, or what it gave for the same network and shapes.

    Args:
        make: traces a network.
        program_of: the flat trace in what it gives.
        apply: the network.
        variables: its variables, or their shapes.
        x: a batch, or its shape.
    """
    owner = getattr(apply, "__self__", apply)
    try:
        key = (getattr(apply, "__func__", None), *_shapes(variables, x), *_settings())
        kept = _kept.setdefault(owner, OrderedDict())
        if key in kept:
            kept.move_to_end(key)
            return kept[key]
    except TypeError:  # a network that can be neither hashed nor held weakly
        return make(apply, variables, x)
    made = make(apply, variables, x)
    if not _holds_tracers(program_of(made)):
        kept[key] = made
        while len(kept) > KEPT:
            kept.popitem(last=False)
    return made


def _shapes(variables: Variables, x: Inputs) -> tuple[Any, ...]:
    leaves, structure = jax.tree.flatten((abstract(variables), abstract(x)))
    weak = tuple(getattr(leaf, "weak_type", False) for leaf in jax.tree.leaves((variables, x)))
    return structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves), weak


def _settings() -> tuple[Any, ...]:
    """Returns the settings of JAX that a trace depends on."""
    config = jax.config
    return (
        config.jax_enable_x64,  # pyright: ignore[reportAttributeAccessIssue]
        config.jax_default_matmul_precision,  # pyright: ignore[reportAttributeAccessIssue]
        config.jax_numpy_dtype_promotion,  # pyright: ignore[reportAttributeAccessIssue]
        jax.default_backend(),
    )


def _holds_tracers(program: Program) -> bool:
    """Whether a trace holds values of a function that is being traced itself."""
    if any(isinstance(value, Tracer) for value in program.constants.values()):
        return True
    return any(map(_inner_tracers, program.equations))


def _inner_tracers(equation: Equation | core.JaxprEqn) -> bool:
    def of(jaxprs: Iterable[Any]) -> bool:
        return any(
            any(isinstance(value, Tracer) for value in getattr(jaxpr, "consts", ()))
            or any(_inner_tracers(eqn) for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns)
            for jaxpr in jaxprs
        )

    return of(subjaxprs(equation))
