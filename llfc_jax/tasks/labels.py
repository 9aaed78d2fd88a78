"""Tasks whose targets are labels: of samples, tokens, pixels, or several for each sample."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from llfc_jax.tasks.registry import task
from llfc_jax.tasks.task import Derived, Pooled, Task, fit_mask


def cross_entropy(
    logits: Float[Array, "... classes"], labels: Int[Array, "..."], mask: Array
) -> Float[Array, "..."]:
    """Returns the cross-entropy of each element, in nats."""
    import optax

    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def predict_label(logits: Float[Array, "... classes"]) -> Int[Array, "..."]:
    """Returns the most likely label of each element; -1 where a logit is NaN."""
    return jnp.where(jnp.isnan(logits).any(-1), -1, logits.argmax(-1))


def is_right(logits: Float[Array, "... classes"], labels: Int[Array, "..."], mask: Array) -> Array:
    """Returns whether each element is predicted rightly; NaN predicts nothing."""
    return predict_label(logits) == labels


def one_minus(share: np.ndarray) -> np.ndarray:
    """Returns the error that belongs to an accuracy."""
    return 1 - share


def in_bits(nats: np.ndarray) -> np.ndarray:
    """Returns a loss in bits."""
    return nats / np.log(2)


def count_labels(
    logits: Float[Array, "... classes"], labels: Int[Array, "..."], mask: Array
) -> Float[Array, " classes"]:
    """Returns how many elements have each label."""
    weight = fit_mask(mask, labels.shape)
    return jnp.zeros(logits.shape[-1], mask.dtype).at[labels].add(weight)


def name_most_frequent(counts: np.ndarray, count: np.ndarray) -> dict[str, float]:
    """Returns error and loss of the predictor that knows only how often each label occurs."""
    share = counts / count
    some = share[share > 0]
    return {"error": 1 - float(share.max()), "loss": float(-(some * np.log(some)).sum())}


MOST_FREQUENT = Pooled(count_labels, name_most_frequent)
RIGHT = (("accuracy", is_right), ("error", Derived("accuracy", one_minus)))


@task("classification")
def classification(ignore: int | None = None) -> Task:
    """Outputs are logits [n, classes], targets whole-number labels [n]: cross-entropy and error.

    Args:
        ignore: a label that does not count.
    """
    return Task(
        cross_entropy,
        RIGHT,
        main="error",
        trivial=MOST_FREQUENT,
        ignore=ignore,
        labelled=True,
        predict=predict_label,
        name="classification",
        options={} if ignore is None else {"ignore": ignore},
    )


@task("tokens")
def tokens(ignore: int = -100) -> Task:
    """Outputs are logits [n, t, vocabulary], targets the label of each position [n, t].

    The loss is in nats per token. For a language model the label is the next token; for a masked
    one, the token that was masked, and `ignore` elsewhere. Barriers and verdicts are of the loss.

    Args:
        ignore: the label of positions that do not count, padding among them.
    """
    return Task(
        cross_entropy,
        (*RIGHT, ("perplexity", Derived("loss", np.exp)), ("bits", Derived("loss", in_bits))),
        trivial=MOST_FREQUENT,
        ignore=ignore,
        labelled=True,
        predict=predict_label,
        tokens=True,
        columns={"perplexity": "perplexity", "bits": "bits per token"},
        name="tokens",
        options={} if ignore == -100 else {"ignore": ignore},
    )


def count_overlaps(logits: Array, labels: Array, mask: Array) -> tuple[Array, Array]:
    """Returns, for each label, how many elements have it and are given it, and do either."""
    weight, given = fit_mask(mask, labels.shape), predict_label(logits)
    zeros = jnp.zeros(logits.shape[-1], mask.dtype)
    both = zeros.at[labels].add(weight * (given == labels))
    known = zeros.at[given].add(weight * (given >= 0))
    return both, zeros.at[labels].add(weight) + known - both


def mean_overlap(totals: tuple[np.ndarray, np.ndarray], count: np.ndarray) -> Any:
    """Returns the mean intersection over union of the labels that occur or are given."""
    both, either = totals
    return np.nanmean(np.where(either > 0, both / np.where(either > 0, either, 1), np.nan), -1)


@task("dense")
def dense(ignore: int = -100) -> Task:
    """Outputs are logits [n, h, w, classes], targets the label of each pixel [n, h, w].

    Beside the error over pixels: the mean intersection over union of the classes (`iou`), of all
    pixels of the data set together.

    Args:
        ignore: the label of pixels that do not count.
    """
    return Task(
        cross_entropy,
        (*RIGHT, ("iou", Pooled(count_overlaps, mean_overlap))),
        main="error",
        trivial=MOST_FREQUENT,
        ignore=ignore,
        labelled=True,
        predict=predict_label,
        columns={"iou": "mean IoU"},
        name="dense",
        options={} if ignore == -100 else {"ignore": ignore},
    )


def binary_cross_entropy(
    logits: Float[Array, "n labels"], targets: Array, mask: Array
) -> Float[Array, "n labels"]:
    """Returns the binary cross-entropy of each label of each sample, in nats."""
    return jax.nn.softplus(logits) - logits * targets


def predict_each(logits: Float[Array, "n labels"]) -> Int[Array, "n labels"]:
    """Returns whether each label is given; -1 where its logit is NaN."""
    return jnp.where(jnp.isnan(logits), -1, logits > 0)


def is_each_right(logits: Float[Array, "n labels"], targets: Array, mask: Array) -> Array:
    """Returns whether each label is given rightly."""
    return predict_each(logits) == targets


def are_all_right(logits: Float[Array, "n labels"], targets: Array, mask: Array) -> Array:
    """Returns whether all labels of each sample are given rightly."""
    return is_each_right(logits, targets, mask).all(-1)


def _count_each(logits: Array, targets: Array, mask: Array) -> Array:
    return (targets * fit_mask(mask, targets.shape)).sum(0)


def _guess_each(given: np.ndarray, count: np.ndarray) -> dict[str, float]:
    share = np.clip(given / (count / len(given)), 0, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -(share * np.log(share) + (1 - share) * np.log1p(-share))
    error = np.minimum(share, 1 - share)
    return {"error": float(error.mean()), "loss": float(np.nan_to_num(entropy).mean())}


@task("multilabel")
def multilabel() -> Task:
    """Outputs are logits [n, labels], targets 0 or 1 (or between) for each label [n, labels].

    Loss and error are means over all labels of all samples; `exact` is the share of samples all
    of whose labels are right.
    """
    return Task(
        binary_cross_entropy,
        (
            ("accuracy", is_each_right),
            ("error", Derived("accuracy", one_minus)),
            ("exact", are_all_right),
        ),
        main="error",
        trivial=Pooled(_count_each, _guess_each),
        limits=(0, 1),
        predict=predict_each,
        columns={"exact": "all labels right"},
        name="multilabel",
    )
