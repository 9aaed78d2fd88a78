"""Matching over the whole symmetry: planted elements, closed forms, learning, files, errors."""

import dataclasses
import functools
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax
from scipy.stats import ortho_group

import llfc_jax
from llfc_jax import matching, symmetry, tasks
from llfc_jax.checkpoints import begun
from llfc_jax.errors import ConfigError, GraphError, MatchingError, WorkdirError
from llfc_jax.matching import LearnedMatching, WeightMatching, align
from llfc_jax.matching.beyond.balance import balance
from llfc_jax.matching.beyond.coordinates import change_of, harden, move, origin, soften
from llfc_jax.matching.beyond.families import nearest
from llfc_jax.matching.beyond.objectives import Line, Objective, Place, lowered
from llfc_jax.matching.beyond.sets import parse_symmetry, restrict
from llfc_jax.matching.methods.learned import compare, shuffled
from llfc_jax.networks.gpt import GPT
from llfc_jax.networks.vit import ViT
from llfc_jax.pair import interpolate
from llfc_jax.symmetry.beyond.element import Action
from llfc_jax.symmetry.checking import random_element
from llfc_jax.tasks import Batch

WORDS, LENGTH = 11, 6
LLAMA = GPT(WORDS, dim=16, depth=2, heads=4, groups=2, mlp_dim=24, length=LENGTH)
GPT2 = GPT(WORDS, dim=16, depth=2, heads=4, mlp_dim=24, length=LENGTH, norm="layer",
           positions="learned", mlp="gelu", bias=True)  # fmt: skip
VIT = ViT(5, patch=2, dim=12, depth=2, heads=3, mlp_dim=20)
TOKENS = np.random.default_rng(0).integers(0, WORDS, (8, LENGTH)).astype(np.int32)
IMAGES = np.random.default_rng(0).normal(size=(8, 4, 4, 1)).astype(np.float32)
SMALL = ViT(5, patch=2, dim=8, depth=1, heads=2, mlp_dim=10, norm="rms")
NETWORKS = {
    "small": (SMALL, IMAGES),
    "llama": (LLAMA, TOKENS),
    "gpt2": (GPT2, TOKENS),
    "vit": (VIT, IMAGES),
}


@functools.cache
def spec_of(name):
    network, x = NETWORKS[name]
    return symmetry.symmetry_spec(network, jax.eval_shape(network.init, jax.random.key(0), x), x)


def weights_of(name, seed):
    """Random weights in which no two units are alike."""
    network, x = NETWORKS[name]
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(network.init, jax.random.key(0), x)
    return jax.tree.map(
        lambda p: np.asarray(
            rng.normal(size=p.shape) * 0.5 / p.shape[0] ** 0.5
            if p.ndim > 1
            else 1 + 0.1 * rng.normal(size=p.shape),
            np.float32,
        ),
        shapes,
    )


def distance(p, q):
    """How far one network is from another, as a share of its norm."""
    pairs = list(zip(jax.tree.leaves(p), jax.tree.leaves(q), strict=True))
    total = sum(float(np.sum((np.asarray(x) - np.asarray(y)) ** 2)) for x, y in pairs)
    return (total / sum(float(np.sum(np.asarray(x) ** 2)) for x, _ in pairs)) ** 0.5


def noisy(tree, share, seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda p: np.asarray(p + share * np.std(p) * rng.normal(size=p.shape), np.float32), tree
    )


def batches_of(name, classes=5):
    x = NETWORKS[name][1]
    y = x if x.dtype == np.int32 else np.arange(len(x)) % classes
    return [(x, y)]


# -- planted elements ----------------------------------------------------------------------------


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "name", ["gpt2", pytest.param("llama", marks=SLOW), pytest.param("vit", marks=SLOW)]
)
def test_weight_matching_brings_planted_elements_back(name):
    network, x = NETWORKS[name]
    spec = restrict(spec_of(name), "full")
    apply = jax.jit(network.apply)
    for seed in range(20):
        a, rng = weights_of(name, seed), np.random.default_rng(seed)
        planted = random_element(spec, rng)
        moved_units = {
            name: p if spec.permutations.group[name].rigid else rng.permuted(p, axis=-1)
            for name, p in planted.permutation.items()
        }
        planted = dataclasses.replace(planted, permutation=moved_units)
        b = noisy(spec.apply(planted, spec.fold(a)), 1e-3, seed)
        problem = matching.Problem(network, spec.permutations, spec.fold(a), b, symmetry=spec)
        match = WeightMatching(symmetry="full")(jax.random.key(0), problem)
        moved = match.transport.to(a).apply(b)
        assert distance(a, moved) < 2e-3, seed
        ends, middle = apply(a, x), apply(interpolate(a, moved, 0.5), x)
        assert np.abs(ends - middle).max() < 2e-2 * np.abs(ends).max()
        np.testing.assert_allclose(apply(b, x), apply(moved, x), atol=1e-3 * np.abs(ends).max())


def test_features_bring_a_planted_element_back():
    network, x = NETWORKS["vit"]
    x = np.random.default_rng(1).normal(size=(64, 4, 4, 1)).astype(np.float32)
    spec, a = restrict(spec_of("vit"), "heads+stream"), weights_of("vit", 3)
    b = spec.apply(spec.random(jax.random.key(1), spread=0.0), spec.fold(a))
    match = align("activation", jax.random.key(0), network, a, b, [(x, np.zeros(64, int))],
                  symmetry="heads+stream")  # fmt: skip
    assert distance(a, match.transport.apply(b)) < 1e-2


def test_turned_pairs_are_the_best_of_many():
    rng = np.random.default_rng(0)
    action, scores = Action("", "orthogonal", pairs=((0, 2), (1, 3))), rng.normal(size=(3, 5, 5))
    best = nearest(scores, action)
    np.testing.assert_allclose(best @ best.swapaxes(1, 2), np.broadcast_to(np.eye(5), best.shape),
                               atol=1e-12)  # fmt: skip
    angles = rng.uniform(0, 2 * np.pi, (500, 1, 2))
    others = action.turned(5, np.cos(angles), np.sin(angles))
    reached = (others * scores).sum((-1, -2))
    assert (reached <= (best * scores).sum((-1, -2)) + 1e-9).all()
    assert (reached.max(0) > (best * scores).sum((-1, -2)) - 0.1).all()


# -- closed forms --------------------------------------------------------------------------------


def test_nearest_orthogonal_matrix_is_the_best_of_many():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(5, 5))
    best = np.vdot(nearest(scores), scores)
    assert all(np.vdot(q, scores) <= best for q in ortho_group.rvs(5, size=200, random_state=rng))
    kept = nearest(scores, Action("", "orthogonal", keeps_ones=True))
    np.testing.assert_allclose(kept @ np.ones(5), np.ones(5), atol=1e-12)
    np.testing.assert_allclose(kept @ kept.T, np.eye(5), atol=1e-12)

    def value(free):  # all orthogonal matrices near it that keep the ones
        skew = np.zeros((5, 5))
        skew[np.triu_indices(5, 1)] = free
        skew -= skew.T
        centre = np.eye(5) - 1 / 5
        skew = centre @ skew @ centre
        return -np.vdot(np.linalg.solve(np.eye(5) + skew, np.eye(5) - skew) @ kept, scores)

    assert minimize(value, np.zeros(10)).fun >= value(np.zeros(10)) - 1e-9


def test_balanced_networks_have_equal_grams_and_the_same_function():
    network, x = NETWORKS["gpt2"]
    spec, a = spec_of("gpt2"), weights_of("gpt2", 1)
    folded = spec.fold(a)
    moved = spec.apply(balance(spec, jax.tree.leaves(folded)), folded)
    np.testing.assert_allclose(network.apply(a, x), network.apply(moved, x), atol=2e-4)
    attention = moved["params"]["block0"]["attention"]
    for one, other in (("query", "key"),):
        grams = []
        for side in (one, other):
            rows = np.concatenate([attention[side]["kernel"], attention[side]["bias"][None]])
            grams.append(np.einsum("dhe,dhf->hef", rows, rows))
        np.testing.assert_allclose(*grams, rtol=1e-3, atol=1e-3)
    assert distance(moved, spec.apply(balance(spec, jax.tree.leaves(moved)), moved)) < 1e-3


def test_balancing_takes_whatever_matrix_was_there_away():
    spec, a = spec_of("gpt2"), spec_of("gpt2").fold(weights_of("gpt2", 2))
    name = next(s.group for s in spec.actions if s.matrix == "any")
    planted = spec.random(jax.random.key(0), spread=0.5)
    only = dataclasses.replace(spec.identity(), matrices={name: planted.matrices[name]})
    p, q = (spec.apply(balance(spec, jax.tree.leaves(v)), v) for v in (a, spec.apply(only, a)))
    found = WeightMatching(symmetry="orthogonal")(
        jax.random.key(0),
        matching.Problem(None, spec.permutations, p, q, symmetry=restrict(spec, "orthogonal")),
    )
    assert distance(p, spec.apply(found.transport.element, q)) < 1e-3


# -- coordinates and learning --------------------------------------------------------------------


def test_coordinates_start_at_the_identity_and_stay_in_the_group():
    spec, a = spec_of("gpt2"), spec_of("gpt2").fold(weights_of("gpt2", 1))
    point = origin(spec)
    assert distance(a, move(spec, a, point, 0.1)) < 1e-6
    moved = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(jax.random.key(0), p.shape), point)
    element = change_of(spec, moved)
    for action in spec.actions:
        if action.matrix == "orthogonal":
            q = element.matrices[action.group]
            np.testing.assert_allclose(q @ q.swapaxes(-1, -2), np.eye(q.shape[-1]), atol=1e-5)
            if action.keeps_ones:
                np.testing.assert_allclose(q.sum(-1), 1, atol=1e-5)
    network, x = NETWORKS["gpt2"]
    np.testing.assert_allclose(
        network.apply(a, x), network.apply(move(spec, a, moved, 0.1), x), atol=1e-3
    )


def test_soft_permutations_are_doubly_stochastic_and_harden_to_the_best():
    scores = jnp.asarray(np.random.default_rng(0).normal(size=(6, 6)), jnp.float32)
    soft = soften(scores, 0.5)
    np.testing.assert_allclose(soft.sum(0), 1, atol=1e-3)
    np.testing.assert_allclose(soft.sum(1), 1, atol=1e-2)
    spec = spec_of("vit")
    name = "block0/mlp1"
    n = spec.shape(name)[0]
    order = np.random.default_rng(1).permutation(n)
    element = harden(spec, origin(spec, scores={name: np.eye(n)[order]}))
    np.testing.assert_array_equal(element.permutation[name], order)


def by_hand(w, x):
    """A network of two linear layers and its hidden features."""
    hidden = np.maximum(x @ w["up"], 0)
    return hidden, hidden @ w["down"]


def test_objectives_are_what_their_formulas_say():
    rng = np.random.default_rng(0)
    shapes = {"up": (4, 12), "down": (12, 3)}
    a, b = ({n: rng.normal(size=s) for n, s in shapes.items()} for _ in range(2))
    x, y, alpha = rng.normal(size=(9, 4)), np.arange(9) % 3, 0.3

    def network(w, x):
        return jnp.maximum(x @ w["up"], 0) @ w["down"]

    middle = {n: alpha * a[n] + (1 - alpha) * b[n] for n in shapes}
    (h_a, f_a), (h_b, f_b), (h, f) = (by_hand(w, x) for w in (a, b, middle))
    mixed, target = (alpha * p + (1 - alpha) * q for p, q in ((h_a, h_b), (f_a, f_b)))
    cosines = (h * mixed).sum(1) / np.linalg.norm(h, axis=1) / np.linalg.norm(mixed, axis=1)
    p, q = log_softmax(target, axis=1), log_softmax(f, axis=1)
    off = (h_a - h_b) @ (a["down"] - b["down"])
    expected = {
        "loss": -q[np.arange(9), y].mean(),
        "linearity": 1 - cosines.mean(),
        "commutativity": (off**2).sum() / (f_a**2).sum(),  # the first layer's x is the same
        "output": (np.exp(p) * (p - q)).sum(1).mean(),
    }
    expected["both"] = expected["loss"] + 2 * expected["linearity"]
    a, b = (jax.tree.map(np.float32, w) for w in (a, b))
    batch = Batch(x.astype(np.float32), y, np.ones(9, np.float32))
    line = Line(network, tasks.build("classification"), symmetry.symmetry_spec(network, a, x))
    for name, value in expected.items():
        found = lowered(Place(line, a, b, jnp.float32(alpha), batch), name, 2.0)
        assert float(found) == pytest.approx(value, rel=1e-4), name
    for name in ("linearity", "commutativity", "output"):  # nothing is amiss between equal ends
        found = lowered(Place(line, a, a, jnp.float32(alpha), batch), name, 1.0)
        assert float(found) == pytest.approx(0, abs=1e-6), name
    padded = batch._replace(
        x=np.concatenate([batch.x, 1e3 * np.ones((2, 4), np.float32)]),
        y=np.concatenate([y, [0, 1]]),
        mask=np.concatenate([batch.mask, np.zeros(2, np.float32)]),
    )
    for name, value in expected.items():
        found = lowered(Place(line, a, b, jnp.float32(alpha), padded), name, 2.0)
        assert float(found) == pytest.approx(value, rel=1e-4), name


def test_outputs_without_labels_are_compared_by_their_squares():
    rng = np.random.default_rng(0)
    a, b = ({"w": rng.normal(size=(4, 6))} for _ in range(2))
    x, alpha = rng.normal(size=(7, 4)), 0.3

    def network(w, x):
        return {"sine": jnp.sin(x @ w["w"]), "square": (x @ w["w"]) ** 2}

    mixed = alpha * a["w"] + (1 - alpha) * b["w"]
    expected = sum(
        ((f(x @ mixed) - alpha * f(x @ a["w"]) - (1 - alpha) * f(x @ b["w"])) ** 2).mean()
        for f in (np.sin, np.square)
    )
    a, b, x = (jax.tree.map(np.float32, v) for v in (a, b, x))
    line = Line(network, tasks.build("regression"), symmetry.symmetry_spec(network, a, x))
    place = Place(line, a, b, jnp.float32(alpha), Batch(x, None, np.ones(7, np.float32)))
    assert float(lowered(place, "output", 1.0)) == pytest.approx(expected, rel=1e-4)
    assert float(lowered(place, "commutativity", 1.0)) == 0  # no layer but that of x


@pytest.mark.parametrize("objective", get_args(Objective))
def test_padded_tokens_count_in_no_objective(objective):
    spec, (a, b) = spec_of("gpt2"), (spec_of("gpt2").fold(weights_of("gpt2", i)) for i in (1, 2))
    mask = np.float32(np.arange(LENGTH) < np.arange(1, 9)[:, None].clip(max=LENGTH))
    line = Line(GPT2.apply, tasks.build("tokens"), spec)
    values = []
    for filler in (0, 5):
        x = np.where(mask > 0, TOKENS, filler).astype(np.int32)
        place = Place(line, a, b, jnp.float32(0.4), Batch(x, TOKENS, mask))
        values.append(float(lowered(place, objective, 1.0)))
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    assert values[0] > 1e-3


@pytest.mark.parametrize(
    ("objective", "network", "error", "words"),
    [
        ("output", lambda w, x: jnp.tanh(x @ w["w"]) @ w["v"][:, :1], MatchingError, "have none"),
        ("output", lambda w, x: (x @ w["w"], x @ w["w"]), MatchingError, "2 outputs"),
        ("commutativity", lambda w, x: x * w["w"][None, :, 0], GraphError, "no linear layer"),
    ],
)
def test_an_objective_that_says_nothing_is_refused(objective, network, error, words):
    rng = np.random.default_rng(0)
    a, b = (
        {"w": rng.normal(size=(4, 6)).astype(np.float32), "v": np.ones((6, 2), np.float32)}
        for _ in range(2)
    )
    data = [(rng.normal(size=(5, 4)).astype(np.float32), np.arange(5) % 3)]
    with pytest.raises(error, match=words):
        align("learned", jax.random.key(0), network, a, b, data, objective=objective, steps=20)


OBJECTIVES = [
    pytest.param("loss", marks=SLOW),
    "both",
    pytest.param("commutativity", marks=SLOW),
    pytest.param("output", marks=SLOW),
]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_learning_lowers_its_objective_and_keeps_the_function(objective):
    network, x = NETWORKS["small"]
    a, b = weights_of("small", 1), weights_of("small", 2)
    found = align("learned", jax.random.key(0), network, a, b, batches_of("small"),
                  symmetry="heads+stream", objective=objective, steps=100, start="identity",
                  low=0.5, high=0.5, learning_rate=0.02, permutations=False)  # fmt: skip
    assert found.objective < np.mean(found.history[:5])
    moved = found.transport.apply(b)
    np.testing.assert_allclose(network.apply(b, x), network.apply(moved, x), atol=1e-3)
    assert distance(b, moved) > 0.1


@pytest.mark.slow
def test_the_same_key_learns_the_same_and_a_control_is_reported():
    network, _ = NETWORKS["small"]
    a, b = weights_of("small", 1), weights_of("small", 2)
    options = {"steps": 20, "control": True, "symmetry": "stream", "objective": "linearity"}
    one, two = (
        align("learned", jax.random.key(3), network, a, b, batches_of("small"), **options)
        for _ in range(2)
    )
    np.testing.assert_array_equal(one.history, two.history)
    assert "shuffled" in one.transport.remark
    words = compare([2.0] * 20, [0.5] * 20), compare([1.0] * 20, [2.0] * 20)
    assert "nothing" in words[1]
    assert "67 % of the gain is reached without B" in compare([2.0] * 20 + [0.5] * 20, [1.0] * 20)


@pytest.mark.slow
def test_learning_that_is_cut_off_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr(begun, "SECONDS", -1.0)
    network, _ = NETWORKS["small"]
    a, b = weights_of("small", 1), weights_of("small", 2)
    options = {"steps": 80, "symmetry": "heads+stream", "objective": "loss", "restarts": 2}

    def learn(key=0, **changes):
        key = jax.random.key(key)
        return align("learned", key, network, a, b, batches_of("small"), **options | changes)

    def cut_off(at):
        def progress(done, *_):
            if done == at:
                raise KeyboardInterrupt

        return progress

    whole, where = learn(), tmp_path / "b.npz"
    for at in (20, 40, 60, 80):
        with pytest.raises(KeyboardInterrupt):
            learn(checkpoint=where, progress=cut_off(at))
    steps = []
    again = learn(checkpoint=where, progress=lambda done, *_: steps.append(done))
    assert steps == []  # all steps were kept
    for one, other in zip(*map(jax.tree.leaves, (whole, again)), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(WorkdirError, match="of other work"):
        learn(key=1, checkpoint=where)
    for damaged in (b"", where.read_bytes()[:200], where.read_bytes()[:-30], b"no archive"):
        (tmp_path / "damaged.npz").write_bytes(damaged)
        with pytest.raises(WorkdirError, match="is damaged"):
            learn(checkpoint=str(tmp_path / "damaged.npz"))


@pytest.mark.slow
def test_of_several_restarts_the_best_is_taken():
    network, _ = NETWORKS["small"]
    a, b = weights_of("small", 1), weights_of("small", 2)
    ends = [
        align("learned", jax.random.key(0), network, a, b, batches_of("small"), restarts=restarts,
              steps=40, symmetry="heads+stream", objective="loss").objective
        for restarts in (1, 2, 4)
    ]  # fmt: skip
    assert ends[0] >= ends[1] >= ends[2]


def test_shuffling_keeps_the_entries_of_each_leaf():
    b = weights_of("vit", 2)
    for old, new in zip(*map(jax.tree.leaves, (b, shuffled(b, jax.random.key(0)))), strict=True):
        np.testing.assert_array_equal(np.sort(np.ravel(old)), np.sort(np.ravel(new)))


# -- files, configs, errors ----------------------------------------------------------------------


def test_a_transport_is_written_and_read_again(tmp_path):
    network, x = NETWORKS["gpt2"]
    a, b = weights_of("gpt2", 1), weights_of("gpt2", 2)
    match = align("weight", jax.random.key(0), network, a, b, batches_of("gpt2"), symmetry="full")
    match.transport.save(tmp_path / "b.npz")
    read = symmetry.load(tmp_path / "b.npz")
    later = weights_of("gpt2", 3)
    for one, other in zip(
        *(jax.tree.leaves(t.apply(later)) for t in (match.transport, read)), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        network.apply(later, x), network.apply(read.apply(later), x), atol=1e-3
    )


def test_a_line_in_a_s_frame_is_the_line_between_the_folded_networks():
    network, x = NETWORKS["llama"]
    spec, a, b = spec_of("llama"), weights_of("llama", 1), weights_of("llama", 2)
    match = align("weight", jax.random.key(0), network, a, b, batches_of("llama"), symmetry="full")
    folded = spec.apply(match.transport.element, spec.fold(b))
    for alpha in (0.25, 0.5):
        np.testing.assert_allclose(
            network.apply(interpolate(spec.fold(a), folded, alpha), x),
            network.apply(interpolate(a, match.transport.apply(b), alpha), x),
            atol=1e-3,
        )


def test_a_study_takes_variants_of_methods():
    network, x = NETWORKS["vit"]
    a, b = weights_of("vit", 1), weights_of("vit", 2)
    study = llfc_jax.study(
        network, a, b, batches_of("vit"), measures=("lmc",),
        align=("none", "weight", "heads"),
        match={"heads": {"method": "weight", "symmetry": "heads"}},
    )  # fmt: skip
    assert [row["align"] for row in study.summary] == ["none", "weight", "heads"]
    moved = study.aligned["pair", "heads"].variables
    np.testing.assert_allclose(network.apply(b, x), network.apply(moved, x), atol=1e-3)
    with pytest.raises(ConfigError, match="'heds'"):
        llfc_jax.study(network, a, b, batches_of("vit"), align=("heds",))
    for name in ("none", "activation", "a/b", "", "a b"):
        with pytest.raises(ConfigError, match="a name of its own"):
            llfc_jax.study(network, a, b, batches_of("vit"), align=("none",),
                           match={name: {"method": "weight"}})  # fmt: skip


def test_parts_of_a_symmetry_are_named_and_checked():
    assert parse_symmetry("permutation") == frozenset()
    assert parse_symmetry("full") == {"heads", "stream", "scales"}
    assert parse_symmetry("orthogonal") == {"heads", "stream", "orthogonal"}
    for build in (WeightMatching, LearnedMatching):
        with pytest.raises(MatchingError, match=r"head.*heads"):
            build(symmetry="head")
    restricted = restrict(spec_of("gpt2"), "heads")
    assert all(
        (action.matrix == "none") or action.group in restricted.permutations.parents
        for action in restricted.actions
    )
    assert restrict(spec_of("gpt2"), "permutation").degrees == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"objective": "los"}, "objective"),
        ({"steps": 0}, "at least 1"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"penalty": -1.0}, "penalty"),
        ({"low": 0.8, "high": 0.2}, "low <= high"),
        ({"start": "weights"}, "weight"),
    ],
)
def test_wrong_options_of_learning_get_one_line(options, words):
    with pytest.raises(MatchingError, match=words) as caught:
        LearnedMatching(**options)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_that_cannot_be_kept_is_refused(tmp_path):
    network, _ = NETWORKS["vit"]
    a, b = weights_of("vit", 1), weights_of("vit", 2)
    with pytest.raises(MatchingError, match="WeightMatching keeps no checkpoint"):
        align("weight", jax.random.key(0), network, a, b, batches_of("vit"), checkpoint="b.npz")
    with pytest.raises(WorkdirError, match="is a directory"):
        begun.Begun(tmp_path, "").read()


def test_learning_needs_data():
    network, _ = NETWORKS["vit"]
    with pytest.raises(llfc_jax.errors.DataError, match="no batch"):
        align("learned", jax.random.key(0), network, weights_of("vit", 1), weights_of("vit", 2), [])
