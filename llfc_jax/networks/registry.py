"""The registry of networks, and how one is built and initialised.

To add a network, write a file like `mlp.py` with `@network(name)` and import it in `__init__.py`.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.core import Tracer
from jax.typing import DTypeLike
from jaxtyping import Array, Key

from llfc_jax import fields
from llfc_jax.errors import ConfigError, LlfcError, unknown
from llfc_jax.parallel import quick
from llfc_jax.types import Variables

NETWORKS: dict[str, type[nn.Module]] = {}
M = TypeVar("M", bound=type[nn.Module])


def network(name: str) -> Callable[[M], M]:
    """Registers a Linen module as the network of this name."""

    def register(cls: M) -> M:
        NETWORKS[name] = cls
        return cls

    return register


def build(name: str, classes: int | None = None, /, **values: object) -> nn.Module:
    """Builds a network by name.

    Args:
        name: one of `NETWORKS`.
        classes: number of logits; may also be given among the fields.
        **values: the module's own fields, such as `widths=(512, 512)`; lists pass as tuples.

    Raises:
        ConfigError: for an unknown name or field, or a value of the wrong type.

    Examples:
        >>> build("mlp", 10, widths=(32, 32)).widths
        (32, 32)
    """
    if classes is not None:
        if values.get("classes", classes) != classes:
            raise ConfigError(
                f"network {name!r}: the data has {classes} classes; leave the field 'classes' out"
            )
        values["classes"] = classes
    if name not in NETWORKS:
        raise ConfigError(unknown("network", name, NETWORKS))
    return fields.make(NETWORKS[name], f"network {name!r}", values)


def init(
    module: nn.Module, key: Key[Array, ""], x: jax.Array | np.ndarray | jax.ShapeDtypeStruct
) -> dict[str, Variables]:
    """Draws fresh variables of a module, float32: {'params': ..., 'batch_stats': ...}.

    The shapes are checked by an abstract run first, so a network that does not fit its data fails
    at once and in one line.

    Args:
        module: a Linen module called as `module(x, train=False)`.
        key: a typed key (`jax.random.key`).
        x: a batch of inputs [n, h, w, c] (or [n, d]), or its shape; only the shape counts.

    Raises:
        DataError: if the images are too small for the network.
        ConfigError: if the module cannot take an input of this shape for another reason.
    """
    shape = jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype)
    try:
        jax.eval_shape(module.init, key, shape)
    except LlfcError:
        raise
    except Exception as error:  # whatever Flax or XLA says, the user needs the one line
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"{type(module).__name__} cannot take inputs of shape {tuple(x.shape[1:])}: {reason}"
        ) from error
    traced = isinstance(key, Tracer)
    return dict((_init if traced else _compiled())(module, key, shape.shape, shape.dtype))


def _init(module: nn.Module, key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike) -> Variables:
    return module.init(key, jnp.zeros(shape, jax.dtypes.canonicalize_dtype(dtype)))


@cache
def _compiled() -> Callable[..., Any]:
    """Returns `_init` as one compiled program.

    XLA:CPU needs most of a second to optimise the random numbers of each parameter (12 s for a
    ResNet-18), and a sixth of that if it does not try; they are drawn only once.
    """
    return jax.jit(_init, static_argnums=(0, 2, 3), compiler_options=quick.compiler_options())


def count(variables: Mapping[str, Variables]) -> int:
    """Counts the trainable parameters; BatchNorm's running statistics are not among them."""
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
