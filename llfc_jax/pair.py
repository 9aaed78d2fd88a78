"""A mode is one trained parameter tree; two of one network make a pair."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llfc_jax.errors import ModeError


@dataclasses.dataclass(frozen=True)
class ModePair:
    """Two modes of one network under a name.

    Attributes:
        name: of the pair, in tables and figures.
        a: the mode that α multiplies.
        b: the other mode.
        diverged: one line that says which mode diverged in training; None if neither did.
    """

    name: str
    a: Any
    b: Any
    diverged: str | None = None


def interpolate(a: Any, b: Any, alpha: Any) -> Any:
    """The point θ_α = α a + (1 - α) b on the straight line between two modes.

    Every floating-point leaf is interpolated, BatchNorm's running statistics included; any other
    leaf (a counter, say) is a's. At α = 0 and α = 1 the ends come back exactly.

    Args:
        a: the mode that alpha multiplies.
        b: the other mode.
        alpha: scalar; may be traced, so it can be vmapped over.
    """

    def one(p: Any, q: Any) -> Any:
        p, q = jnp.asarray(p), jnp.asarray(q)
        if not jnp.issubdtype(p.dtype, jnp.inexact):
            return p
        wide = jnp.promote_types(p.dtype, jnp.float32) if p.dtype.itemsize > 1 else jnp.float32
        weight = jnp.asarray(alpha, wide)
        mixed = weight * p.astype(wide) + (1 - weight) * q.astype(wide)
        return mixed.astype(p.dtype)

    return jax.tree.map(one, a, b)


def check_pair(a: Any, b: Any) -> None:
    """See that two trees are modes of one network.

    Raises:
        ModeError: no arrays, other structures, other shapes, or values that are not finite.
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
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if np.shape(p) != np.shape(q):
            raise ModeError(f"a and b differ at {name}: shape {np.shape(p)} against {np.shape(q)}")
        for which, leaf in (("a", p), ("b", q)):
            if not _numeric(leaf):
                raise ModeError(
                    f"mode {which} holds a {type(leaf).__name__} at {name} that is no array of "
                    "numbers; pass the network's variables alone"
                )
            if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) and not _finite(leaf):
                raise ModeError(f"mode {which} holds NaN or infinity at {name}: did it diverge?")


def _finite(leaf: Any) -> bool:
    """Whether all entries are; on a CPU NumPy looks at them where they lie and compiles nothing."""
    here = not isinstance(leaf, jax.Array) or (
        leaf.is_fully_addressable and all(d.platform == "cpu" for d in leaf.devices())
    )
    return bool((np if here else jnp).isfinite(leaf).all())


def _numeric(leaf: Any) -> bool:
    """Whether a leaf is a number or an array of numbers (or of random keys)."""
    if not hasattr(leaf, "dtype"):
        return isinstance(leaf, (bool, int, float, complex))
    return getattr(leaf.dtype, "kind", None) not in ("O", "S", "U")
