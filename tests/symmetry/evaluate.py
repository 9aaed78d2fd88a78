"""Evaluates a traced program in NumPy, in float64, without compiling it.

The primitives that small programs are full of are written here in NumPy, independently of JAX;
others run in JAX one by one. Loops and branches run in Python.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.extend import core
from scipy import special

BODIES = ("jaxpr", "call_jaxpr", "fun_jaxpr")

ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "abs": np.abs, "add": np.add, "add_any": np.add, "and": np.bitwise_and, "atan2": np.arctan2,
    "cbrt": np.cbrt, "ceil": np.ceil, "cos": np.cos, "cosh": np.cosh, "div": np.divide,
    "eq": np.equal, "erf": special.erf, "erfc": special.erfc, "exp": np.exp, "exp2": np.exp2,
    "expm1": np.expm1, "floor": np.floor, "ge": np.greater_equal, "gt": np.greater,
    "is_finite": np.isfinite, "le": np.less_equal, "log": np.log, "log1p": np.log1p,
    "logistic": special.expit, "lt": np.less, "max": np.maximum, "min": np.minimum,
    "mul": np.multiply, "ne": np.not_equal, "neg": np.negative, "not": np.invert,
    "or": np.bitwise_or, "pow": np.power, "rsqrt": lambda x: 1 / np.sqrt(x), "sign": np.sign,
    "sin": np.sin, "sinh": np.sinh, "sqrt": np.sqrt, "square": np.square, "sub": np.subtract,
    "tan": np.tan, "tanh": np.tanh, "stop_gradient": np.asarray, "copy": np.asarray,
    "copy_p": np.asarray, "name": np.asarray, "reduce_precision": np.asarray,
}  # fmt: skip
LIMITS = {"tanh": (-1, 1), "logistic": (0, 1), "erf": (-1, 1), "erfc": (0, 2), "exp": (0, np.inf)}
REDUCE: dict[str, Callable[..., Any]] = {
    "reduce_sum": np.sum, "reduce_max": np.max, "reduce_min": np.min, "reduce_prod": np.prod,
    "reduce_and": np.all, "reduce_or": np.any,
}  # fmt: skip
CUMULATIVE = {
    "cumsum": np.cumsum, "cumprod": np.cumprod, "cummax": np.maximum.accumulate,
    "cummin": np.minimum.accumulate,
}  # fmt: skip


def evaluate(jaxpr: Any, inputs: Any) -> list[Any]:
    """Returns the outputs of a closed jaxpr for these inputs."""
    consts, inner = getattr(jaxpr, "consts", ()), getattr(jaxpr, "jaxpr", jaxpr)
    env = dict(zip(inner.invars, inputs, strict=True))
    env |= {v: np.asarray(c) for v, c in zip(inner.constvars, consts, strict=True)}

    def value(atom: Any) -> Any:
        return np.asarray(atom.val) if isinstance(atom, core.Literal) else env[atom]

    for eqn in inner.eqns:
        found = _equation(eqn, [value(a) for a in eqn.invars])
        env |= dict(zip(eqn.outvars, found, strict=True))
    return [value(a) for a in inner.outvars]


def saturates(jaxpr: Any, inputs: Any) -> bool:
    """Returns whether a function came to its limit, where numbers that differ become equal."""
    met: list[str] = []
    with _watched(met):
        evaluate(jaxpr, inputs)
    return bool(met)


@contextlib.contextmanager
def _watched(met: list[str]) -> Iterator[None]:
    plain = dict(ELEMENTWISE)

    def watch(name: str) -> Callable[..., Any]:
        def function(x: Any) -> Any:
            found = plain[name](x)
            if (np.isin(found, LIMITS[name]) & np.isfinite(x)).any():
                met.append(name)
            return found

        return function

    ELEMENTWISE.update({name: watch(name) for name in LIMITS})
    try:
        yield
    finally:
        ELEMENTWISE.update(plain)


def _equation(eqn: Any, inputs: list[Any]) -> list[Any]:
    name, params = eqn.primitive.name, eqn.params
    if name in CONTROL:
        return CONTROL[name](params, inputs)
    for key in BODIES:
        if key in params:
            return evaluate(params[key], inputs)
    if name in ELEMENTWISE:
        found = ELEMENTWISE[name](*inputs)
        return [np.asarray(found, eqn.outvars[0].aval.dtype)]
    if name in REDUCE:
        return [REDUCE[name](inputs[0], axis=tuple(params["axes"]))]
    if name in CUMULATIVE and not params["reverse"]:
        return [CUMULATIVE[name](inputs[0], axis=params["axis"])]
    if name in LAYOUT:
        return [LAYOUT[name](params, *inputs)]
    found = eqn.primitive.bind(*map(jax.numpy.asarray, inputs), **params)
    outputs = found if eqn.primitive.multiple_results else [found]
    keys = jax.dtypes.prng_key
    return [x if jax.numpy.issubdtype(x.dtype, keys) else np.asarray(x) for x in outputs]


def _dot(params: Any, lhs: Any, rhs: Any) -> Any:
    (contract, batch), letters = params["dimension_numbers"], iter("abcdefghijklmnopqrstuvwxyz")
    left, right = ({} for _ in range(2))
    for i, j in zip(*batch, strict=True):
        left[i] = right[j] = next(letters)
    tied = list(left.values())
    for i, j in zip(*contract, strict=True):
        left[i] = right[j] = next(letters)
    free = []
    for held, array in ((left, lhs), (right, rhs)):
        for i in range(array.ndim):
            if i not in held:
                held[i] = next(letters)
                free.append(held[i])
    words = ["".join(held[i] for i in range(len(held))) for held in (left, right)]
    return np.einsum(f"{words[0]},{words[1]}->{''.join([*tied, *free])}", lhs, rhs)


def _broadcast(params: Any, array: Any) -> Any:
    shape = [1] * len(params["shape"])
    for n, place in zip(array.shape, params["broadcast_dimensions"], strict=True):
        shape[place] = n
    return np.broadcast_to(array.reshape(shape), params["shape"])


def _slice(params: Any, array: Any) -> Any:
    strides = params["strides"] or (1,) * array.ndim
    bounds = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    return array[tuple(itertools.starmap(slice, bounds))]


def _select(_: Any, which: Any, *cases: Any) -> Any:
    return np.choose(np.asarray(which, int), cases) if which.ndim else cases[int(which)]


def _iota(params: Any) -> Any:
    shape = [1] * len(params["shape"])
    shape[params["dimension"]] = -1
    along = np.arange(params["shape"][params["dimension"]], dtype=params["dtype"])
    return np.broadcast_to(along.reshape(shape), params["shape"])


LAYOUT: dict[str, Callable[..., Any]] = {
    "dot_general": _dot,
    "broadcast_in_dim": _broadcast,
    "slice": _slice,
    "select_n": _select,
    "iota": _iota,
    "reshape": lambda params, x: x.reshape(params["new_sizes"]),
    "transpose": lambda params, x: x.transpose(params["permutation"]),
    "squeeze": lambda params, x: x.squeeze(tuple(params["dimensions"])),
    "concatenate": lambda params, *xs: np.concatenate(xs, params["dimension"]),
    "stack": lambda params, *xs: np.stack(xs, params["axis"]),
    "tile": lambda params, x: np.tile(x, params["reps"]),
    "rev": lambda params, x: np.flip(x, params["dimensions"]),
    "integer_pow": lambda params, x: x ** params["y"],
    "convert_element_type": lambda params, x: x.astype(params["new_dtype"]),
    "argmax": lambda params, x: np.argmax(x, params["axes"][0]).astype(params["index_dtype"]),
    "argmin": lambda params, x: np.argmin(x, params["axes"][0]).astype(params["index_dtype"]),
}


def _scan(params: Any, inputs: list[Any]) -> list[Any]:
    cut, kept = params["num_consts"], params["num_consts"] + params["num_carry"]
    consts, carry, xs = inputs[:cut], inputs[cut:kept], inputs[kept:]
    rows: dict[int, list[Any]] = {}
    for i in list(range(params["length"]))[:: -1 if params["reverse"] else 1]:
        out = evaluate(params["jaxpr"], [*consts, *carry, *(x[i] for x in xs)])
        carry, rows[i] = out[: len(carry)], out[len(carry) :]
    columns = zip(*(rows[i] for i in sorted(rows)), strict=True)
    return [*carry, *(np.stack(column) for column in columns)]


def _while(params: Any, inputs: list[Any]) -> list[Any]:
    test, cut = params["cond_nconsts"], params["body_nconsts"]
    held, consts, carry = inputs[:test], inputs[test : test + cut], inputs[test + cut :]
    while evaluate(params["cond_jaxpr"], [*held, *carry])[0]:
        carry = evaluate(params["body_jaxpr"], [*consts, *carry])
    return carry


def _cond(params: Any, inputs: list[Any]) -> list[Any]:
    branches = params["branches"]
    return evaluate(branches[int(np.clip(int(inputs[0]), 0, len(branches) - 1))], inputs[1:])


CONTROL = {"scan": _scan, "while": _while, "cond": _cond}
