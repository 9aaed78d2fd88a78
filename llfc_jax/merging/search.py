"""A rule's coefficients searched on held-out data, all points in one compiled program."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from llfc_jax import fields
from llfc_jax.errors import MergeError, unknown
from llfc_jax.frameworks import Network
from llfc_jax.merging.inputs import MergeInputs
from llfc_jax.merging.options import MergeOptions
from llfc_jax.merging.prepare import prepare_inputs
from llfc_jax.merging.registry import RULES, build_rule
from llfc_jax.merging.rule import LeafRule, Rule
from llfc_jax.results import Result, axes, labels, result, setting
from llfc_jax.types import Model, Variables

Loss = Callable[[Variables], Any]


@result
class SearchResult(Result):
    """The loss of a merge at every point of a grid of its rule's options.

    Attributes:
        points: the numbers of each point, in words.
        loss: the loss [points].
        rule: the rule with the best point's options.
    """

    points: tuple[str, ...] = labels("point")
    loss: Any = axes("points")
    rule: Any = setting()

    @property
    def best(self) -> int:
        """The place of the point with the least loss."""
        return int(np.nanargmin(np.asarray(self.loss)))


def search(
    models: Sequence[Model],
    loss: Loss,
    grid: Mapping[str, Any],
    base: Model | None = None,
    rule: str | Rule = "task_arithmetic",
    *,
    network: Model | None = None,
    statistics: Sequence[Any] | None = None,
    options: MergeOptions | None = None,
    together: bool = False,
    batch_size: int | None = None,
    **rule_options: object,
) -> SearchResult:
    """Merges models at every point of a grid of a rule's options, and takes the loss of each.

    One program does it all: a merge and its loss, mapped over the points. The models lie on the
    device, so they must fit there.

    Args:
        models: see `merge`.
        loss: variables -> a number, on held-out data, of JAX operations; for example the mean
            cross-entropy over a batch.
        grid: option of the rule -> its values, numbers [k] or one row for each point [k, models];
            all combinations are points.
        base: see `merge`.
        rule: a rule that goes leaf by leaf.
        network: see `merge`.
        statistics: see `merge`.
        options: see `merge`.
        together: whether all options of the grid move together, point by point, instead.
        batch_size: how many points are computed at once; one by one if None, which takes the
            least memory.
        **rule_options: the rule's other options, where `rule` is a name.

    Raises:
        MergeError: an option that the rule lacks or that has no numbers, no finite loss, or see
            `merge`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from llfc_jax import merging
        >>> base, models = jnp.zeros(2), [jnp.array([2.0, 0.0]), jnp.array([0.0, 2.0])]
        >>> found = merging.search(models, lambda w: ((w - 1) ** 2).sum(), {"scale": [0.0, 0.5, 1]},
        ...                        base, "task_arithmetic")
        >>> found.rule
        TaskArithmetic(scale=0.5)
    """
    points = _lay_out(grid, together)
    first = {name: _plain(values[0]) for name, values in points.items()}
    built = _with_options(rule, rule_options, first)
    if network is not None:
        view = Network.of(network)
        models = [view.variables(model) for model in models]
        base = None if base is None else view.variables(base)
    for i in range(len(next(iter(points.values())))):  # every point is checked before the work
        at = {name: _plain(values[i]) for name, values in points.items()}
        dataclasses.replace(built, **at).check(len(models))
    inputs = prepare_inputs(models, base, built, statistics, options)
    traced = {name: jnp.asarray(values, jnp.result_type(float)) for name, values in points.items()}
    try:
        losses = np.asarray(_sweep(built, loss, batch_size, inputs, traced))
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError) as error:
        raise MergeError(
            "loss must be made of JAX's operations alone (no float(), no NumPy): it is compiled "
            "together with the merge"
        ) from error
    if losses.ndim != 1:
        raise MergeError(f"loss must return one number, not an array of shape {losses.shape[1:]}")
    if not np.isfinite(losses).any():
        raise MergeError("the loss is finite at no point of the grid; try smaller coefficients")
    best = int(np.nanargmin(np.where(np.isfinite(losses), losses, np.nan)))
    chosen = {name: _plain(values[best]) for name, values in points.items()}
    words = [", ".join(f"{name}={_plain(values[i])}" for name, values in points.items())
             for i in range(len(losses))]  # fmt: skip
    return SearchResult(tuple(words), losses, dataclasses.replace(built, **chosen))


@partial(jax.jit, static_argnames=("rule", "loss", "batch_size"))
def _sweep(
    rule: LeafRule,
    loss: Loss,
    batch_size: int | None,
    inputs: MergeInputs,
    points: dict[str, Array],
) -> Float[Array, " points"]:
    """Returns the loss of the merge at every point."""

    def at(point: dict[str, Array]) -> Array:
        return jnp.asarray(loss(inputs.build(dataclasses.replace(rule, **point))))

    return jax.lax.map(at, points, batch_size=batch_size)


def _with_options(
    rule: str | Rule, options: Mapping[str, object], swept: Mapping[str, Any]
) -> LeafRule:
    """Returns the rule at the first point, checked.

    Raises:
        MergeError: it merges no leaf alone, or has no such options.
    """
    kind = type(rule) if isinstance(rule, Rule) else RULES.get(rule, LeafRule)
    if not issubclass(kind, LeafRule):
        raise MergeError(f"merge rule {kind.name!r} merges no leaf alone, so it has no program")
    if isinstance(rule, Rule):
        known = fields.hints(type(rule))
        for name in swept:
            if name not in known:
                raise MergeError(unknown(f"option of {rule.name!r}", name, known))
        built = dataclasses.replace(build_rule(rule, **options), **swept)
    else:
        built = build_rule(rule, **{**options, **swept})
    assert isinstance(built, LeafRule)
    return built


def _lay_out(grid: Mapping[str, Any], together: bool) -> dict[str, np.ndarray]:
    """Returns option -> its value at each point.

    Raises:
        MergeError: no option, no values, or values that are no numbers.
    """
    columns: dict[str, np.ndarray] = {}
    for name, values in grid.items():
        column = np.asarray(values)
        if column.dtype.kind not in "fi" or column.ndim not in (1, 2) or not len(column):
            raise MergeError(f"the grid of {name} must be numbers [k] or [k, models]")
        columns[name] = column.astype(np.float64)
    if not columns:
        raise MergeError("the grid is empty; name an option of the rule and its values")
    sizes = [len(column) for column in columns.values()]
    if together:
        if len(set(sizes)) > 1:
            raise MergeError(f"options that move together need as many values: {sizes}")
        return columns
    places = np.indices(sizes).reshape(len(sizes), -1)
    return {name: column[at] for (name, column), at in zip(columns.items(), places, strict=True)}


def _plain(value: np.ndarray) -> Any:
    """Returns a number, or a tuple of them, as options have them."""
    return tuple(map(float, value)) if np.ndim(value) else float(value)
