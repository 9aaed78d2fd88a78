"""What a task is: how outputs are judged, from one function that gives a loss for each element.

A task is a frozen value. `sums` reads a batch under `jit`; what it returns is added up over the
data, and `finish` makes means and metrics of the totals, on the host in float64. An *element* is
what the loss is a mean over: a sample, a token, a pixel.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from llfc_jax.errors import ConfigError, DataError, GraphError
from llfc_jax.types import AnyArray, Outputs, Targets, Totals

# An end whose error is within this many standard errors of the trivial predictor's is at chance.
CHANCE = 3.0
# Where there is no error rate: the share by which its loss has to be below the trivial predictor's.
MARGIN = 0.01

ElementFn: TypeAlias = Callable[[Any, Any, jax.Array], jax.Array]
"""`f(outputs, targets, mask) -> a value of each element`, [n] or [n, ...]."""


@dataclasses.dataclass(frozen=True)
class Pooled:
    """A metric of the whole data set that is no mean over elements.

    Attributes:
        sums: `f(outputs, targets, mask)` -> a tree of arrays that add up over batches.
        value: `g(totals, number of elements)` -> the metric, on the host.
    """

    sums: Callable[[Any, Any, jax.Array], PyTree]
    value: Callable[[Any, Any], Any]


@dataclasses.dataclass(frozen=True)
class Derived:
    """A metric that is a function of another one, as perplexity is of the loss.

    Attributes:
        of: "loss" or the name of a metric that stands before this one.
        value: `g(its value)`, on the host.
    """

    of: str
    value: Callable[[Any], Any]


Metric: TypeAlias = ElementFn | Pooled | Derived


@dataclasses.dataclass(frozen=True)
class Task:
    """How outputs are judged. `Task(loss=f)` is enough; all functions must be pure JAX.

    Attributes:
        loss: `f(outputs, targets, mask)` -> the loss of each element: [n], or [n, ...] where a
            sample has several (tokens, pixels). `outputs` is what the network returns, `mask` is 1
            for what counts and 0 for padding: [n], or [n, t].
        metrics: name -> a function of the same form, whose mean is the metric, a `Pooled` or a
            `Derived`. One called "error" is a share that is wrong.
        main: the metric in which barriers and verdicts are stated, less being better: "error"
            where there is an error rate, else "loss".
        trivial: what a predictor does that does not see the input: a `Pooled` whose value is
            metric -> number, "loss" among them.
        ignore: label of elements that do not count.
        labelled: whether targets are labels among the last axis of the one output.
        predict: `f(outputs)` -> the prediction of each element, NaN and all; None where there is
            no such thing.
        tokens: whether elements are the positions along axis 1, as features have them.
        columns: headings of the metrics in tables.
        name: its name.
        options: how it was made, for records.

    Examples:
        >>> import jax.numpy as jnp
        >>> task = Task(loss=lambda outputs, targets, mask: jnp.abs(outputs[:, 0] - targets))
        >>> sums = task.sums(jnp.ones((2, 1)), jnp.array([1.0, 3.0]), jnp.ones(2))
        >>> float(task.finish(sums)["loss"])
        1.0
    """

    loss: ElementFn
    metrics: Any = ()
    main: str = "loss"
    trivial: Pooled | None = None
    ignore: int | None = None
    labelled: bool = False
    predict: Callable[[Any], jax.Array] | None = None
    tokens: bool = False
    columns: Any = ()
    name: str = "own"
    options: Any = ()

    def __post_init__(self) -> None:
        """Checks the fields; keeps mappings as pairs, so that tasks can be hashed."""
        if not callable(self.loss):
            raise ConfigError(f"a task's loss must be a function, not {self.loss!r}")
        for field in ("metrics", "columns", "options"):
            value = getattr(self, field)
            pairs = tuple(value.items()) if isinstance(value, Mapping) else tuple(value)
            object.__setattr__(self, field, pairs)
        names = ["loss"]
        for name, metric in self.metrics:
            if name in names or name == "count":
                raise ConfigError(f"task {self.name!r}: a metric cannot be called {name!r}")
            if not (callable(metric) or isinstance(metric, (Pooled, Derived))):
                raise ConfigError(f"task {self.name!r}: metric {name!r} must be a function")
            if isinstance(metric, Derived) and metric.of not in names:
                raise ConfigError(f"task {self.name!r}: {name!r} is derived of no metric before it")
            names.append(name)
        if self.main not in ("loss", "error") or self.main not in names:
            raise ConfigError(
                f"task {self.name!r}: main must be 'loss', or 'error' where the metrics have it, "
                f"not {self.main!r}"
            )

    @property
    def described(self) -> Any:
        """Its name, or its name and options, as plain values for records."""
        options = dict(self.options)
        return {"name": self.name, **options} if options else self.name

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Names of the metrics."""
        return tuple(name for name, _ in self.metrics)

    def weigh(self, targets: Targets, mask: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
        """Returns 1 for each element that counts: `mask`, without those that are ignored."""
        if self.ignore is None:
            return mask
        return fit_mask(mask, targets.shape) * (targets != self.ignore)

    def default_mask(self, targets: Targets, n: int) -> AnyArray:
        """Returns the mask of n samples that have none: [n], or [n, t] of the tokens that count."""
        labels = jax.tree.leaves(targets)
        if self.tokens and labels and labels[0].ndim > 1:
            kept = np.ones(labels[0].shape[:2], bool)
            return kept if self.ignore is None else labels[0] != self.ignore
        return np.ones(n)

    def losses(self, outputs: Outputs, targets: Targets, mask: Array) -> tuple[Array, Array]:
        """Returns the loss of each element, 0 where it does not count, and which count."""
        losses = self._raw_losses(outputs, targets, mask)
        weight = fit_mask(self.weigh(targets, mask), losses.shape)
        return jnp.where(weight > 0, losses, 0), weight

    def _raw_losses(self, outputs: Outputs, targets: Targets, mask: Array) -> Array:
        weight = self.weigh(targets, mask)
        if self.labelled:  # what does not count may hold any label
            targets = jnp.where(fit_mask(weight, targets.shape) > 0, targets, 0)
        return self.loss(jax.tree.map(wide, outputs), targets, weight)

    def train_loss(
        self, outputs: Outputs, targets: Targets, smoothing: float = 0.0
    ) -> tuple[Array, Array]:
        """Returns the mean loss of a training batch, and the share predicted rightly.

        Args:
            outputs: what the network returns.
            targets: the batch's targets; `ignore` is left out.
            smoothing: share of each target spread evenly over all labels.
        """
        n = len(jax.tree.leaves(outputs)[0])
        mask = jnp.asarray(self.default_mask(targets, n), jnp.float32)
        sums = self.sums(outputs, targets, mask)
        right, count = sums.get("accuracy", (jnp.asarray(jnp.nan), 1.0))
        if not self.labelled:
            return sums["loss"] / sums["count"], right / count
        return self._smoothed_loss(outputs, targets, mask, smoothing), right / count

    def _smoothed_loss(
        self, logits: Array, labels: Array, mask: Array, smoothing: float
    ) -> Float[Array, ""]:
        import optax

        weight = fit_mask(self.weigh(labels, mask), labels.shape)
        labels = jnp.where(weight > 0, labels, 0)
        goal = jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.float32)
        goal = optax.smooth_labels(goal, smoothing) if smoothing else goal
        losses = optax.softmax_cross_entropy(wide(logits), goal)
        return losses.mean() if self.ignore is None else (losses * weight).sum() / weight.sum()

    def sums(self, outputs: Outputs, targets: Targets, mask: Array) -> dict[str, Any]:
        """Returns what adds up over the data: the number of elements, loss and metrics."""
        losses, weight = self.losses(outputs, targets, mask)
        sums: dict[str, Any] = {"count": weight.sum(), "loss": (losses * weight).sum()}
        outputs, weight = jax.tree.map(wide, outputs), self.weigh(targets, mask)
        for name, metric in self.metrics:
            if isinstance(metric, Pooled):
                sums[name] = metric.sums(outputs, targets, weight)
            elif not isinstance(metric, Derived):
                values = metric(outputs, targets, weight)
                counts = fit_mask(weight, values.shape)
                total = (jnp.where(counts > 0, values, 0) * counts).sum()
                sums[name] = total, counts.sum()
        return sums

    def finish(self, sums: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Returns the mean loss and the metrics from totals; they may have leading axes."""
        count = np.asarray(sums["count"])
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            found = {"loss": np.asarray(sums["loss"] / count)}
            for name, metric in self.metrics:
                if isinstance(metric, Derived):
                    value = metric.value(found[metric.of])
                elif isinstance(metric, Pooled):
                    value = metric.value(sums[name], count)
                else:
                    value = sums[name][0] / sums[name][1]
                found[name] = np.asarray(value)
        return found

    def trivial_sums(self, outputs: Outputs, targets: Targets, mask: Array) -> Any:
        """Returns what `trivial_values` needs of a batch."""
        if self.trivial is None:
            return ()
        return self.trivial.sums(outputs, targets, self.weigh(targets, mask))

    def trivial_values(self, sums: Totals, count: np.ndarray | float) -> dict[str, float]:
        """Returns metric -> value of a predictor that does not see the input; NaN if unknown."""
        if self.trivial is None:
            return {"loss": float("nan")}
        return {k: float(v) for k, v in self.trivial.value(sums, np.asarray(count)).items()}

    def is_informative(
        self, ends: Sequence[Mapping[str, Any]], trivial: Mapping[str, float], count: float
    ) -> bool:
        """Returns whether both ends do better than the trivial predictor.

        An error has to be below its error p by `CHANCE` standard errors √(p (1 - p) / count); a
        loss has to be below its loss by the share `MARGIN`. True where no such predictor is known.
        """
        if self.trivial is None:
            return True
        at = trivial[self.main]
        margin = MARGIN * abs(at)
        if self.main == "error":
            margin = CHANCE * np.sqrt(max(at * (1 - at), 0) / max(count, 1))
        return all(float(end[self.main]) < at - margin for end in ends)

    def check_targets(self, targets: Targets) -> None:
        """Checks that there are labels, where the task needs some.

        Raises:
            DataError: there are none.
        """
        if self.labelled and not jax.tree.leaves(targets):
            raise DataError(
                f"the task {self.name!r} needs labels, and the batches have none; pass (x, "
                "labels), or mappings with an entry 'labels'"
            )

    def check(self, outputs: Outputs, targets: Targets, n: int) -> None:
        """Checks that outputs and targets are what the task judges; only shapes are looked at.

        Raises:
            GraphError: the network's output does not fit.
            DataError: the targets do not fit.
        """
        self.check_targets(targets)
        if self.labelled:
            _check_labelled(self, outputs, targets)
        try:
            losses = jax.eval_shape(self._raw_losses, outputs, targets, _mask_of(n))
            fits = losses.shape[:1] == (n,) and jnp.issubdtype(losses.dtype, jnp.floating)
            if fits:
                jax.eval_shape(self.sums, outputs, targets, _mask_of(n))
        except (GraphError, DataError):
            raise
        except Exception as error:
            line = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise GraphError(
                f"task {self.name!r} does not fit outputs {shapes_of(outputs)} and targets "
                f"{shapes_of(targets)}: {line}"
            ) from error
        if not fits:
            raise GraphError(
                f"task {self.name!r}: the loss must be real, one number for each of the {n} "
                f"samples or more, not {losses.dtype}{list(losses.shape)}"
            )


def wide(x: AnyArray) -> jax.Array:
    """Returns the array in float32 at least (float64 and whole numbers stay)."""
    x = jnp.asarray(x)
    narrow = jnp.issubdtype(x.dtype, jnp.floating) and jnp.dtype(x.dtype).itemsize < 4
    return x.astype(jnp.float32) if narrow else x


def fit_mask(mask: AnyArray, shape: Sequence[int]) -> Any:
    """Returns a mask [n] or [n, t] for values of a shape [n, ...], in the mask's own library.

    A sample whose values do not lie along t counts where any of its entries does.
    """
    while mask.ndim > 1 and mask.shape[1:] != tuple(shape[1 : mask.ndim]):
        mask = mask.max(-1)
    mask = mask.reshape(*mask.shape, *(1,) * (len(shape) - mask.ndim))
    xp = np if isinstance(mask, np.ndarray) else jnp
    return xp.broadcast_to(mask, tuple(shape))


def shapes_of(tree: PyTree) -> str:
    """Returns the shapes of a tree's arrays, in words."""
    shapes = [str(tuple(np.shape(leaf))) for leaf in jax.tree.leaves(tree)]
    return ", ".join(shapes) or "none"


def _mask_of(n: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((n,), jnp.float32)


def _check_labelled(task: Task, outputs: Outputs, targets: Targets) -> None:
    """Checks that outputs are [..., classes] for labels [...]."""
    leaves = jax.tree.leaves(outputs)
    axes = {"classification": "n", "tokens": "n, t"}.get(task.name, "n, ...")
    if len(leaves) != 1:
        raise GraphError(
            f"the network returns {len(leaves)} arrays; the task {task.name!r} judges the logits "
            "alone (wrap it: lambda v, x: apply(v, x)[0]), or give a Task(loss=f) of all of them"
        )
    (logits,), (labels, *others) = leaves, jax.tree.leaves(targets)
    one_hot = labels.ndim > 1 and labels.shape == logits.shape
    if others or one_hot or not jnp.issubdtype(labels.dtype, jnp.integer):
        numbers = not others and jnp.issubdtype(labels.dtype, jnp.floating)
        hint = "; for numbers set task='regression'" if numbers else ""
        hint = "; of one-hot labels pass labels.argmax(-1)" if one_hot else hint
        raise DataError(
            f"labels [{axes}] must be integers, not {labels.dtype}{list(labels.shape)}{hint}"
        )
    if not jnp.issubdtype(logits.dtype, jnp.floating):
        raise GraphError(f"the network must return real logits, not {logits.dtype}")
    wanted = {task.name: labels.ndim, "classification": 1, "tokens": 2}[task.name]
    shapes = tuple(labels.shape), tuple(logits.shape)
    if labels.ndim != wanted or shapes[1][:-1] != shapes[0] or logits.ndim != wanted + 1:
        of_tokens = task.name == "classification" and logits.ndim == 3
        fits = "; for labels of tokens set task='tokens'" if of_tokens else ""
        raise GraphError(
            f"the network must return logits [{axes}, classes] for labels of shape "
            f"{shapes[0]}, not shape {shapes[1]}{fits}"
        )
