"""Learned matching: gradients with respect to a network's symmetry itself.

The loss of the line, the linearity of its features, both, or what commutativity or the outputs lack
(`beyond.objectives`) are lowered over the coordinates of the symmetry (`beyond.coordinates`), at a
random place of the line in each step. Only the loss looks at labels; the linearity is the layerwise
linear feature connectivity itself, made an objective.

The symmetry of a transformer has so many parameters that learning it trains the middle; a low
barrier alone is no evidence that two networks are alike. `control` repeats all with the entries of
each of B's weights shuffled; only what is gained beyond that says something about B.
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np

from llfc_jax.checkpoints.begun import Begun
from llfc_jax.data.inputs import hash_arrays
from llfc_jax.errors import DataError, MatchingError, unknown
from llfc_jax.graph import trace
from llfc_jax.graph.queries import linear_sites
from llfc_jax.matching.assignment.family import families
from llfc_jax.matching.beyond.closed_form import Start, closed_form
from llfc_jax.matching.beyond.coordinates import Coordinates, harden, origin
from llfc_jax.matching.beyond.families import is_plain
from llfc_jax.matching.beyond.learning import (
    CHUNK,
    Descent,
    State,
    advance,
    begin,
)
from llfc_jax.matching.beyond.objectives import Line, Objective
from llfc_jax.matching.beyond.sets import parse_symmetry
from llfc_jax.matching.beyond.weights import unit_cosines
from llfc_jax.matching.outputs import check_distributions
from llfc_jax.matching.problem import Problem
from llfc_jax.matching.registry import matching_method
from llfc_jax.matching.result import Match
from llfc_jax.parallel.loops import choose_loops
from llfc_jax.symmetry.beyond.element import Element
from llfc_jax.symmetry.beyond.spec import SymmetrySpec
from llfc_jax.symmetry.beyond.transport import Transport, element_arrays, read_element
from llfc_jax.tasks import Batch
from llfc_jax.types import ProgressFn, Variables

STARTS: tuple[str, ...] = get_args(Start)
SPREAD = 0.1  # of the coordinates in which further restarts begin


@matching_method("learned")
@dataclasses.dataclass(frozen=True)
class LearnedMatching(Descent):
    """Learns the symmetry that connects b with a, by gradients; looks at labels for the loss.

    Killed within a run or a call with `checkpoint=`, it goes on where it was, to the same bits.

    Attributes:
        objective: "loss" of the line, "linearity" of its features, "both", "commutativity" of its
            ends, or "output" of the line: see `beyond.objectives`.
        learning_rate: of Adam, with a cosine to zero in each phase.
        batch_size: samples of each step.
        low: smallest α.
        high: largest α.
        weight: of the linearity beside the loss, for "both".
        penalty: weight of the squared distance from the start.
        symmetry: what may be moved, see `beyond.sets`: "full", "heads+stream", "orthogonal", ...
        start: where learning starts: "activation" or "weight" matching in closed form, or
            "identity".
        permutations: whether permutations are learned too, relaxed, in the first half of the
            steps; they stay where they start otherwise.
        steps: of Adam, rounded up to twenties in each phase: with permutations, and without.
        samples: of the batches that are used at all.
        restarts: learned side by side, each with its own batches and places on the line, all but
            the first from a start a little aside; the one with the best objective is taken.
        control: learn again with each of B's weights shuffled, and say what that reaches.
    """

    symmetry: str = "full"
    start: Start = "activation"
    permutations: bool = True
    steps: int = 400
    samples: int = 4096
    restarts: int = 1
    control: bool = False

    def __post_init__(self) -> None:
        """Checks names and ranges.

        Raises:
            MatchingError: one line that says which option is wrong.
        """
        parse_symmetry(self.symmetry)
        for what, value, known in (
            ("objective", self.objective, get_args(Objective)),
            ("start", self.start, STARTS),
        ):
            if value not in known:
                raise MatchingError(unknown(what, value, known))
        if min(self.steps, self.batch_size, self.samples, self.restarts) < 1:
            raise MatchingError("steps, batch_size, samples and restarts must be at least 1")
        if not self.learning_rate > 0:
            raise MatchingError(f"learning_rate must be above 0, not {self.learning_rate}")
        if not min(self.weight, self.penalty) >= 0:
            raise MatchingError(
                f"weight and penalty must be 0 or more, not {self.weight}, {self.penalty}"
            )
        if not 0 <= self.low <= self.high <= 1:
            raise MatchingError(f"0 <= low <= high <= 1 is needed, not {self.low}, {self.high}")

    def __call__(
        self, key: jax.Array, problem: Problem, progress: ProgressFn | None = None
    ) -> Match:
        """Learns the element that connects B with A.

        Args:
            key: draws samples and places on the line.
            problem: with the symmetry of its network.
            progress: called as (steps done, steps, words); a control counts anew.

        Returns:
            A `Match` whose objective is the mean over the last steps: less is better.

        Raises:
            MatchingError: the problem was made without its symmetry, its outputs are none that the
                objective compares, or learning diverges.
            GraphError: the objective asks about linear layers, and there is none.
            DataError: there is no batch.
        """
        spec = problem.symmetry
        if spec is None:
            raise MatchingError("learned matching needs the symmetry; call it through align()")
        problem = problem.checked()
        data = held(problem, self.samples)
        if self.objective == "output" and problem.task.labelled:
            check_distributions(jax.eval_shape(problem.apply, problem.a, data.x))
        if self.objective == "commutativity":
            linear_sites(trace(problem.apply, problem.a, data.x))
        element, history = self._learn(key, problem, spec, data, progress)
        remark = ""
        if self.control:
            other = dataclasses.replace(problem, b=shuffled(problem.b, key))
            control = self._learn(key, other, spec, data, progress, control=True)
            remark = compare(history, control[1])
        return Match(
            {name: jnp.asarray(index) for name, index in element.permutation.items()},
            jnp.asarray(at_end(history), jnp.float32),
            jnp.asarray(history, jnp.float32),
            jnp.asarray(len(history), jnp.int32),
            "learned",
            Transport(spec, element, {}, remark),
        )

    def _learn(
        self,
        key: jax.Array,
        problem: Problem,
        spec: SymmetrySpec,
        data: Batch,
        progress: ProgressFn | None,
        *,
        control: bool = False,
    ) -> tuple[Element, list[float]]:
        """Returns the best restart's element, and its objective at every step."""
        soft = self.permutations and any(
            is_plain(spec, family) for family in families(spec.permutations)
        )
        phases = (True, False) if soft else (False,)
        chunks = max(1, -(-self.steps // len(phases) // CHUNK))
        begun = self._begun(key, problem, spec, data, control)
        saved = begun.read()
        if saved is None:
            element, _ = closed_form(self.start, problem, spec)
            place = Reached(0, [element] * self.restarts, None, np.zeros((self.restarts, 0)))
        else:
            place = Reached.read(saved)
        line = Line(problem.apply, problem.task, spec)
        loops = choose_loops(problem.apply, problem.a, data.x)
        for phase in range(place.phase, len(phases)):
            elements = [jax.tree.map(jnp.asarray, element) for element in place.elements]
            moved = [spec.apply(element, problem.b) for element in elements]
            states = []
            for restart, b in enumerate(moved):
                own = jax.random.fold_in(key, phase)
                own = jax.random.fold_in(own, restart) if restart else own
                scores = unit_cosines(spec, problem.a, b) if phases[phase] else None
                point = origin(spec, scores=scores)
                point = aside(own, point) if restart and not phase else point
                states.append(begin(own, point))
            history = place.history
            if place.states is not None:
                states = [restored(*pair) for pair in zip(states, place.states, strict=True)]
            while int(states[0].step) < chunks * CHUNK:
                states, losses = advance(
                    line, self, loops, chunks * CHUNK, problem.a, moved, data, states
                )
                history = np.concatenate([history, losses], 1)
                self._check(history)
                begun.write(Reached(phase, elements, states, history).arrays())
                if progress:
                    done = min(history.shape[1], self.steps)
                    progress(done, self.steps, f"learning: {history[:, -1].min():.3f}")
            elements = [
                spec.compose(harden(spec, state.point), element)
                for state, element in zip(states, elements, strict=True)
            ]
            place = Reached(phase + 1, elements, None, history)
        begun.write(place.arrays(), last=True)
        best = int(np.argmin([at_end(list(one)) for one in place.history]))
        return place.elements[best], place.history[best].tolist()

    def _check(self, history: np.ndarray) -> None:
        if not np.isfinite(history[:, -1]).all():
            raise MatchingError(
                f"learned matching diverged after {history.shape[1]} steps; lower learning_rate, "
                f"{self.learning_rate}"
            )

    def _begun(
        self, key: jax.Array, problem: Problem, spec: SymmetrySpec, data: Batch, control: bool
    ) -> Begun:
        """Returns what was begun; a control has a file of its own, beside the other."""
        path = problem.checkpoint
        if path is None:
            return Begun(None, "")
        arrays = hash_arrays([jax.random.key_data(key), problem.a, problem.b, data])
        words = "\n".join((repr(self), spec.to_json(), arrays))
        own = path.with_name(f"{path.stem}-control{path.suffix}") if control else path
        return Begun(own, hashlib.sha256(words.encode()).hexdigest())


@dataclasses.dataclass(frozen=True)
class Reached:
    """How far learning is.

    Attributes:
        phase: of the phases.
        elements: of each restart, at the start of the phase.
        states: of each restart, in the phase; None at its start.
        history: the objective at each step so far [restarts, steps].
    """

    phase: int
    elements: Sequence[Element]
    states: Sequence[Any] | None
    history: np.ndarray

    def arrays(self) -> dict[str, Any]:
        """Returns all of it as named arrays."""
        named: dict[str, Any] = {"phase": np.array(self.phase), "history": self.history}
        for restart, element in enumerate(self.elements):
            for name, array in element_arrays(element).items():
                named[f"{restart}/element/{name}"] = array
        for restart, state in enumerate(self.states or ()):
            for number, leaf in enumerate(jax.tree.leaves(state[1:])):
                named[f"{restart}/state/{number}"] = leaf
        return named

    @classmethod
    def read(cls, named: Mapping[str, np.ndarray]) -> "Reached":
        """Returns what `arrays` returned."""
        history = named["history"]
        parts: list[dict[str, dict[str, np.ndarray]]] = [
            {"element": {}, "state": {}} for _ in history
        ]
        for name, array in named.items():
            restart, _, rest = name.partition("/")
            kind, _, own = rest.partition("/")
            if kind:
                parts[int(restart)][kind][own] = array
        elements = [read_element(part["element"]) for part in parts]
        states = [[part["state"][str(i)] for i in range(len(part["state"]))] for part in parts]
        return cls(int(named["phase"]), elements, states if any(states) else None, history)


def restored(state: State, leaves: Sequence[np.ndarray]) -> State:
    """Returns the state with what was saved of one; keys are as they were."""
    structure = jax.tree.structure(state[1:])
    return State(state.key, *jax.tree.unflatten(structure, [jnp.asarray(leaf) for leaf in leaves]))


def aside(key: jax.Array, point: Coordinates) -> Coordinates:
    """Returns coordinates a little beside others."""
    leaves, structure = jax.tree.flatten(point)
    keys = jax.random.split(key, max(1, len(leaves)))
    moved = [
        leaf + SPREAD * jax.random.normal(own, leaf.shape) / leaf.shape[-1] ** 0.5
        for own, leaf in zip(keys, leaves, strict=False)
    ]
    return jax.tree.unflatten(structure, moved)


def at_end(history: Sequence[float]) -> float:
    """Returns the mean of the last tenth of the steps."""
    return float(np.mean(history[-max(1, len(history) // 10) :]))


def compare(history: Sequence[float], control: Sequence[float]) -> str:
    """Returns what a control says about a B that was matched, in words."""
    start, end, other = float(np.mean(history[:CHUNK])), at_end(history), at_end(control)
    words = (
        f"learned matching brought its objective from {start:.3g} to {end:.3g}; with the entries "
        f"of B's weights shuffled it ends at {other:.3g}"
    )
    if start <= end:
        return f"{words}: it gained nothing"
    share = (start - other) / (start - end)
    if share <= 0:
        return f"{words}: none of the gain is reached without B's weights"
    return f"{words}: {100 * min(share, 1):.0f} % of the gain is reached without B's weights"


def shuffled(variables: Variables, key: jax.Array) -> Variables:
    """Returns variables with the entries of each leaf in random places."""
    leaves, structure = jax.tree.flatten(variables)
    mixed = []
    for i, leaf in enumerate(leaves):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            mixed.append(leaf)
            continue
        order = jax.random.permutation(jax.random.fold_in(key, i), int(np.size(leaf)))
        mixed.append(jnp.reshape(jnp.ravel(leaf)[order], np.shape(leaf)))
    return jax.tree.unflatten(structure, mixed)


def held(problem: Problem, samples: int) -> Batch:
    """Returns the first samples of a problem's batches, on the device.

    Raises:
        DataError: there is no batch.
    """
    parts, need = [], samples
    for batch in problem.read_batches():
        parts.append(jax.tree.map(lambda leaf, need=need: np.asarray(leaf[:need]), batch))
        need -= len(parts[-1].mask)
        if need <= 0:
            break
    if not parts:
        raise DataError("learned matching needs data, and there is no batch")
    return jax.tree.map(lambda *all_: jnp.asarray(np.concatenate(all_)), *parts)
