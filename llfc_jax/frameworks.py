"""One view of every network: arrays in a tree, and a pure function of them.

`Network.of` takes a network as its framework writes it. Which framework that is, is read off the
object's classes, so that none is imported that the user has not imported already. Every network
runs in evaluation: no dropout, running statistics as they are. The functions here are small
objects that compare equal where they compute the same, so that programs compiled for one serve the
next, and that pickle where the network does.
"""

import dataclasses
import functools
import inspect
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard, TypeVar

import jax

from llfc_jax import checkpoints
from llfc_jax.errors import GraphError, ModeError
from llfc_jax.parallel import spread
from llfc_jax.types import Apply, Inputs, Variables

if TYPE_CHECKING:
    import equinox as eqx
    from flax import nnx

# Arguments by which networks switch to evaluation.
EVALUATION = {
    "train": False,
    "training": False,
    "is_training": False,
    "deterministic": True,
    "inference": True,
}
Call = tuple[tuple[str, Any], ...]
T = TypeVar("T")


class Transformed(Protocol):
    """What Haiku's `transform` returns, or whatever else has `init` and `apply`."""

    apply: Callable[..., Any]


def _return(value: T) -> T:
    return value


@dataclasses.dataclass(frozen=True)
class Network:
    """A network as everything here takes it.

    Attributes:
        apply: `apply(variables, x) -> logits`, as the network runs in evaluation.
        unwrap: a mode in its framework's form (a model, a tree) -> a tree of arrays.
        model: a tree of arrays -> a mode in its framework's form; undoes `unwrap`.
        framework: what it was made from.
        restore: a checkpoint's tree -> a mode in its framework's form.

    Examples:
        >>> import numpy as np
        >>> Network.of(lambda weights, x: x @ weights).apply(np.ones((2, 1)), np.ones((3, 2))).shape
        (3, 1)
    """

    apply: Apply
    unwrap: Callable[[Any], Variables] = _return
    model: Callable[[Variables], Any] = _return
    framework: str = "function"
    restore: Callable[[Variables], Any] = _return

    def variables(self, mode: Any) -> Variables:
        """Returns a mode as a tree of arrays.

        Args:
            mode: as its framework has it, or the path of a checkpoint (`checkpoints.load`).

        Raises:
            ModeError: it is no mode of this network.
            DataError: the checkpoint cannot be read.
        """
        if isinstance(mode, (str, os.PathLike)):
            mode = self.restore(checkpoints.load(mode))
        return spread.relabel(self.unwrap(mode))

    @classmethod
    def of(cls, network: Any, **call: object) -> "Network":
        """Returns the view of a network of any framework.

        - Flax Linen module: its modes are variables, `{"params": ..., ...}`, or pairs of the
          parameters and the other collections.
        - Flax NNX module: its modes are such modules, their states, or tuples of states.
        - Equinox module, written for one sample as is usual there: its modes are such modules, or
          pairs (model, state) as `eqx.nn.make_with_state` returns them; such a pair may be passed
          as the network, too.
        - Haiku's `transform` and whatever else has `init` and `apply`: its modes are parameters,
          or pairs (parameters, state) where there is state.
        - any function `apply(variables, x)`.

        Linen and NNX modules that take `train`, `training`, `is_training`, `deterministic` or
        `inference` are called for evaluation.

        Args:
            network: the network.
            **call: passed on to it at every call, as in `is_training=False`.

        Raises:
            GraphError: it is none of these.
        """
        if isinstance(network, cls):
            return network
        if _is_module(network, "flax.linen"):
            call = _evaluation(type(network).__call__) | call
            apply = LinenApply(network, _freeze(call)) if call else network.apply
            return cls(apply, _linen_variables, framework="Flax Linen", restore=_linen_checkpoint)
        if _is_module(network, "flax.nnx"):
            return _of_nnx(network, _evaluation(type(network).__call__) | call)
        model: Any = network[0] if isinstance(network, tuple) and network else network
        if _is_module(model, "equinox"):
            return _of_equinox(network, call)
        if _is_transformed(network):
            return _of_transformed(network, call)
        if callable(network):
            return cls(functools.partial(network, **call) if call else network)  # pyright: ignore[reportArgumentType]
        raise GraphError(
            f"a {type(network).__name__} is no network: pass a Linen, NNX or Equinox module, a "
            "Haiku transform, or a function apply(variables, x)"
        )


def _is_module(network: object, package: str) -> bool:
    return any(
        kind.__name__ in ("Module", "Pytree") and kind.__module__.startswith(package)
        for kind in type(network).__mro__
    )


def _is_transformed(network: object) -> TypeGuard[Transformed]:
    return hasattr(network, "init") and hasattr(network, "apply")


def _evaluation(call: Callable[..., Any]) -> dict[str, Any]:
    """Returns the arguments that switch a network to evaluation, of those that it takes."""
    names = inspect.signature(call).parameters
    return {name: value for name, value in EVALUATION.items() if name in names}


def _freeze(call: Mapping[str, Any]) -> Call:
    return tuple(sorted(call.items()))


@dataclasses.dataclass(frozen=True)
class LinenApply:
    """A Linen module as a function of its variables, with arguments held fixed."""

    module: Any
    call: Call

    def __call__(self, variables: Variables, x: Inputs) -> Any:
        """Runs the module."""
        return self.module.apply(variables, x, **dict(self.call))


def _linen_variables(mode: Variables) -> Variables:
    if isinstance(mode, tuple) and len(mode) == 2 and all(isinstance(m, Mapping) for m in mode):
        params, others = mode
        return {**others, **(params if "params" in params else {"params": params})}
    if not hasattr(mode, "keys") or "params" not in mode:
        raise ModeError(
            "a mode of a Linen network is its variables, {'params': ...}, as module.init "
            f"returns them, not a {type(mode).__name__} without 'params'"
        )
    return mode


def _linen_checkpoint(tree: Variables) -> Variables:
    """Returns the variables in a checkpoint: parameters alone, variables, or a training state."""
    if not isinstance(tree, Mapping) or "params" not in tree:
        return {"params": tree}
    training = {"opt_state", "step"} if "opt_state" in tree else set()
    tree = {name: value for name, value in tree.items() if name not in training}
    inner = tree["params"]
    return inner if tree.keys() == {"params"} and "params" in inner else tree


@dataclasses.dataclass(frozen=True)
class NnxApply:
    """An NNX module as a function of its state."""

    graphdef: Any
    rest: Any = dataclasses.field(compare=False)  # random state, which evaluation does not use
    call: Call = ()

    def __call__(self, state: Variables, x: Inputs) -> Any:
        """Runs the module."""
        from flax import nnx

        return nnx.merge(self.graphdef, state, self.rest)(x, **dict(self.call))


def _of_nnx(model: "nnx.Module", call: dict[str, Any]) -> Network:
    graphdef, _, rest = _split_nnx(model)
    apply = NnxApply(graphdef, rest, _freeze(call))
    restore = functools.partial(_restore_like, _nnx_variables, model)
    return Network(apply, _nnx_variables, functools.partial(_nnx_model, model), "Flax NNX", restore)


def _restore_like(unwrap: Callable[[Any], Variables], network: Any, tree: Variables) -> Variables:
    """Returns a checkpoint's tree as the arrays of a network that holds some itself."""
    return checkpoints.fit(tree, unwrap(network), "the checkpoint")


def _split_nnx(model: "nnx.Module") -> Any:
    """Returns (definition, arrays, random state) of a module in evaluation."""
    from flax import nnx

    model = nnx.clone(model)
    model.eval()
    return nnx.split(model, nnx.Not(nnx.RngState), ...)


def _nnx_variables(mode: "nnx.Module | nnx.State | tuple[nnx.State, ...]") -> Variables:
    from flax import nnx

    if isinstance(mode, nnx.Module):
        return _split_nnx(mode)[1]
    if isinstance(mode, tuple) and mode and all(isinstance(m, nnx.State) for m in mode):
        mode = nnx.merge_state(*mode)
    return nnx.filter_state(mode, nnx.Not(nnx.RngState)) if isinstance(mode, nnx.State) else mode


def _nnx_model(model: "nnx.Module", state: Variables) -> Any:
    """Returns the module as it was given, with other arrays."""
    from flax import nnx

    training, _, others = nnx.split(model, nnx.Not(nnx.RngState), ...)
    return nnx.merge(training, state, others)


@dataclasses.dataclass(frozen=True, eq=False)
class EquinoxApply:
    """An Equinox module for one sample as a function of its arrays, over a batch."""

    static: Any
    call: Call = ()

    def __call__(self, arrays: Variables, x: Inputs) -> Any:
        """Runs the module on each sample."""
        if isinstance(arrays, tuple):  # (model, state)
            return jax.vmap(functools.partial(self._run_with_state, *arrays))(x)
        return jax.vmap(functools.partial(self._run, arrays))(x)

    def _run(self, arrays: Variables, one: Inputs) -> Any:
        import equinox as eqx

        return eqx.combine(arrays, self.static)(one, **dict(self.call))

    def _run_with_state(self, arrays: Variables, state: Variables, one: Inputs) -> Any:
        import equinox as eqx

        return eqx.combine(arrays, self.static)(one, state, **dict(self.call))[0]

    def _key(self) -> Any:
        leaves, structure = jax.tree.flatten(self.static)
        return structure, tuple(leaves), self.call

    def __eq__(self, other: object) -> bool:
        """Returns whether the other runs the same network."""
        if not isinstance(other, EquinoxApply):
            return NotImplemented
        return self is other or (hash(self) == hash(other) and self._key() == other._key())

    def __hash__(self) -> int:
        """Returns the hash of the network's parts; the object's id where they have none."""
        try:
            return hash(self._key())
        except TypeError:
            return id(self)


def _of_equinox(network: Any, call: dict[str, Any]) -> Network:
    import equinox as eqx

    model = network[0] if isinstance(network, tuple) else network
    _, static = eqx.partition(eqx.nn.inference_mode(model), eqx.is_array)
    back = functools.partial(_equinox_model, static)
    restore = functools.partial(_restore_like, _equinox_variables, network)
    apply = EquinoxApply(static, _freeze(call))
    return Network(apply, _equinox_variables, back, "Equinox", restore)


def _equinox_variables(mode: "eqx.Module | tuple[eqx.Module, eqx.nn.State]") -> Variables:
    import equinox as eqx

    model, *state = mode if isinstance(mode, tuple) else (mode,)
    if not isinstance(model, eqx.Module):
        raise ModeError(
            f"a mode of an Equinox network is a model, or (model, state), not a "
            f"{type(model).__name__}"
        )
    stateful = any(isinstance(leaf, eqx.nn.StateIndex) for leaf in jax.tree.leaves(
        model, is_leaf=lambda node: isinstance(node, eqx.nn.StateIndex)))  # fmt: skip
    if stateful and not state:
        raise ModeError(
            "this Equinox network has state (BatchNorm's statistics): a mode of it is "
            "(model, state), as eqx.nn.make_with_state returns it"
        )
    arrays = eqx.filter(model, eqx.is_array)
    return (arrays, eqx.filter(state[0], eqx.is_array)) if state else arrays


def _equinox_model(static: "eqx.Module", arrays: Variables) -> Any:
    """Returns the module, or (module, state), as in training."""
    import equinox as eqx

    model, *state = arrays if isinstance(arrays, tuple) else (arrays,)
    model = eqx.nn.inference_mode(eqx.combine(model, static), value=False)
    return (model, *state) if state else model


@dataclasses.dataclass(frozen=True)
class TransformedApply:
    """A Haiku transform as a function of its parameters, or of (parameters, state)."""

    apply: Callable[..., Any]
    rng: bool
    state: bool
    call: Call = ()

    def __call__(self, variables: Variables, x: Inputs) -> Any:
        """Runs the network; without random numbers, which evaluation does not need."""
        rng = (None,) if self.rng else ()
        if not self.state:
            return self.apply(variables, *rng, x, **dict(self.call))
        params, state = variables
        return self.apply(params, state, *rng, x, **dict(self.call))[0]


def _of_transformed(network: Transformed, call: dict[str, Any]) -> Network:
    names = set(inspect.signature(network.apply).parameters)
    rng, state = bool(names & {"rng", "key", "rng_key"}), "state" in names
    apply = TransformedApply(network.apply, rng, state, _freeze(call))
    if state:
        return Network(
            apply, _pair_variables, framework="Haiku with state", restore=_haiku_checkpoint
        )
    return Network(apply, framework="Haiku", restore=_haiku_modules)


def _haiku_modules(tree: Variables) -> Variables:
    """Returns a tree as Haiku has it: a module's whole path -> its parameters."""
    modules: dict[str, dict[str, Any]] = {}
    for path, leaf in checkpoints.flatten(tree, "/").items():
        module, _, name = path.rpartition("/")
        modules.setdefault(module, {})[name] = leaf
    return modules


def _haiku_checkpoint(tree: Variables) -> Variables:
    """Returns (parameters, state) of a checkpoint that holds both, as "0" and "1"."""
    if isinstance(tree, Mapping) and tree.keys() == {"0", "1"}:
        tree = tuple(tree[part] for part in ("0", "1"))
    return tuple(map(_haiku_modules, tree)) if isinstance(tree, (tuple, list)) else tree


def _pair_variables(mode: Variables) -> Variables:
    if not isinstance(mode, (tuple, list)) or len(mode) != 2:
        raise ModeError(
            "a mode of a Haiku network with state is (params, state), as its init returns it, not "
            f"a {type(mode).__name__}"
        )
    return tuple(mode)
