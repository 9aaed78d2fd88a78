"""Planes through weight space: through three modes, along random directions, or a run's own.

A plane is an origin and two orthogonal directions, all of them trees like the variables; a point is

    θ(x, y) = origin + x u + y v.

Only floating-point leaves span it; any other leaf (a counter) is the origin's.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float, Key

from llfc_jax.data.inputs import Data
from llfc_jax.errors import ModeError
from llfc_jax.graph import Graph
from llfc_jax.graph.queries import linear_sites
from llfc_jax.graph.trace import Equation, Program
from llfc_jax.landscape.points import PointOptions, judge_points
from llfc_jax.pair import check_pair
from llfc_jax.results import Result, axes, labels, result, setting
from llfc_jax.types import Model, ProgressFn, Variables

FLAT = 1e-6  # sine of the angle below which two directions are one


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Plane:
    """A plane through weight space.

    Attributes:
        origin: the point (0, 0).
        u: direction of x.
        v: direction of y, orthogonal to u.
    """

    origin: Variables
    u: Variables
    v: Variables

    @property
    def a(self) -> Variables:
        """Variables of the network's shapes."""
        return self.origin

    def at(self, *coordinates: ArrayLike) -> Variables:
        """Returns θ(x, y); x and y may be traced."""
        x, y = coordinates
        return jax.tree.map(functools.partial(_moved, x, y), self.origin, self.u, self.v)

    def project(self, variables: Variables) -> tuple[float, float, float]:
        """Returns the nearest point (x, y) of the plane, and the distance from it.

        Raises:
            ModeError: the variables are not of this network.
        """
        check_pair(self.origin, variables)
        gap, u, v = (_vector(t) for t in (_difference(variables, self.origin), self.u, self.v))
        x, y = (float(gap @ w / (w @ w)) for w in (u, v))
        return x, y, float(np.linalg.norm(gap - x * u - y * v))


@result
class PlaneResult(Result):
    """Loss and error over a plane.

    Attributes:
        xs: coordinates along the plane's first direction.
        ys: coordinates along its second one.
        loss: mean loss [ys, xs].
        error: share that is wrong [ys, xs]; NaN where the task has no error rate.
        samples: number of samples.
        renormalise: "reset" where running statistics were taken anew at every point.
    """

    xs: tuple[float, ...] = labels("x")
    ys: tuple[float, ...] = labels("y")
    loss: Any = axes("ys", "xs")
    error: Any = axes("ys", "xs")
    samples: int = setting()
    renormalise: str = setting("none")


def measure_plane(
    network: Model,
    plane: Plane,
    data: Data,
    xs: Sequence[float],
    ys: Sequence[float],
    train: Data | None = None,
    options: PointOptions | None = None,
    progress: ProgressFn | None = None,
) -> PlaneResult:
    """Measures the loss at every point of a grid in one pass over the data.

    Args:
        network: what `Network.of` takes.
        plane: the plane.
        data: (x, labels), batches of such pairs, or a data set.
        xs: coordinates along u.
        ys: coordinates along v.
        train: data for the running statistics; a data set brings its own, else `data` serves.
        options: how it is measured; the defaults if None.
        progress: called as (done, total, words).

    Raises:
        ModeError: no coordinates, numbers that are not finite, or a renormalisation that does not
            fit the network.
        LlfcError: data that do not fit the network.
    """
    options = options or PointOptions()
    grid = [np.asarray(sorted(map(float, axis))) for axis in (xs, ys)]
    if not all(axis.size and np.isfinite(axis).all() for axis in grid):
        raise ModeError("xs and ys must be finite numbers, at least one of each")
    points = np.stack(np.meshgrid(*grid), -1).reshape(-1, 2)
    values, samples = judge_points(network, plane, points, data, train, options, progress)
    shape = len(grid[1]), len(grid[0])
    loss, error = (np.reshape(values[name], shape) for name in ("loss", "error"))
    columns, rows = (tuple(axis.tolist()) for axis in grid)
    return PlaneResult(columns, rows, loss, error, samples, options.renormalise)


def plane_through(a: Variables, b: Variables, c: Variables) -> Plane:
    """Returns the plane through three modes: a at (0, 0), b at (|b - a|, 0), c above the line.

    Both directions have length 1, so coordinates are Euclidean distances (Garipov et al. 2018).

    Raises:
        ModeError: they are not modes of one network, or lie on a line.
    """
    check_pair(a, b)
    check_pair(a, c)
    first, second = (_vector(_difference(mode, a)) for mode in (b, c))
    u = _unit(first, "b is a")
    v = second - (second @ u) * u
    if np.linalg.norm(v) <= FLAT * np.linalg.norm(second):
        raise ModeError("the three modes lie on a line, which spans no plane; give another one")
    return Plane(a, _tree(u, a), _tree(v / np.linalg.norm(v), a))


def random_plane(graph: Graph, mode: Variables, key: Key[jax.Array, ""]) -> Plane:
    """Returns a plane through a mode along two random directions, normalised by filter.

    Each direction is Gaussian; the weights that make one unit of a linear layer (a filter) are
    rescaled to the length of the mode's own, and all other leaves (biases, norms) stay: then the
    scale of the weights, which ReLU and normalisation make arbitrary, does not change the picture
    (Li et al. 2018, "Visualizing the Loss Landscape of Neural Nets"). (1, 0) is as far from the
    mode as the mode is from zero, filter by filter. The second direction is made orthogonal to
    the first.

    Args:
        graph: the network's trace, which says what a filter is.
        mode: its variables.
        key: of the directions.

    Raises:
        GraphError: the network has no linear layer.
    """
    keys = jax.random.split(key)
    u, v = (_filter_normalised(graph, mode, k) for k in keys)
    first, second = _vector(u), _vector(v)
    length = np.linalg.norm(second)
    second = second - (second @ first) / (first @ first) * first
    second *= length / np.linalg.norm(second)
    return Plane(mode, u, _tree(second, mode))


def principal_plane(checkpoints: Sequence[Variables]) -> tuple[Plane, Float[np.ndarray, "2"]]:
    """Returns the plane in which a run's checkpoints move most, and what it explains.

    The origin is the last checkpoint, the directions are the first two principal components of
    the differences from it (Li et al. 2018), of length 1.

    Args:
        checkpoints: three or more, in the order of training.

    Returns:
        The plane; and the share of the checkpoints' squared distances from the last one along
        each direction. Small shares mean that the path's picture in the plane misleads.

    Raises:
        ModeError: fewer than three, of several networks, or on a line.
    """
    if len(checkpoints) < 3:
        raise ModeError(f"{len(checkpoints)} checkpoints span no plane; give three or more")
    last = checkpoints[-1]
    for mode in checkpoints[:-1]:
        check_pair(last, mode)
    rows = np.stack([_vector(_difference(mode, last)) for mode in checkpoints[:-1]])
    _, lengths, directions = np.linalg.svd(rows, full_matrices=False)
    if lengths[1] <= FLAT * lengths[0]:
        raise ModeError("the checkpoints lie on a line, which spans no plane")
    plane = Plane(last, _tree(directions[0], last), _tree(directions[1], last))
    return plane, np.square(lengths[:2]) / np.square(lengths).sum()


def _filter_normalised(graph: Graph, mode: Variables, key: Key[jax.Array, ""]) -> Variables:
    """Returns a random direction, of each filter's length."""
    kept = _filters(graph)
    found = []
    for i, (path, leaf) in enumerate(zip(graph.program.paths, jax.tree.leaves(mode), strict=True)):
        if path not in kept:
            found.append(np.zeros(np.size(leaf)))
            continue
        value = np.asarray(leaf, np.float64)
        drawn = np.asarray(jax.random.normal(jax.random.fold_in(key, i), value.shape), np.float64)
        along = tuple(k for k in range(value.ndim) if k not in kept[path])
        own, length = (np.sqrt(np.square(w).sum(along, keepdims=True)) for w in (drawn, value))
        found.append((drawn * length / np.where(own > 0, own, 1)).reshape(-1))
    return _tree(np.concatenate(found), mode)


def _filters(graph: Graph) -> dict[str, tuple[int, ...]]:
    """Returns the weights of the linear layers, and the axes of their filters."""
    program, found = graph.program, {}
    paths = dict(zip(program.leaves, program.paths, strict=True))
    for site in linear_sites(graph):
        eq = program.equations[site.equation]
        number = eq.inputs[site.weight or 0]
        axes = _unit_axes(eq, site.weight or 0, len(program.avals[number].shape))
        number, axes = _back_to_leaf(program, number, axes)
        if number in paths:
            found[paths[number]] = axes
    return found


def _unit_axes(eq: Equation, operand: int, rank: int) -> tuple[int, ...]:
    """Returns the axes of a product's weight each of whose places makes a unit of its own."""
    numbers = eq.params["dimension_numbers"]
    if eq.name == "conv_general_dilated":
        return (numbers.rhs_spec[0],)
    return tuple(i for i in range(rank) if i not in numbers[0][operand])


def _back_to_leaf(
    program: Program, number: int, axes: tuple[int, ...]
) -> tuple[int, tuple[int, ...]]:
    """Follows a weight through transpositions and conversions to the leaf that it is."""
    made = {out: eq for eq in program.equations for out in eq.outputs}
    while number in made and made[number].name in ("transpose", "convert_element_type", "copy"):
        eq = made[number]
        if eq.name == "transpose":
            axes = tuple(eq.params["permutation"][k] for k in axes)
        number = eq.inputs[0]
    return number, axes


def _moved(x: ArrayLike, y: ArrayLike, origin: ArrayLike, u: ArrayLike, v: ArrayLike) -> jax.Array:
    origin = jnp.asarray(origin)
    if not jnp.issubdtype(origin.dtype, jnp.inexact):
        return origin
    wide = jnp.promote_types(origin.dtype, jnp.float32)
    x, y, start, u, v = (jnp.asarray(value, wide) for value in (x, y, origin, u, v))
    return (start + x * u + y * v).astype(origin.dtype)


def _difference(p: Variables, q: Variables) -> Variables:
    return jax.tree.map(lambda p, q: np.asarray(p, np.float64) - np.asarray(q, np.float64)
                        if _spans(p) else np.zeros(np.shape(p)), p, q)  # fmt: skip


def _spans(leaf: ArrayLike) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


def _vector(tree: Variables) -> Float[np.ndarray, " n"]:
    """Returns all numbers of a tree in float64."""
    return np.concatenate([np.asarray(x, np.float64).reshape(-1) for x in jax.tree.leaves(tree)])


def _tree(vector: Float[np.ndarray, " n"], like: Variables) -> Variables:
    """Returns the numbers as a tree of these shapes, in float32."""
    leaves, structure = jax.tree.flatten(like)
    ends = np.cumsum([math.prod(np.shape(leaf)) for leaf in leaves])[:-1]
    parts = np.split(vector.astype(np.float32), ends)
    shaped = [p.reshape(np.shape(leaf)) for p, leaf in zip(parts, leaves, strict=True)]
    return jax.tree.unflatten(structure, shaped)


def _unit(vector: Float[np.ndarray, " n"], words: str) -> Float[np.ndarray, " n"]:
    length = np.linalg.norm(vector)
    if not length > 0:
        raise ModeError(f"{words}: they span no plane; give another mode")
    return vector / length
