"""One view of every network: arrays in a tree, and a pure function of them.

`Network.of` takes a network as its framework writes it. Which framework that is, is read off the
object's classes, so that none is imported that the user has not imported already.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

from llfc_jax.errors import GraphError, ModeError
from llfc_jax.graph import Apply


def _same(value: Any) -> Any:
    return value


@dataclasses.dataclass(frozen=True)
class Network:
    """A network as everything here takes it.

    Attributes:
        apply: `apply(variables, x) -> logits`, as the network runs in evaluation.
        variables: a mode in its framework's form (a model, a tree) -> a tree of arrays.
        model: a tree of arrays -> a mode in its framework's form; undoes `variables`.
        framework: what it was made from.

    Example:
        >>> import numpy as np
        >>> Network.of(lambda weights, x: x @ weights).apply(np.ones((2, 1)), np.ones((3, 2))).shape
        (3, 1)
    """

    apply: Apply
    variables: Callable[[Any], Any] = _same
    model: Callable[[Any], Any] = _same
    framework: str = "function"

    @classmethod
    def of(cls, network: Any, **call: Any) -> "Network":
        """The view of a network of any framework.

        - Flax Linen module: its modes are variables, `{"params": ..., ...}`.
        - Flax NNX module: its modes are such modules, or their states. Dropout is off, and
          BatchNorm uses its running statistics.
        - Equinox module, written for one sample as is usual there: its modes are such modules.
          Inference mode is on.
        - Haiku's `transform` and whatever else has `init` and `apply`: its modes are parameters,
          or pairs (parameters, state) where there is state.
        - any function `apply(variables, x)`.

        Args:
            network: the network.
            **call: passed on to it at every call, as in `train=False`.

        Raises:
            GraphError: it is none of these.
        """
        if isinstance(network, cls):
            return network
        for module, make in (("flax.linen", _linen), ("flax.nnx", _nnx), ("equinox", _equinox)):
            if _is_module(network, module):
                return make(network, call)
        if hasattr(network, "init") and hasattr(network, "apply"):
            return _transformed(network, call)
        if callable(network):
            return cls(functools.partial(network, **call) if call else network)
        raise GraphError(
            f"a {type(network).__name__} is no network: pass a Linen, NNX or Equinox module, a "
            "Haiku transform, or a function apply(variables, x)"
        )


def _is_module(network: Any, package: str) -> bool:
    return any(
        kind.__name__ == "Module" and kind.__module__.startswith(package)
        for kind in type(network).__mro__
    )


def _linen(module: Any, call: dict[str, Any]) -> Network:
    def variables(mode: Any) -> Any:
        if not hasattr(mode, "keys") or "params" not in mode:
            raise ModeError(
                "a mode of a Linen network is its variables, {'params': ...}, as module.init "
                f"returns them, not a {type(mode).__name__} without 'params'"
            )
        return mode

    apply = functools.partial(module.apply, **call) if call else module.apply
    return Network(apply, variables, framework="Flax Linen")


def _nnx(model: Any, call: dict[str, Any]) -> Network:
    from flax import nnx

    def split(model: Any) -> Any:
        model = nnx.clone(model)
        model.eval()
        return nnx.split(model, nnx.Not(nnx.RngState), ...)

    graphdef, _, rest = split(model)

    def variables(mode: Any) -> Any:
        if isinstance(mode, nnx.Module):
            return split(mode)[1]
        return (
            nnx.filter_state(mode, nnx.Not(nnx.RngState)) if isinstance(mode, nnx.State) else mode
        )

    def apply(state: Any, x: Any) -> Any:
        return nnx.merge(graphdef, state, rest)(x, **call)

    def back(state: Any) -> Any:
        training, _, others = nnx.split(model, nnx.Not(nnx.RngState), ...)
        return nnx.merge(training, state, others)

    return Network(apply, variables, back, "Flax NNX")


def _equinox(model: Any, call: dict[str, Any]) -> Network:
    import equinox as eqx
    import jax

    _, static = eqx.partition(eqx.nn.inference_mode(model), eqx.is_array)

    def variables(mode: Any) -> Any:
        return eqx.filter(eqx.nn.inference_mode(mode), eqx.is_array)

    def apply(arrays: Any, x: Any) -> Any:
        return jax.vmap(lambda one: eqx.combine(arrays, static)(one, **call))(x)

    def back(arrays: Any) -> Any:
        return eqx.nn.inference_mode(eqx.combine(arrays, static), value=False)

    return Network(apply, variables, back, "Equinox")


def _transformed(network: Any, call: dict[str, Any]) -> Network:
    names = set(inspect.signature(network.apply).parameters)
    rng = (None,) if names & {"rng", "key", "rng_key"} else ()
    if "state" not in names:
        return Network(lambda v, x: network.apply(v, *rng, x, **call), framework="Haiku")
    return Network(
        lambda v, x: network.apply(v[0], v[1], *rng, x, **call)[0],
        framework="Haiku with state",
    )
