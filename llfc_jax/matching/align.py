"""Alignment: a method by name, on a network whose spec is derived and proved first."""

import collections
import dataclasses
import os
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import jax

from llfc_jax import symmetry
from llfc_jax.data.inputs import as_train_batches
from llfc_jax.errors import DataError, MatchingError
from llfc_jax.frameworks import Network
from llfc_jax.graph import trace
from llfc_jax.graph.queries import check_used_leaves
from llfc_jax.matching.beyond.sets import PERMUTATION, restrict
from llfc_jax.matching.methods.learned import LearnedMatching
from llfc_jax.matching.problem import Problem, check_modes, widen
from llfc_jax.matching.registry import Method, build_method
from llfc_jax.matching.result import Match
from llfc_jax.pair import is_discrete
from llfc_jax.parallel import spread
from llfc_jax.symmetry.beyond.derive import derive_symmetry
from llfc_jax.symmetry.beyond.spec import SymmetrySpec
from llfc_jax.symmetry.spec import PermutationSpec
from llfc_jax.tasks import Task, classification, read_batch
from llfc_jax.types import Apply, Batches, Model, ProgressFn, Variables

_PROVED: collections.deque[Hashable] = collections.deque(maxlen=32)  # (apply, spec), latest last


def align(
    method: str | Method,
    key: jax.Array,
    network: Model,
    a: Variables,
    b: Variables,
    batches: Batches | None = None,
    *,
    spec: PermutationSpec | None = None,
    task: Task | None = None,
    progress: ProgressFn | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    **options: object,
) -> Match:
    """Permutes B towards A by a method chosen by name.

    Args:
        method: a name in `METHODS`, or a method with its options.
        key: for whatever the method draws.
        network: a module of any framework, or a function apply(variables, x).
        a: the mode that stays.
        b: the mode that is permuted.
        batches: train data of any form (`data.inputs.as_train_batches`), for the methods that
            need it, and for the proof of the spec.
        spec: which units may move; derived from the network's trace by default.
        task: how outputs are judged, for the methods that look at them; classification if None.
        progress: called as (done, in all or 0, words).
        checkpoint: an `.npz` file in which learned matching keeps what it has reached: the same
            call goes on from there to the same bits. A control has one of its own beside it.
        **options: the fields of the method's class.

    Returns:
        The method's `Match`; `spec.apply(match.permutation, b)` is the aligned B, or
        `match.transport.apply(b)` where the method goes beyond permutations.

    Raises:
        MatchingError: an unknown method or option, a wrong group in the spec, or see the method.
        ModeError: the network uses integers, in which the modes differ.
        DataError: there is no batch to derive the spec from, and none is given.
    """
    if isinstance(method, str):
        method = build_method(method, options)
    elif options:
        raise MatchingError("a method that is built already takes no further options")
    if spec is not None and batches is None:
        raise MatchingError("pass batches so that the spec can be proved, or call weight_matching")
    if checkpoint is not None and not isinstance(method, LearnedMatching):
        raise MatchingError(
            f"{type(method).__name__} keeps no checkpoint; only learned matching does"
        )
    kept = None if checkpoint is None else Path(checkpoint)
    network = Network.of(network)
    a, b = network.variables(a), network.variables(b)
    batches = spread.follow(as_train_batches(() if batches is None else batches), (a, b))
    if goes_beyond(method):
        if spec is not None:
            check_modes(spec, a, b)
        return _align_beyond(method, key, network, a, b, batches, task, progress, kept)
    if spec is None:
        spec = symmetry.permutation_spec(network, a, _inputs(batches))
    problem = Problem(network, spec, a, b, batches, task or classification(), checkpoint=kept)
    problem.checked(narrow=True)
    if any(map(is_discrete, jax.tree.leaves(a))):
        check_used_leaves(trace(network.apply, a, _inputs(batches)), a, b)
    check_symmetry(problem)
    return method(key, problem, progress)


def goes_beyond(method: Method) -> bool:
    """Returns whether a method works on the whole symmetry rather than on permutations."""
    asked = getattr(method, "symmetry", PERMUTATION)
    return isinstance(method, LearnedMatching) or asked != PERMUTATION


def _align_beyond(
    method: Method,
    key: jax.Array,
    network: Network,
    a: Variables,
    b: Variables,
    batches: Batches,
    task: Task | None,
    progress: ProgressFn | None,
    checkpoint: Path | None,
) -> Match:
    """Aligns B by more than permutations; methods see both networks folded."""
    graph = trace(network.apply, a, _inputs(batches))
    spec = restrict(derive_symmetry(graph), vars(method)["symmetry"])
    if any(map(is_discrete, jax.tree.leaves(a))):
        check_used_leaves(graph, a, b)
    check_modes(spec.unfolded, a, b)
    _prove(network.apply, spec, a, batches)
    folded = {name: spec.fold(widen(mode)) for name, mode in (("a", a), ("b", b))}
    problem = Problem(
        network,
        spec.permutations,
        batches=batches,
        task=task or classification(),
        symmetry=spec,
        checkpoint=checkpoint,
        **folded,
    )
    match = method(key, problem, progress)
    if match.transport is None:
        raise MatchingError(f"{match.method} matching moves permutations only")
    return dataclasses.replace(match, transport=match.transport.to(a))


def check_symmetry(problem: Problem) -> None:
    """Proves a problem's spec on its network, once for each network and spec.

    Raises:
        MatchingError: a permutation of some group changes the network's outputs.
        DataError: there is no batch to prove it on.
    """
    _prove(problem.apply, problem.spec, problem.a, problem.batches)


def _prove(
    apply: Apply, spec: PermutationSpec | SymmetrySpec, variables: Variables, batches: Batches
) -> None:
    known = (apply, spec)
    if known not in _PROVED:
        symmetry.check(spec, apply, variables, _inputs(batches))
        _PROVED.append(known)


def _inputs(batches: Batches) -> Any:
    """Returns the first batch."""
    for batch in batches:
        return read_batch(batch).x
    raise DataError("there is no batch; matching by network needs data to derive its spec from")
