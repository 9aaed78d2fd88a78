"""What some rules need to know of each model beside its weights, measured on data."""

import dataclasses
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from llfc_jax.data.inputs import as_batches
from llfc_jax.errors import MergeError
from llfc_jax.frameworks import Network
from llfc_jax.graph import Graph, trace
from llfc_jax.graph.outputs import check_finite, check_outputs
from llfc_jax.graph.queries import operands
from llfc_jax.graph.row_layout import RowLayout
from llfc_jax.graph.sites import Site
from llfc_jax.measures.accumulate import pad_batches
from llfc_jax.tasks import Batch, Task, build
from llfc_jax.tasks.task import fit_mask
from llfc_jax.types import AnyArray, Apply, Batches, Inputs, Model, Variables


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class InputGram:
    """The Gram matrix of what a linear layer is given: G = (1/n) Σ x x^T.

    Attributes:
        matrix: G, [d, d].
        axes: the axes of the layer's weight along which its inputs lie, d entries together.
    """

    matrix: Float[AnyArray, "d d"]
    axes: tuple[int, ...] = dataclasses.field(metadata={"static": True})


def fisher_diagonal(
    network: Model,
    model: Model,
    batches: Batches,
    *,
    labels: Literal["model", "data"] = "model",
    task: str | Mapping[str, Any] | Task = "classification",
) -> Variables:
    """Returns the diagonal of a classifier's Fisher information, a tree like its variables.

    F = (1/n) Σ_x E_y (∂ log p(y | x) / ∂θ)², with y drawn from the model's own p(y | x): the
    expectation over all classes, taken exactly. One gradient for each class and sample (or token
    that is no padding).

    Args:
        network: a module of any framework, or a function apply(variables, x) -> logits.
        model: the mode.
        batches: data of any form (`llfc_jax.data.inputs.as_batches`).
        labels: "data" takes the data's y in place of the expectation (the empirical Fisher): one
            gradient for each sample.
        task: how outputs are judged, one that has labels.

    Raises:
        DataError: there is no batch, or labels that the task does not take.
        GraphError: the task does not judge the network's outputs.
        MergeError: a task without labels.

    Source: Matena and Raffel, "Merging models with Fisher-weighted averaging", NeurIPS 2022.
    """
    task = build(task)
    if not task.labelled:
        raise MergeError(f"Fisher information is of classifiers, and the task {task.name!r} has "
                         "no labels; choose another rule")  # fmt: skip
    view = Network.of(network)
    variables, samples, total = view.variables(model), 0.0, None
    leaves, structure = jax.tree.flatten(variables)
    moving = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    static = view.apply, task, labels == "model", tuple(moving)
    for batch in pad_batches(as_batches(batches), task):
        check_finite(batch.x)
        check_outputs(trace(view.apply, variables, batch.x), batch, task)
        with jax.default_matmul_precision("highest"):
            squares, count = _fisher(*static, variables, batch)
        total = squares if total is None else [p + q for p, q in zip(total, squares, strict=True)]
        samples += float(count)
    for i, leaf in zip(moving, total or [], strict=True):
        leaves[i] = leaf / max(samples, 1)
    return jax.tree.unflatten(structure, leaves)


@partial(jax.jit, static_argnames=("apply", "task", "expected", "moving"))
def _fisher(
    apply: Apply,
    task: Task,
    expected: bool,
    moving: tuple[int, ...],
    variables: Variables,
    batch: Batch,
) -> tuple[list[Array], Array]:
    """Returns sums over a batch of squared derivatives of log p, and how many samples count."""
    leaves, structure = jax.tree.flatten(variables)
    x, y, mask = batch
    layout = RowLayout.of(trace(apply, variables, x), apply, variables, x, mask)
    counts = fit_mask(task.weigh(y, layout.output_mask), y.shape)
    y = jnp.where(counts > 0, y, 0)

    def log_probabilities(moved: list[Array], one: Inputs) -> Array:
        there = list(leaves)
        for i, leaf in zip(moving, moved, strict=True):
            there[i] = leaf
        logits = apply(jax.tree.unflatten(structure, there), jax.tree.map(lambda v: v[None], one))
        return jax.nn.log_softmax(logits[0].astype(jnp.promote_types(logits.dtype, jnp.float32)))

    def of_label(moved: list[Array], one: Inputs, label: Array, count: Array) -> Array:
        taken = jnp.take_along_axis(log_probabilities(moved, one), label[..., None], -1)
        return (taken[..., 0] * count).sum()

    def add(total: list[Array], sample: tuple[Inputs, Array, Array]) -> tuple[list[Array], None]:
        at = [leaves[i] for i in moving]
        if not expected:
            slopes = jax.grad(of_label)(at, *sample)
            return [t + jnp.square(s) for t, s in zip(total, slopes, strict=True)], None
        slopes = jax.jacrev(log_probabilities)(at, sample[0])
        chances = jnp.exp(log_probabilities(at, sample[0])) * sample[2][..., None]
        return [t + jnp.tensordot(chances, jnp.square(s), chances.ndim)
                for t, s in zip(total, slopes, strict=True)], None  # fmt: skip

    zeros = [jnp.zeros(jnp.shape(leaves[i]), jnp.promote_types(leaves[i].dtype, jnp.float32))
             for i in moving]  # fmt: skip
    return jax.lax.scan(add, zeros, (x, y, counts))[0], (layout.row_mask > 0).sum()


def input_grams(
    network: Model,
    model: Model,
    batches: Batches,
    *,
    task: str | Mapping[str, Any] | Task = "classification",
) -> dict[str, InputGram]:
    """Returns the Gram matrix of the inputs of every linear layer: path of the weight -> matrix.

    Layers whose weight is a leaf, or a transposed one, and is multiplied by features: dense
    layers, and projections with heads. Convolutions and layers inside `scan` are not among them.

    Args:
        network: a module of any framework, or a function apply(variables, x).
        model: the mode.
        batches: data of any form (`llfc_jax.data.inputs.as_batches`).
        task: says which tokens count, where the batches do not; nothing else of the labels does.

    Raises:
        DataError: there is no batch.

    Source: Jin et al., "Dataless knowledge fusion by merging weights of language models", 2023.
    """
    view = Network.of(network)
    variables, total, samples = view.variables(model), None, 0.0
    for x, _, mask in pad_batches(as_batches(batches), build(task)):
        check_finite(x)
        grams, count = _grams(view.apply, variables, x, mask)
        total = grams if total is None else jax.tree.map(jnp.add, total, grams)
        samples += float(count)
    return jax.tree.map(lambda sums: np.asarray(sums, np.float64) / max(samples, 1), total)


@partial(jax.jit, static_argnames="apply")
def _grams(
    apply: Apply, variables: Variables, x: Inputs, mask: Array
) -> tuple[dict[str, InputGram], Array]:
    """Returns the sums over a batch, and how many samples count."""
    graph = trace(apply, variables, x)
    layout = RowLayout.of(graph, apply, variables, x, mask)
    with jax.default_matmul_precision("highest"):
        values = graph.evaluate(variables, x)
        grams: dict[str, InputGram] = {}
        for site, axes in _dense_layers(graph):
            eq, feature, _ = operands(graph, site)
            contracted = eq.params["dimension_numbers"][0][site.data or 0]
            rows = values.all[feature].astype(jnp.float32)
            if graph.sample_axes[feature] is not None:
                rows = jnp.where(layout.mask_of(feature) > 0, rows, 0)
            rows = jnp.moveaxis(rows, contracted, range(-len(contracted), 0))
            rows = rows.reshape(-1, np.prod(rows.shape[-len(contracted) :], dtype=int))
            gram = InputGram(rows.T @ rows, axes)
            again = site.leaf in grams  # a tied layer, used more than once
            grams[site.leaf] = jax.tree.map(jnp.add, grams[site.leaf], gram) if again else gram
    return grams, (layout.row_mask > 0).sum()


def _dense_layers(graph: Graph) -> Iterator[tuple[Site, tuple[int, ...]]]:
    """Yields the dense layers, each with the axes of its weight's leaf that its inputs lie along.

    A leaf that is used along different axes (a tied embedding, say) is left out.
    """
    linear = [site for site in graph.sites if site.kind == "linear" and site.leaf]
    found = [(site, axes) for site in linear if (axes := _input_axes(graph, site))]
    used: dict[str, set[tuple[int, ...]]] = {}
    for site, axes in found:
        used.setdefault(site.leaf, set()).add(axes)
    yield from ((site, axes) for site, axes in found if len(used[site.leaf]) == 1)


def _input_axes(graph: Graph, site: Site) -> tuple[int, ...] | None:
    """Returns the axes of the leaf that are contracted with the feature; None where unclear."""
    program = graph.program
    eq, _, number = operands(graph, site)
    if eq.name != "dot_general" or any(eq.params["dimension_numbers"][1]):
        return None
    axes = tuple(eq.params["dimension_numbers"][0][site.weight or 0])
    made = {out: one for one in program.equations for out in one.outputs}
    while number in made:
        one = made[number]
        if one.name == "transpose":
            axes = tuple(one.params["permutation"][axis] for axis in axes)
        elif one.name not in ("convert_element_type", "copy"):
            return None
        number = one.inputs[0]
    return axes if dict(zip(program.leaves, program.paths, strict=True)).get(number) else None
