"""A mode is one trained parameter tree; two of one network make a pair."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Literal, Protocol, TypeGuard, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from llfc_jax.errors import ModeError, unknown
from llfc_jax.types import Variables


@dataclasses.dataclass(frozen=True)
class ModePair:
    """Two modes of one network under a name.

    Attributes:
        name: of the pair, in tables and figures.
        a: the mode that α multiplies.
        b: the other mode.
        diverged: one line that says which mode diverged in training; None if neither did.
        base: the network that both were fine-tuned from; None if there is none.
    """

    name: str
    a: Variables
    b: Variables
    diverged: str | None = None
    base: Variables | None = None


CurveKind = Literal["line", "bezier", "chain"]


class Way(Protocol):
    """Whatever networks are taken from by a number: a curve, or the points of a plane."""

    @property
    def a(self) -> Variables:
        """Variables of the networks' shapes."""
        ...

    def at(self, alpha: ArrayLike) -> Variables:
        """Returns the network's variables at a number, which may be traced."""
        ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Curve:
    """A way from b to a through weight space: θ(0) = b, θ(1) = a.

    - "line": θ(α) = α a + (1 - α) b;
    - "bezier": θ(α) = α² a + 2 α (1 - α) c + (1 - α)² b, with one bend c;
    - "chain": straight from b to the bend c (at α = ½), and on to a.

    (Garipov et al. 2018, "Loss Surfaces, Mode Connectivity, and Fast Ensembling of DNNs", writes
    t for 1 - α.)

    Attributes:
        a: the mode at α = 1.
        b: the mode at α = 0.
        bend: c; None for a line.
        kind: "line", "bezier" or "chain".
    """

    a: Variables
    b: Variables
    bend: Variables | None = None
    kind: CurveKind = dataclasses.field(default="line", metadata={"static": True})

    def at(self, alpha: ArrayLike) -> Variables:
        """Returns θ(α).

        Args:
            alpha: scalar; may be traced. Outside [0, 1] the formulas are continued.
        """
        if self.bend is None:
            return interpolate(self.a, self.b, alpha)
        if self.kind == "bezier":  # de Casteljau: the ends come back exactly
            late = interpolate(self.a, self.bend, alpha)
            return interpolate(late, interpolate(self.bend, self.b, alpha), alpha)
        alpha = jnp.asarray(alpha)
        late = interpolate(self.a, self.bend, 2 * alpha - 1)
        early = interpolate(self.bend, self.b, 2 * alpha)
        return jax.tree.map(functools.partial(jnp.where, alpha > 0.5), late, early)


def interpolate(a: Variables, b: Variables, alpha: ArrayLike) -> Variables:
    """Returns the point θ_α = α a + (1 - α) b on the straight line between two modes.

    Every floating-point leaf is interpolated, BatchNorm's running statistics included, in float32
    or wider, and comes back in its own type; any other leaf (a counter, say) is a's. At α = 0 and
    α = 1 the ends come back exactly, and an infinity that both modes hold stays (a mask).

    Args:
        a: the mode that alpha multiplies.
        b: the other mode.
        alpha: scalar; may be traced, so it can be vmapped over.
    """
    return jax.tree.map(functools.partial(_interpolate_leaf, alpha), a, b)


def mix(modes: Sequence[Variables], weights: Float[Array, " modes"]) -> Variables:
    """Returns the point Σ_i w_i θ_i of the plane through several modes; see `interpolate`.

    Args:
        modes: of one network.
        weights: barycentric coordinates: one per mode, with the sum 1; may be traced.
    """
    shares = list(jnp.asarray(weights))
    return jax.tree.map(lambda *leaves: _mix_leaves(leaves, shares), *modes)


def _interpolate_leaf(alpha: ArrayLike, p: ArrayLike, q: ArrayLike) -> jax.Array:
    p = jnp.asarray(p)
    weight = jnp.asarray(alpha, _wide(p.dtype))
    return _mix_leaves((p, q), (weight, 1 - weight))


def _mix_leaves(leaves: Sequence[ArrayLike], weights: Sequence[jax.Array]) -> jax.Array:
    first, *others = map(jnp.asarray, leaves)
    if not jnp.issubdtype(first.dtype, jnp.inexact):
        return first
    wide = _wide(first.dtype)
    parts = [
        w.astype(wide) * p.astype(wide) for w, p in zip(weights, (first, *others), strict=True)
    ]
    mixed = functools.reduce(jnp.add, parts).astype(first.dtype)
    if first.dtype.itemsize == 1:  # float8: most of its types have no infinity
        return mixed
    shared = functools.reduce(jnp.logical_and, (first == other for other in others))
    return jnp.where(jnp.isinf(first) & shared, first, mixed)


def _wide(dtype: jnp.dtype) -> jnp.dtype:
    """Returns the type in which leaves of a type are mixed: float32 or wider."""
    exact = dtype.itemsize == 1 or not jnp.issubdtype(dtype, jnp.inexact)
    return jnp.dtype(jnp.float32) if exact else jnp.promote_types(dtype, jnp.float32)


def leaf_paths(variables: Variables) -> tuple[str, ...]:
    """Returns the path of every leaf, parts joined by "/", in tree order."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(variables)
    return tuple(jax.tree_util.keystr(p, simple=True, separator="/") for p, _ in leaves)


def check_curve(curve: Curve) -> None:
    """Checks that a curve is of a known kind, and that its bend is a mode of its ends' network.

    Raises:
        ModeError: it is not, or the bend is missing or one too many.
    """
    kinds = get_args(CurveKind)
    if curve.kind not in kinds:
        raise ModeError(unknown("kind of curve", curve.kind, kinds))
    if (curve.bend is None) != (curve.kind == "line"):
        fit = "has no bend" if curve.kind == "line" else "needs a bend"
        raise ModeError(f"a curve of kind {curve.kind!r} {fit}; see llfc_jax.pair.Curve")
    check_pair(curve.a, curve.b)
    if curve.bend is not None:
        check_pair(curve.a, curve.bend)


def check_pair(a: Variables, b: Variables) -> None:
    """Checks that two trees are modes of one network.

    Raises:
        ModeError: no arrays, other structures, other shapes, or values that are not finite; an
            infinity that both modes hold at the same places (a mask) passes.
    """
    paths, structure = jax.tree_util.tree_flatten_with_path(a)
    if not paths:
        raise ModeError("the modes hold no arrays; pass the networks' variables")
    others, other = jax.tree_util.tree_flatten_with_path(b)
    if structure != other:
        names = [{jax.tree_util.keystr(p, simple=True, separator="/") for p, _ in t}
                 for t in (paths, others)]  # fmt: skip
        odd = sorted(names[0] ^ names[1])[:3]
        detail = f"only one of them has {', '.join(odd)}" if odd else "their containers differ"
        raise ModeError(f"a and b are not modes of one network: {detail}")
    for (path, p), (_, q) in zip(paths, others, strict=True):
        _check_leaves(jax.tree_util.keystr(path, simple=True, separator="/"), p, q)


def _check_leaves(name: str, p: ArrayLike, q: ArrayLike) -> None:
    """Checks one leaf of both modes."""
    if np.shape(p) != np.shape(q):
        raise ModeError(f"a and b differ at {name}: shape {np.shape(p)} against {np.shape(q)}")
    for which, leaf in (("a", p), ("b", q)):
        if not _is_numeric(leaf):
            raise ModeError(
                f"mode {which} holds a {type(leaf).__name__} at {name} that is no array of "
                "numbers; pass the network's variables alone"
            )
        inexact = jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)
        if inexact and not _is_finite(leaf) and not (equal_leaves(p, q) and not _has_nan(leaf)):
            raise ModeError(f"mode {which} holds NaN or infinity at {name}: did it diverge?")


def is_discrete(leaf: ArrayLike) -> bool:
    """Returns whether a leaf is of integers or booleans; random keys are not."""
    dtype = jnp.result_type(leaf)
    return jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.bool_)


def _library(leaf: object) -> Any:
    """Returns NumPy for what lies on one CPU, where it compiles and copies nothing, else JAX."""
    here = not isinstance(leaf, jax.Array) or (
        leaf.is_fully_addressable and [d.platform for d in leaf.devices()] == ["cpu"]
    )
    return np if here else jnp


def _is_finite(leaf: ArrayLike) -> bool:
    library = _library(leaf)
    if jnp.result_type(leaf).itemsize == 1:
        leaf = library.asarray(leaf).astype(np.float32)
    return bool(library.isfinite(leaf).all())


def _has_nan(leaf: ArrayLike) -> bool:
    return bool(_library(leaf).isnan(leaf).any())


def equal_leaves(p: ArrayLike, q: ArrayLike) -> bool:
    """Returns whether two leaves hold the same numbers."""
    return bool((_library(p) if _library(p) is _library(q) else jnp).array_equal(p, q))


def _is_numeric(leaf: Any) -> TypeGuard[ArrayLike]:
    """Returns whether a leaf is a number or an array of numbers (or of random keys)."""
    if not hasattr(leaf, "dtype"):
        return isinstance(leaf, (bool, int, float, complex))
    return getattr(leaf.dtype, "kind", None) not in ("O", "S", "U")
