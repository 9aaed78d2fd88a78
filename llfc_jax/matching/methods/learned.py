"""Learned matching: gradients with respect to a network's symmetry itself.

The loss of the line, the linearity of its features, or both, are lowered over the coordinates of
the symmetry (`beyond.coordinates`), at a random place of the line in each step:

    loss:       L((1 - α) A + α g B)
    linearity:  mean over features of 1 - cos(f_(1-α)A+αgB, (1 - α) f_A + α f_gB)

The linearity needs no labels: it is the layerwise linear feature connectivity itself, made an
objective. The symmetry of a transformer has so many parameters that learning it trains the middle;
a low barrier alone is no evidence that two networks are alike. `control` repeats all with the
entries of each of B's weights shuffled; only what is gained beyond that says something about B.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax

from llfc_jax.errors import DataError, MatchingError, unknown
from llfc_jax.graph import trace
from llfc_jax.matching.assignment.family import families
from llfc_jax.matching.beyond.closed_form import Start, closed_form
from llfc_jax.matching.beyond.coordinates import Coordinates, distance, harden, move, origin
from llfc_jax.matching.beyond.families import is_plain
from llfc_jax.matching.beyond.features import features, read
from llfc_jax.matching.beyond.sets import parse_symmetry
from llfc_jax.matching.beyond.weights import unit_cosines
from llfc_jax.matching.problem import Problem
from llfc_jax.matching.registry import matching_method
from llfc_jax.matching.result import Match
from llfc_jax.pair import interpolate
from llfc_jax.symmetry.beyond.element import Element
from llfc_jax.symmetry.beyond.spec import SymmetrySpec
from llfc_jax.symmetry.beyond.transport import Transport
from llfc_jax.tasks import Batch
from llfc_jax.types import ProgressFn, Variables

Objective = Literal["loss", "linearity", "both"]
STARTS: tuple[str, ...] = get_args(Start)
CHUNK = 20  # steps in one compiled call
SMALLEST = 1e-12


@matching_method("learned")
@dataclasses.dataclass(frozen=True)
class LearnedMatching:
    """Learns the symmetry that connects b with a, by gradients; looks at labels for the loss.

    Attributes:
        symmetry: what may be moved, see `beyond.sets`: "full", "heads+stream", "orthogonal", ...
        objective: "loss" of the line, "linearity" of its features (no labels), or "both".
        start: where learning starts: "activation" or "weight" matching in closed form, or
            "identity".
        permutations: whether permutations are learned too, relaxed, in the first half of the
            steps; they stay where they start otherwise.
        steps: of Adam, rounded up to twenties in each phase: with permutations, and without.
        learning_rate: its rate, with a cosine to zero.
        batch_size: samples of each step.
        samples: of the batches that are used at all.
        low, high: the range of α.
        weight: of the linearity beside the loss, for "both".
        penalty: weight of the squared distance from the start.
        control: learn again with each of B's weights shuffled, and say what that reaches.
    """

    symmetry: str = "full"
    objective: Objective = "both"
    start: Start = "activation"
    permutations: bool = True
    steps: int = 400
    learning_rate: float = 0.02
    batch_size: int = 128
    samples: int = 4096
    low: float = 0.2
    high: float = 0.8
    weight: float = 1.0
    penalty: float = 0.0
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
        if min(self.steps, self.batch_size, self.samples) < 1:
            raise MatchingError("steps, batch_size and samples must be at least 1")
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
            MatchingError: the problem was made without its symmetry, or learning diverges.
            DataError: there is no batch.
        """
        spec = problem.symmetry
        if spec is None:
            raise MatchingError("learned matching needs the symmetry; call it through align()")
        problem = problem.checked()
        data = held(problem, self.samples)
        element, history = self._learn(key, problem, spec, data, progress)
        remark = ""
        if self.control:
            other = dataclasses.replace(problem, b=shuffled(problem.b, key))
            remark = compare(history, self._learn(key, other, spec, data, progress)[1])
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
    ) -> tuple[Element, list[float]]:
        """Returns the element, and the objective at every step."""
        element, _ = closed_form(self.start, problem, spec)
        setting = Setting(problem.apply, problem.task, spec, self)
        soft = self.permutations and any(
            is_plain(spec, family) for family in families(spec.permutations)
        )
        history: list[float] = []
        for phase, learns in enumerate((True, False) if soft else (False,)):
            moved = spec.apply(element, problem.b)
            scores = unit_cosines(spec, problem.a, moved) if learns else None
            steps = self.steps // 2 if soft else self.steps
            point = self._descend(
                jax.random.fold_in(key, phase), setting, problem.a, moved,
                origin(spec, scores=scores), data, steps, history, progress,
            )  # fmt: skip
            element = spec.compose(harden(spec, point), element)
        return element, history

    def _descend(
        self,
        key: jax.Array,
        setting: "Setting",
        a: Variables,
        b: Variables,
        point: Coordinates,
        data: Batch,
        steps: int,
        history: list[float],
        progress: ProgressFn | None,
    ) -> Coordinates:
        """Returns the coordinates after some steps."""
        chunks = max(1, -(-steps // CHUNK))
        state = State(
            point, setting.optimizer(chunks * CHUNK).init(point), jnp.zeros((), jnp.int32)
        )
        for _ in range(chunks):
            state, losses = _steps(setting, chunks * CHUNK, key, a, b, data, state)
            history.extend(np.asarray(losses).tolist())
            if not np.isfinite(history[-1]):
                raise MatchingError(
                    f"learned matching diverged after {len(history)} steps; lower learning_rate, "
                    f"{self.learning_rate}"
                )
            if progress:
                done = min(len(history), self.steps)
                progress(done, self.steps, f"learning: {history[-1]:.3f}")
        return state.point


class State(NamedTuple):
    """Coordinates, and what Adam remembers."""

    point: Coordinates
    memory: Any
    step: jax.Array


@dataclasses.dataclass(frozen=True)
class Setting:
    """What the compiled steps depend on besides arrays."""

    apply: Any
    task: Any
    spec: SymmetrySpec
    options: LearnedMatching

    def optimizer(self, steps: int) -> optax.GradientTransformation:
        """Returns Adam with a cosine to zero."""
        return optax.adam(optax.cosine_decay_schedule(self.options.learning_rate, steps))

    def objective(
        self,
        point: Coordinates,
        a: Variables,
        b: Variables,
        batch: Batch,
        alpha: jax.Array,
        cold: jax.Array,
    ) -> jax.Array:
        """Returns what is lowered."""
        options = self.options
        moved = move(self.spec, b, point, cold)
        middle = interpolate(a, moved, alpha)
        total = options.penalty * distance(self.spec, point) if options.penalty else 0.0
        if options.objective == "loss":
            return total + self.task.train_loss(self.apply(middle, batch.x), batch.y)[0]
        graph = trace(self.apply, a, batch.x)
        runs = [graph.evaluate(v, batch.x) for v in (a, moved, middle)]
        gaps = []
        for feature in features(graph, self.spec):
            of_a, of_b, found = (read(feature, self.spec, r.all[feature.value]) for r in runs)
            mixture = (1 - alpha) * of_a + alpha * of_b
            norms = (jnp.sum(mixture**2, -1) + SMALLEST) * (jnp.sum(found**2, -1) + SMALLEST)
            gaps.append(1 - (jnp.sum(mixture * found, -1) / jnp.sqrt(norms)).mean())
        linearity = sum(gaps, jnp.zeros((), jnp.float32)) / max(1, len(gaps))
        if options.objective == "linearity":
            return total + linearity
        loss = self.task.train_loss(runs[2].output, batch.y)[0]
        return total + loss + options.weight * linearity


@functools.partial(jax.jit, static_argnums=(0, 1))
def _steps(
    setting: Setting,
    steps: int,
    key: jax.Array,
    a: Variables,
    b: Variables,
    data: Batch,
    state: State,
) -> tuple[State, jax.Array]:
    options, optimizer = setting.options, setting.optimizer(steps)
    n = len(jax.tree.leaves(data.x)[0])

    def step(state: State, _: None) -> tuple[State, jax.Array]:
        own = jax.random.split(jax.random.fold_in(key, state.step))
        chosen = jax.random.randint(own[0], (min(options.batch_size, n),), 0, n, jnp.int32)
        batch = jax.tree.map(lambda leaf: leaf[chosen], data)
        alpha = jax.random.uniform(own[1], (), jnp.float32, options.low, options.high)
        done = jnp.asarray(state.step, jnp.float32) / steps
        cold = 0.05 * (0.002 / 0.05) ** done
        value, slope = jax.value_and_grad(setting.objective)(state.point, a, b, batch, alpha, cold)
        updates, memory = optimizer.update(slope, state.memory, state.point)
        point: Any = optax.apply_updates(state.point, updates)
        return State(point, memory, state.step + 1), value

    with jax.default_matmul_precision("highest"):
        return jax.lax.scan(step, state, None, CHUNK)


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
        need -= len(jax.tree.leaves(parts[-1].x)[0])
        if need <= 0:
            break
    if not parts:
        raise DataError("learned matching needs data, and there is no batch")
    return jax.tree.map(lambda *all_: jnp.asarray(np.concatenate(all_)), *parts)
