"""Activation, straight-through and commutativity matching, merging, and the list of methods."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
from matching_nets import ZOO, batch, equal, shaken, variables
from scipy.optimize import linear_sum_assignment

from llfc_jax.errors import DataError, MatchingError
from llfc_jax.graph import trace
from llfc_jax.graph.trace import abstract
from llfc_jax.matching import (
    activation_matching,
    align,
    commutativity_matching,
    output_matching,
    ste_matching,
    weight_matching,
)
from llfc_jax.matching.methods.commutativity import Commutativity, find_layers, read_values
from llfc_jax.matching.search.mixtures import as_mixture
from llfc_jax.merging import merge_many
from llfc_jax.pair import interpolate
from llfc_jax.symmetry import derive, permutation_spec

KEY = jax.random.key(0)
SIZES = (24, 20)


def dense(seed, inputs=12, sizes=SIZES):
    rng = np.random.default_rng(seed)
    widths = [inputs, *sizes, 5]
    return [
        {
            "w": jnp.asarray(rng.normal(size=(m, n)) * np.sqrt(2 / m), jnp.float32),
            "b": jnp.asarray(0.3 * rng.normal(size=n), jnp.float32),
        }
        for m, n in itertools.pairwise(widths)
    ]


def run(v, x):
    for layer in v[:-1]:
        x = jax.nn.relu(x @ layer["w"] + layer["b"][None])
    return x @ v[-1]["w"] + v[-1]["b"][None]


def data(samples=90, size=40, seed=0):
    """Batches of unequal sizes, labelled by a network of its own."""
    x = jax.random.normal(jax.random.key(seed), (samples, 12))
    y = run(dense(99), x).argmax(-1)
    return [(x[i : i + size], y[i : i + size]) for i in range(0, samples, size)]


@pytest.fixture(scope="module")
def pair():
    a, b = dense(0), dense(1)
    return permutation_spec(run, a, jnp.ones((2, 12))), a, b


def hidden(v, x):
    """Hidden activations by hand, in float64."""
    found, x = [], np.asarray(x, np.float64)
    for layer in v[:-1]:
        x = np.maximum(x @ np.asarray(layer["w"], np.float64) + np.asarray(layer["b"]), 0)
        found.append(x)
    return found


@pytest.mark.parametrize("kind", ["uncentred", "centred", "pearson"])
def test_activation_matching_is_the_assignment_of_the_correlations(pair, kind):
    spec, a, b = pair
    x = np.concatenate([x for x, _ in data()])
    scores = []
    for p, q in zip(hidden(a, x), hidden(b, x), strict=True):
        if kind == "uncentred":
            scores.append(p.T @ q / len(x))
        elif kind == "centred":
            scores.append((p - p.mean(0)).T @ (q - q.mean(0)) / len(x))
        else:
            whole = np.corrcoef(np.hstack([p, q]), rowvar=False)[: p.shape[1], p.shape[1] :]
            scores.append(np.nan_to_num(whole))
    found = align("activation", KEY, run, a, b, data(), spec=spec, kind=kind)
    total = 0
    for name, matrix in zip(("0/w", "1/w"), scores, strict=True):
        group = next(g.name for g in spec.groups if (name, 1) in spec.where(g.name))
        index = np.asarray(found.permutation[group])
        best = matrix[linear_sum_assignment(matrix, maximize=True)].sum()
        assert matrix[np.arange(len(index)), index].sum() == pytest.approx(best, rel=1e-5)
        total += best
    assert float(found.objective) == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("name", ["residual_batch", "transformer"])
def test_activations_find_planted_permutations(name):
    apply, a = ZOO[name].apply, variables(name, 3)
    spec = permutation_spec(apply, a, batch())
    planted = spec.random(jax.random.key(7))
    b = shaken(spec.apply(spec.invert(planted), a), 1e-4, 1)
    found = activation_matching(apply, spec, a, b, [(batch(samples=16), jnp.zeros(16, int))])
    assert equal(found.permutation, planted)


def midpoint_loss(spec, permutation, a, b, batches):
    middle = interpolate(a, spec.apply(permutation, b), 0.5)
    losses = [
        optax.softmax_cross_entropy_with_integer_labels(run(middle, x), y) for x, y in batches
    ]
    return float(jnp.concatenate(losses).mean())


@pytest.mark.slow
def test_straight_through_returns_the_best_it_saw(pair):
    spec, a, b = pair
    found = ste_matching(KEY, run, spec, a, b, data(), epochs=6, learning_rate=1e-2)
    history = np.asarray(found.history)
    assert history.shape == (7,)
    weight = weight_matching(KEY, spec, a, b, max_sweeps=20)
    assert history[0] == pytest.approx(
        midpoint_loss(spec, weight.permutation, a, b, data()), rel=1e-4
    )
    assert float(found.objective) == history.min()
    reached = midpoint_loss(spec, found.permutation, a, b, data())
    assert reached == pytest.approx(history.min(), rel=1e-4)
    assert reached < history[0]  # it learnt something


def commutativity_by_hand(spec, permutation, a, b, x):
    """J of a network of dense layers, in float64 NumPy."""
    b = jax.tree.map(np.asarray, spec.apply(permutation, b))
    pairs = list(
        zip([np.asarray(x), *hidden(a, x)], [np.asarray(x), *hidden(b, x)], a, b, strict=True)
    )
    total = 0.0
    for h_a, h_b, l_a, l_b in pairs[1:]:
        w_a, w_b = np.asarray(l_a["w"], np.float64), np.asarray(l_b["w"], np.float64)
        total += np.sum(((h_a - h_b) @ (w_a - w_b)) ** 2) / np.sum((h_a @ w_a) ** 2)
    return total


def test_commutativity_is_what_its_formula_says(pair):
    spec, a, b = pair
    x = data()[0][0]
    graph = trace(run, a, x)
    shapes, structure = jax.tree.flatten(abstract((a, x)))
    objective = Commutativity(run, spec, structure, tuple(shapes))
    assert len(find_layers(graph, derive(graph))) == 2
    values = read_values(objective, a, b, x, jnp.ones(len(x)))
    for seed in range(3):
        permutation = spec.random(jax.random.key(seed))
        ours = objective(values, as_mixture(spec, permutation))
        assert float(ours) == pytest.approx(
            commutativity_by_hand(spec, permutation, a, b, x), rel=1e-4
        )


def test_commutativity_matching_lowers_its_objective_and_never_raises_it(pair):
    spec, a, b = pair
    x = jnp.concatenate([x for x, _ in data()])
    starts = ("weight", "activation", spec.identity())
    found = commutativity_matching(KEY, run, spec, a, b, data(), start=starts, samples=90)
    history = np.asarray(found.history)
    before, after = history[:3], history[3:]
    assert (after <= before).all()
    assert float(found.objective) == pytest.approx(after.min())
    assert after.min() < before.min()
    for i, method in enumerate(("weight", "activation")):
        one = align(method, KEY, run, a, b, data(), spec=spec).permutation
        assert before[i] == pytest.approx(commutativity_by_hand(spec, one, a, b, x), rel=1e-4)
    by_hand = commutativity_by_hand(spec, found.permutation, a, b, x)
    assert by_hand == pytest.approx(float(found.objective), rel=1e-4)


def test_output_matching_is_what_its_formula_says_and_reaches_a_lower_barrier(pair):
    spec, a, b = pair
    x = jnp.concatenate([x for x, _ in data()])

    def by_hand(permutation):
        target = np.asarray((run(a, x) + run(b, x)) / 2, np.float64)
        found = np.asarray(run(interpolate(a, spec.apply(permutation, b), 0.5), x), np.float64)
        p, q = (z - scipy.special.logsumexp(z, axis=1, keepdims=True) for z in (target, found))
        return (np.exp(p) * (p - q)).sum(1).mean()

    starts = ("weight", spec.identity())
    found = output_matching(KEY, run, spec, a, b, data(), start=starts, samples=90)
    history = np.asarray(found.history)
    weight = weight_matching(KEY, spec, a, b).permutation
    assert history[0] == pytest.approx(by_hand(weight), rel=1e-3)
    assert history[1] == pytest.approx(by_hand(spec.identity()), rel=1e-3)
    assert (history[2:] <= history[:2]).all()
    assert float(found.objective) == pytest.approx(by_hand(found.permutation), rel=1e-3)
    assert float(found.objective) == pytest.approx(history[2:].min())
    assert history[2:].min() < 0.8 * history[:2].min()


@pytest.mark.slow
def test_commutativity_finds_a_planted_permutation_of_an_attention_network():
    name = "transformer"
    apply, a = ZOO[name].apply, variables(name, 3)
    spec = permutation_spec(apply, a, batch())
    planted = spec.random(jax.random.key(7))
    b = spec.apply(spec.invert(planted), a)
    batches = [(batch(samples=8), jnp.zeros(8, int))]
    options = {"start": "weight", "samples": 8, "steps": 2, "rounds": 1}
    found = commutativity_matching(KEY, apply, spec, a, b, batches, **options)
    assert float(found.objective) < 1e-8
    assert equal(found.permutation, planted)


def test_merging_many_is_at_least_as_near_as_any_round_before(pair):
    spec, a, _ = pair
    modes = [a] + [
        shaken(spec.apply(spec.random(jax.random.key(seed)), a), 0.05, seed) for seed in range(3)
    ]
    merged = merge_many(KEY, spec, modes)
    assert (np.diff(np.asarray(merged.history)) <= 1e-6).all()
    centres = zip(jax.tree.leaves(merged.variables), jax.tree.leaves(a), strict=True)
    # Every mode was brought back to a, to within its noise.
    assert max(np.abs(np.asarray(p) - np.asarray(q)).max() for p, q in centres) < 0.2
    assert equal(merged.permutations[0], spec.identity())
    for mode, moved, permutation in zip(modes, merged.modes, merged.permutations, strict=True):
        pairs = zip(
            jax.tree.leaves(spec.apply(permutation, mode)), jax.tree.leaves(moved), strict=True
        )
        assert all(np.array_equal(p, q) for p, q in pairs)
    with pytest.raises(MatchingError, match="two or more"):
        merge_many(KEY, spec, [a])


@pytest.mark.parametrize("method", ["ste", "commutativity", "output"])
@pytest.mark.parametrize("start", ["identity", "anchored", "relaxed"])
def test_every_search_starts_where_it_is_asked_to(pair, method, start):
    spec, a, b = pair
    options = {"epochs": 0, "max_sweeps": 1} if method == "ste" else {"steps": 0, "rounds": 0}
    begun = weight_matching(KEY, spec, a, b, start=start, max_sweeps=1).permutation
    if start == "identity" and method != "ste":
        begun = spec.identity()
    named = align(method, KEY, run, a, b, data(), spec=spec, start=start, **options)
    given = spec.identity() if start == "identity" else begun
    by_hand = align(method, KEY, run, a, b, data(), spec=spec, start=given, **options)
    assert equal(named.permutation, begun)
    assert float(named.history[0]) == pytest.approx(float(by_hand.history[0]), rel=1e-5)


def test_without_data_nothing_is_matched_on_data(pair):
    spec, a, b = pair
    for method in ("activation", "ste", "commutativity", "output"):
        with pytest.raises(DataError, match="no batch"):
            align(method, KEY, run, a, b, [], spec=spec)
    with pytest.raises(DataError, match="no batch"):
        align("weight", KEY, run, a, b)
    with pytest.raises(MatchingError, match="pass batches so that the spec can be proved"):
        align("weight", KEY, run, a, b, spec=spec)
    proved = align("weight", KEY, run, a, b, data(), spec=spec)
    assert equal(proved.permutation, weight_matching(KEY, spec, a, b).permutation)
