"""The features of a batch as rows: one for each sample, or one for each token, padding left out."""

import dataclasses
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from llfc_jax.errors import GraphError
from llfc_jax.graph.graph import Graph, trace
from llfc_jax.graph.graph import rows as rows_of_samples
from llfc_jax.graph.pointwise import widen
from llfc_jax.graph.queries import unit_axes
from llfc_jax.graph.sites import Site, find_sites
from llfc_jax.graph.token_axes import Axes, find_token_axes
from llfc_jax.types import Apply, Inputs, Variables


def keep_features(graph: Graph, token_axes: Axes | None, length: int | None) -> Graph:
    """Returns a graph in which only values that can be compared have features.

    They are real, and where `token_axes` are given, they hold all `length` tokens.
    """
    program, kept = graph.program, dict(graph.sample_axes)
    for number, axis in graph.sample_axes.items():
        aval = program.avals[number]
        compared = axis is None or not jnp.issubdtype(aval.dtype, jnp.complexfloating)
        if axis is not None and token_axes is not None and length is not None:
            tokens, sizes = token_axes[number], (length, length * program.samples)
            compared = compared and tokens is not None and aval.shape[tokens] in sizes
        if not compared:
            kept[number] = None
    if kept == graph.sample_axes:
        return graph
    return Graph(program, find_sites(program, kept), kept)


@dataclasses.dataclass(frozen=True, eq=False)
class RowLayout:
    """How the values of a batch are cut into rows.

    Attributes:
        graph: the network's trace.
        mask: 1 for what counts: [n], or [n, t] with the tokens' axes.
        token_axes: the tokens' axis in each value; None where samples are not cut into tokens.
        per_token: whether each token has a row of its own.
    """

    graph: Graph
    mask: jax.Array
    token_axes: Axes | None = None
    per_token: bool = False

    @classmethod
    def of(
        cls, graph: Graph, apply: Apply, variables: Variables, x: Inputs, mask: jax.Array
    ) -> "RowLayout":
        """Returns the layout of a batch, a row for each sample, from the network's trace."""
        if mask.ndim == 1:
            return cls(graph, mask)
        axes = find_token_axes(graph, apply, variables, x, mask.shape[1])
        return cls(graph, mask, axes)

    @property
    def output_mask(self) -> jax.Array:
        """1 for what counts of the outputs: [n] where the inputs hold tokens and they do not."""
        program = self.graph.program
        held, kept = (
            any((self.token_axes or {}).get(number) is not None for number in numbers)
            for numbers in (program.inputs, program.outputs)
        )
        return self.mask.max(1) if held and not kept else self.mask

    @property
    def row_mask(self) -> Float[Array, " rows"]:
        """1 for each row that counts."""
        if self.mask.ndim == 1:
            return self.mask
        return self.mask.reshape(-1) if self.per_token else self.mask.max(1)

    @property
    def kept_share(self) -> Float[Array, " rows"] | None:
        """Share of each row that is no padding; None where all of it is none."""
        if self.mask.ndim == 1 or self.per_token:
            return None
        return self.mask.mean(1)

    def mask_of(self, number: int) -> jax.Array:
        """Returns the mask in the layout of a value, ready to be multiplied with it."""
        graph = self.graph
        samples, shape = graph.sample_axes[number], graph.program.avals[number].shape
        if samples is None:
            raise GraphError("a value without a sample axis has no features")
        tokens = self.token_axes[number] if self.token_axes else None
        if self.mask.ndim == 1 or tokens is None:
            mask = self.mask if self.mask.ndim == 1 else self.mask.max(1)
            flat = jnp.repeat(mask, shape[samples] // len(mask))
            return flat.reshape([-1 if i == samples else 1 for i in range(len(shape))])
        if tokens == samples:  # [n * t, ...]
            flat = jnp.repeat(self.mask.reshape(-1), shape[samples] // self.mask.size)
            return flat.reshape([-1 if i == samples else 1 for i in range(len(shape))])
        sizes = [shape[i] if i in (samples, tokens) else 1 for i in range(len(shape))]
        mask = jnp.repeat(self.mask, shape[samples] // len(self.mask), 0)
        mask = jnp.repeat(mask, -(-shape[tokens] // mask.shape[1]), 1)[:, : shape[tokens]]
        return (mask if samples < tokens else mask.T).reshape(sizes)

    def rows(self, number: int, value: jax.Array) -> jax.Array:
        """Returns a value as rows [rows, d], zeros where a token is padding.

        Args:
            number: which value of the trace it is, or has the layout of.
            value: the array itself.

        Raises:
            GraphError: the value holds no samples.
        """
        if self.mask.ndim == 1:
            return rows_of_samples(self.graph, number, value)
        value = jnp.where(self.mask_of(number) > 0, value, 0)
        if not self.per_token:
            return rows_of_samples(self.graph, number, value)
        samples, tokens = self.graph.sample_axes[number], (self.token_axes or {})[number]
        assert samples is not None
        assert tokens is not None
        if tokens != samples:
            value = jnp.moveaxis(value, (samples, tokens), (0, 1))
        else:
            value = jnp.moveaxis(value, samples, 0)
        return value.reshape(self.mask.size, -1)

    def units(
        self, values: Mapping[int, jax.Array], site: Site
    ) -> tuple[Float[Array, "units positions"], Float[Array, " positions"]]:
        """Returns a linear site's features without bias, a row per unit, and which columns count.

        Columns are samples times positions; those that do not count are zeros.
        """
        product, units = unit_axes(self.graph, site)
        value, mask = widen(values[product]), self.mask_of(product)
        front = range(len(units))
        counts = jnp.moveaxis(jnp.broadcast_to(mask, value.shape), units, front)
        value = jnp.moveaxis(value * mask, units, front)
        width = math.prod(value.shape[: len(units)])
        return value.reshape(width, -1), counts.reshape(width, -1)[0]

    def features(self, values: Mapping[int, jax.Array], site: Site) -> jax.Array:
        """Returns what is read at a site as rows [rows, d]."""
        return self.rows(site.value, values[site.value])


def output_mask(apply: Apply, variables: Variables, x: Inputs, mask: jax.Array) -> jax.Array:
    """Returns what counts of a network's outputs, from a batch's mask (`RowLayout.output_mask`)."""
    if mask.ndim == 1:
        return mask
    return RowLayout.of(trace(apply, variables, x), apply, variables, x, mask).output_mask
