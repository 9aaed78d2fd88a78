"""Elementwise equations as functions of one number, evaluated in float64 NumPy.

What an elementwise equation computes does not depend on the shape of its inputs. Evaluated on a few
numbers it can be recognised, without compiling or running anything of the network.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend import core
from jaxtyping import ArrayLike

from llfc_jax.graph.trace import Equation, Jaxpr, body, is_literal

Numbers = np.ndarray  # shape () where all entries are alike, else one number per test point

SHAPE_ONLY = ("broadcast_in_dim", "reshape", "squeeze", "transpose", "expand_dims")
IDENTITIES = ("copy", "copy_p", "stop_gradient", "reduce_precision", "sharding_constraint",
              "optimization_barrier", "pvary")  # fmt: skip
_erf = np.vectorize(math.erf, otypes=[float])
_erfc = np.vectorize(math.erfc, otypes=[float])


def _convert(values: Sequence[Numbers], params: dict[str, Any]) -> Numbers:
    dtype = np.dtype(params["new_dtype"])
    if dtype.kind == "b":
        return values[0] != 0
    return np.trunc(values[0]) if dtype.kind in "iu" else values[0].astype(float)


def _select(values: Sequence[Numbers], _: dict[str, Any]) -> Numbers:
    which, *cases = values
    return np.select([which == i for i in range(len(cases))], np.broadcast_arrays(*cases))


def _power(values: Sequence[Numbers], params: dict[str, Any]) -> Numbers:
    return np.power(values[0], float(params["y"]))


def _of(function: Callable[..., Any]) -> Callable[[Sequence[Numbers], dict[str, Any]], Numbers]:
    return lambda values, _: np.asarray(function(*values))


RULES: dict[str, Callable[[Sequence[Numbers], dict[str, Any]], Numbers]] = {
    "convert_element_type": _convert,
    "select_n": _select,
    "integer_pow": _power,
    "clamp": lambda values, _: np.minimum(np.maximum(values[1], values[0]), values[2]),
    "logistic": lambda values, _: 1 / (1 + np.exp(-values[0])),
    "rsqrt": lambda values, _: 1 / np.sqrt(values[0]),
    "erf": _of(_erf),
    "erfc": _of(_erfc),
    **{name: _of(lambda value: value) for name in IDENTITIES},
    **{
        name: _of(function)
        for name, function in {
            "add": np.add, "add_any": np.add, "sub": np.subtract, "mul": np.multiply,
            "div": np.divide, "max": np.maximum, "min": np.minimum, "neg": np.negative,
            "exp": np.exp, "exp2": np.exp2, "expm1": np.expm1, "log": np.log,
            "log1p": np.log1p, "tanh": np.tanh, "sin": np.sin, "cos": np.cos, "tan": np.tan,
            "sinh": np.sinh, "cosh": np.cosh, "asin": np.arcsin, "acos": np.arccos,
            "atan": np.arctan, "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh,
            "atan2": np.arctan2, "sqrt": np.sqrt, "cbrt": np.cbrt, "abs": np.abs,
            "sign": np.sign, "floor": np.floor, "ceil": np.ceil, "round": np.round,
            "square": np.square, "pow": np.power, "rem": np.fmod, "is_finite": np.isfinite,
            "not": np.logical_not, "and": np.logical_and, "or": np.logical_or,
            "xor": np.logical_xor, "eq": np.equal, "ne": np.not_equal, "lt": np.less,
            "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
        }.items()
    },
}  # fmt: skip


def apply_pointwise(
    eq: Equation | core.JaxprEqn, inputs: Sequence[Numbers | None]
) -> Numbers | None:
    """Evaluate an elementwise equation on numbers; None where it is not elementwise.

    Args:
        eq: an equation of a program or of a jaxpr.
        inputs: what stands at each of its inputs; None where that is no number.
    """
    values = [value for value in inputs if value is not None]
    if len(values) != len(inputs):
        return None
    jaxpr = body(eq)
    if jaxpr is not None:
        return _apply_body(jaxpr, values)
    if eq.primitive.name in SHAPE_ONLY:
        return values[0] if values and values[0].ndim == 0 else None
    rule = RULES.get(eq.primitive.name)
    if rule is None:
        return None
    with np.errstate(all="ignore"):
        return rule(values, eq.params)


def _apply_body(jaxpr: Jaxpr, values: Sequence[Numbers]) -> Numbers | None:
    consts, jaxpr = getattr(jaxpr, "consts", ()), getattr(jaxpr, "jaxpr", jaxpr)
    if len(jaxpr.outvars) != 1 or len(jaxpr.invars) != len(values):
        return None
    env = dict(zip(jaxpr.invars, values, strict=True))
    for var, value in zip(jaxpr.constvars, consts, strict=True):
        if (number := uniform(value)) is None:
            return None
        env[var] = number

    def read(atom: core.Var | core.Literal) -> Numbers:
        if isinstance(atom, core.Var):
            return env[atom]
        number = uniform(atom.val)
        return np.asarray(np.nan) if number is None else number

    for eqn in jaxpr.eqns:
        out = apply_pointwise(eqn, [read(atom) for atom in eqn.invars])
        if out is None or len(eqn.outvars) != 1:
            return None
        env[eqn.outvars[0]] = out
    return read(jaxpr.outvars[0])


def uniform(value: ArrayLike) -> Numbers | None:
    """Returns the one number that an array holds everywhere; None where it holds several."""
    if (
        isinstance(value, Tracer)
        or getattr(getattr(value, "dtype", None), "kind", "f") not in "fiubV"
    ):
        return None
    try:
        array = np.asarray(value)
        array = array.astype(float) if array.dtype.kind in "fV" else array
    except (TypeError, ValueError):
        return None
    if array.size == 0 or (array.size > 1 and not np.all(array == array.flat[0])):
        return None
    return array.reshape(-1)[0].reshape(())


def widen(value: ArrayLike) -> jax.Array:
    """Returns an array in float32, or as it is where it is no float or a wider one."""
    value = jnp.asarray(value)
    if not jnp.issubdtype(value.dtype, jnp.floating) or value.dtype.itemsize >= 4:
        return value
    return value.astype(jnp.float32)


def bind_wide(eq: Equation | core.JaxprEqn, values: Sequence[Any]) -> Any:
    """Evaluate an elementwise equation on arrays of a wider type than it was traced with."""
    jaxpr = body(eq)
    if jaxpr is not None:
        consts, jaxpr = getattr(jaxpr, "consts", ()), getattr(jaxpr, "jaxpr", jaxpr)
        env = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *values], strict=True))
        for eqn in jaxpr.eqns:
            inputs = [a.val if is_literal(a) else env[a] for a in eqn.invars]
            env[eqn.outvars[0]] = bind_wide(eqn, inputs)
        (out,) = jaxpr.outvars
        return out.val if is_literal(out) else env[out]
    floats = [v for v in map(jnp.asarray, values) if jnp.issubdtype(v.dtype, jnp.floating)]
    if eq.primitive.name == "convert_element_type":
        target = eq.params["new_dtype"]
        narrow = floats and jnp.issubdtype(target, jnp.floating)
        return widen(values[0]) if narrow else jnp.asarray(values[0]).astype(target)
    if not floats:
        return eq.primitive.bind(*values, **eq.params)
    widest = jnp.result_type(jnp.float32, *floats)
    values = [v.astype(widest) if jnp.issubdtype(v.dtype, jnp.floating) else v
              for v in map(jnp.asarray, values)]  # fmt: skip
    return eq.primitive.bind(*values, **eq.params)
