"""Proves a spec on numbers."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.experimental
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jax.extend.core import jaxpr_as_fun

from llfc_jax.errors import LlfcError, MatchingError
from llfc_jax.frameworks import Network
from llfc_jax.graph.trace import subjaxprs
from llfc_jax.parallel import quick
from llfc_jax.parallel.spread import follow, is_spread
from llfc_jax.symmetry import algebra
from llfc_jax.symmetry.axes import Permutation, permute
from llfc_jax.symmetry.beyond.draw import draw
from llfc_jax.symmetry.beyond.element import Element
from llfc_jax.symmetry.beyond.spec import SymmetrySpec
from llfc_jax.symmetry.spec import PermutationSpec
from llfc_jax.types import AnyArray, Apply, Inputs, Variables

FEW_SAMPLES, MOST_SAMPLES = 2, 64
MOST_WORK = 2e9  # multiplications of the whole proof, beyond which fewer samples are taken
TOLERANCE = {np.dtype(np.float64): 1e-9, np.dtype(np.float32): 1e-3}
_COARSE = 0.1  # for networks that compute in bfloat16 or less
_SMALLEST = 1e-6  # outputs below it are taken for rounding


def identity(spec: PermutationSpec) -> dict[str, Any]:
    """Returns the permutation that moves nothing, in NumPy."""
    return {
        name: np.broadcast_to(np.arange(spec.shape(name)[-1], dtype=np.int32), spec.shape(name))
        for name in spec.group
    }


def derange(spec: PermutationSpec, name: str, rng: np.random.Generator) -> dict[str, Any]:
    """Returns a permutation that moves every unit of one group, and nothing else.

    A nested group moves inside each place of its parent.
    """
    moved = identity(spec)
    rows = np.array(moved[name]).reshape(-1, spec.group[name].size)
    for row in rows:
        while len(row) > 1 and (row == np.arange(len(row))).any():
            rng.shuffle(row)
    return {**moved, name: rows.reshape(spec.shape(name))}


def random_element(spec: SymmetrySpec, rng: np.random.Generator) -> Element:
    """Returns a random element in NumPy: matrices, scales and signs; no unit leaves its place."""
    groups = [(action, spec.shape(action.group)) for action in spec.actions]
    return Element(identity(spec.permutations), *draw(groups, rng, spread=0.3))


def parts_of(element: Element) -> Iterator[tuple[str, str, Element]]:
    """Yields (field, group, an element that does only what this one does to that group)."""
    nothing = dataclasses.replace(element, matrices={}, log_scales={}, signs={})
    for field in ("matrices", "log_scales", "signs"):
        for group, array in getattr(element, field).items():
            yield field, group, dataclasses.replace(nothing, **{field: {group: array}})


def check(
    spec: PermutationSpec | SymmetrySpec,
    network: Any,
    variables: Variables,
    x: Inputs,
    *,
    tolerance: float | None = None,
) -> float:
    """Proves a spec on numbers: moving the units of its groups leaves the outputs alone.

    One group after the other, every unit of it leaves its place while all else stays. Of a
    symmetry spec, the folding of gains, and each group's matrices, scales and signs as well, one
    kind at a time. Computed in float64 where the network can; compiled once; deterministic. Rare
    branches and ties show on many samples only: where the network is small enough, up to 64 of the
    batch are used and as many random ones of the same scale, else two.

    Variables that are spread over several devices stay where they lie, in their own precision.

    Args:
        spec: the spec to prove.
        network: a module of any framework, or a function apply(variables, x).
        variables: its variables; random ones prove more than trained or constant ones.
        x: a batch.
        tolerance: largest allowed change, as a share of the largest output; by default 1e-9 where
            the network computes in float64, 1e-3 in float32, 0.1 in less.

    Returns:
        The largest change seen, as a share of the largest output.

    Raises:
        MatchingError: an element of a group changes the outputs by more than that, or the
            network does not run on the batch.

    Examples:
        >>> import jax.numpy as jnp
        >>> from llfc_jax.symmetry import permutation_spec
        >>> def apply(w, x):
        ...     return jnp.maximum(x @ w["first"], 0) @ w["second"]
        >>> w = {"first": jnp.ones((3, 4)), "second": jnp.ones((4, 2))}
        >>> x = jnp.ones((5, 3))
        >>> check(permutation_spec(apply, w, x), apply, w, x)
        0.0
    """
    view = Network.of(network)
    variables = view.variables(variables)
    plain = spec.unfolded if isinstance(spec, SymmetrySpec) else spec
    plain.check_variables(variables)
    spread = is_spread(variables)
    try:
        if not spread:
            with double_precision():
                wide, x_wide = (jax.tree.map(_widen, tree) for tree in (variables, x))
                return _check(spec, view.apply, wide, x_wide, tolerance)
    except MatchingError:
        raise
    except Exception:  # some networks do not trace in float64
        pass
    try:
        if spread:
            (x,) = follow([x], variables)
        else:
            variables, x = (jax.tree.map(_as_numpy, tree) for tree in (variables, x))
        return _check(spec, view.apply, variables, x, tolerance)
    except LlfcError:
        raise
    except Exception as error:
        words = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise MatchingError(
            f"the spec cannot be proved, as the network does not run on this batch: {words}"
        ) from error


def _check(
    spec: PermutationSpec | SymmetrySpec,
    apply: Apply,
    variables: Variables,
    x: Inputs,
    tolerance: float | None,
) -> float:
    count = len(spec.groups if isinstance(spec, PermutationSpec) else spec.actions)
    x = _samples(apply, variables, x, count)
    run, limit = _compiled(apply, variables, x)
    limit = limit if tolerance is None else tolerance
    rng = np.random.default_rng(0)
    leaves = jax.tree.leaves(variables)
    placed = [jax.device_put(leaf) for leaf in leaves]  # only what a group moves is sent again
    inputs = [x]
    given = jax.tree.leaves(x)
    if len(given[0]) > FEW_SAMPLES and all(jnp.issubdtype(p.dtype, jnp.floating) for p in given):
        inputs.append(jax.tree.map(
            lambda p: np.asarray(rng.normal(size=p.shape) * np.sqrt(np.mean(p**2)), p.dtype), x
        ))  # fmt: skip
    before = [run(placed, own) for own in inputs]
    worst = 0.0
    for words, moved in _moves(spec, variables, rng):
        now: list[AnyArray] = list(placed)
        for i, leaf in moved.items():
            now[i] = leaf
        changes = [_change(was, run(now, own)) for was, own in zip(before, inputs, strict=True)]
        change = max(changes, key=lambda c: (np.isnan(c), c))
        worst = max(worst, change)
        if not change <= limit:
            advice = "remove that group (spec.explain() lists where it acts)"
            if isinstance(spec, SymmetrySpec):
                advice = 'use symmetry="permutation" (spec.explain() lists where each group acts)'
            raise MatchingError(
                f"the spec is wrong for this network: {words} changes its output by {change:.1e} "
                f"of its largest value; {advice}"
            )
    return worst


def _moves(
    spec: PermutationSpec | SymmetrySpec, variables: Variables, rng: np.random.Generator
) -> Iterator[tuple[str, dict[int, AnyArray]]]:
    """Yields what is done to the network, in words, and the leaves that it changes, by number."""
    leaves = jax.tree.leaves(variables)
    if isinstance(spec, PermutationSpec):
        for group in (g for g in spec.groups if not g.rigid):
            moved = _permuted(spec, derange(spec, group.name, rng), group.name, leaves)
            yield f"moving the units of group {group.name!r}", moved
        return
    folded = jax.tree.leaves(spec.fold(variables))
    gains = {i: new for i, (old, new) in enumerate(zip(leaves, folded, strict=True))
             if new is not old}  # fmt: skip
    if gains:
        yield "moving gains into other weights", gains
    wide = jax.tree.unflatten(jax.tree.structure(variables), folded)
    for words, moved in _moves(spec.permutations, wide, rng):
        yield words, gains | moved
    for kind, group, part in parts_of(random_element(spec, rng)):
        words = f"applying random {kind.replace('_', ' ')} to group {group!r}"
        yield words, gains | spec.changed_leaves(part, folded)


def _change(before: np.ndarray, after: np.ndarray) -> float:
    """Returns the largest change of an output, as a share of the largest output."""
    largest = max(np.max(np.abs(before[np.isfinite(before)]), initial=0), _SMALLEST)
    same = (before == after) | (np.isnan(before) & np.isnan(after))
    with np.errstate(invalid="ignore"):
        return float(np.max(np.where(same, 0, np.abs(after - before)) / largest, initial=0))


def _samples(apply: Apply, variables: Variables, x: Inputs, groups: int) -> Any:
    """Returns as many samples of a batch as the proof can afford; all, if it takes no fewer."""
    few = jax.tree.map(lambda leaf: leaf[:FEW_SAMPLES], x)
    try:
        jaxpr = jax.make_jaxpr(apply)(variables, few).jaxpr
    except Exception:  # the batch size is fixed
        return x
    # In less than float64 rounding decides ties, the more often the more samples there are.
    if any(jnp.finfo(dtype).bits < 64 for dtype in _floats(jaxpr)):
        return few
    most = MOST_WORK / (2 * max(1, groups) * max(1, _work(jaxpr) / FEW_SAMPLES))
    rows = int(np.clip(most, FEW_SAMPLES, MOST_SAMPLES))
    return jax.tree.map(lambda leaf: leaf[:rows], x)


def _work(jaxpr: Any) -> float:
    """About how many multiplications a jaxpr does."""
    work = 0.0
    for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        size = sum(getattr(var.aval, "size", 1) for var in eqn.outvars)
        if eqn.primitive.name == "dot_general":
            left, ((along, _), _) = eqn.invars[0].aval, eqn.params["dimension_numbers"]
            size *= math.prod(left.shape[i] for i in along)
        elif eqn.primitive.name == "conv_general_dilated":
            kernel, numbers = eqn.invars[1].aval, eqn.params["dimension_numbers"]
            size *= kernel.size / max(1, kernel.shape[numbers.rhs_spec[0]])
        inner = sum(map(_work, subjaxprs(eqn)))
        work += size + inner * eqn.params.get("length", 1)
    return work


def _permuted(
    spec: PermutationSpec, permutation: Permutation, name: str, leaves: Sequence[AnyArray]
) -> dict[int, AnyArray]:
    """Returns the leaves on which a group acts, permuted, by their number."""
    number = {path: i for i, (path, _) in enumerate(spec.leaves)}
    moved = {}
    for i in {number[path] for path, _ in spec.where(name)}:
        leaf, axes = leaves[i], spec.leaves[i][1]
        if is_spread(leaf):
            moved[i] = algebra.move_leaf(tuple(spec.parents.items()), axes, permutation, leaf)
        else:
            moved[i] = permute(leaf, axes, permutation, spec.parents)
    return moved


def _compiled(
    apply: Apply, variables: Variables, x: Inputs
) -> tuple[Callable[[Sequence[AnyArray], Inputs], np.ndarray], float]:
    """The network at this batch, compiled quickly, and how exact its outputs are."""
    closed = jax.make_jaxpr(apply)(variables, x)
    flat = jax.jit(jaxpr_as_fun(closed)).lower(*jax.tree.leaves((variables, x)))
    compiled = flat.compile(compiler_options=quick.compiler_options())

    def widen(output: jax.Array) -> np.ndarray:
        wide = jnp.promote_types(output.dtype, np.float32)
        exact = np.complex128 if jnp.issubdtype(wide, jnp.complexfloating) else np.float64
        return np.asarray(output, wide).astype(exact)

    def run(leaves: Sequence[AnyArray], x: Inputs) -> np.ndarray:
        outputs = [widen(output) for output in compiled(*leaves, *jax.tree.leaves(x))]
        if len(outputs) == 1:
            return outputs[0]
        return np.concatenate([output.reshape(-1) for output in outputs])

    narrowest = min(_floats(closed.jaxpr), key=lambda d: jnp.finfo(d).bits, default=np.float64)
    return run, TOLERANCE.get(np.dtype(narrowest), _COARSE)


def _floats(jaxpr: core.Jaxpr) -> Iterator[Any]:
    """The types of real values that a jaxpr computes."""
    for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        for var in eqn.outvars:
            dtype = getattr(var.aval, "dtype", None)
            if dtype is not None and jnp.issubdtype(dtype, jnp.floating):
                yield dtype
        for inner in subjaxprs(eqn):
            yield from _floats(inner)


def double_precision() -> Any:
    """Returns a context in which JAX computes in float64."""
    return jax.enable_x64(True)


def _as_numpy(leaf: AnyArray) -> Any:
    keys = jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key)
    return leaf if keys else np.asarray(leaf)


def _widen(leaf: AnyArray) -> Any:
    """A leaf in float64 where it is real, so that rounding does not hide a change."""
    array = _as_numpy(leaf)
    real = jnp.issubdtype(array.dtype, jnp.floating)
    return array.astype(np.float64) if real else array
