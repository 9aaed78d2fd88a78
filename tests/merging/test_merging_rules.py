"""Merge rules against their published definitions, written out for tiny models in float64."""

import itertools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from llfc_jax import merging
from llfc_jax.errors import MergeError
from llfc_jax.merging import RULES, InputGram, merge

SHAPES = {"w": (4, 3), "b": (3,), "s": ()}
BASE_RULES = [name for name, rule in RULES.items() if rule.needs_base]
OPTIONS = {
    "weighted": {"weights": (0.5, 0.2, 0.3)},
    "breadcrumbs": {"drop_small": 0.4, "drop_large": 0.1},
    "ties": {"density": 0.5},
    "dare": {"drop": 0.4},
    "della": {"axis": 0},
    "greedy_soup": {"evaluate": lambda tree: -float(np.abs(tree["w"]).sum())},
}
PLAIN = [
    name
    for name in RULES
    if name not in ("git_rebasin", "c2m3") and not RULES[name].needs_statistics
]


def make(count=3, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    base = {name: rng.normal(size=shape).astype(dtype) for name, shape in SHAPES.items()}
    models = [
        {name: np.asarray(leaf + 0.3 * rng.normal(size=leaf.shape), dtype) for name, leaf in
         base.items()}
        for _ in range(count)
    ]  # fmt: skip
    return base, models


def flat(tree):
    return np.concatenate([np.asarray(tree[name], np.float64).reshape(-1) for name in SHAPES])


def flats(models):
    return np.stack([flat(model) for model in models])


def run(name, models, base, **options):
    models = models[:2] if name == "slerp" else models
    return merge(models, base, name, **{**OPTIONS.get(name, {}), **options})


def close(found, expected, tolerance=1e-12):
    np.testing.assert_allclose(flat(found), expected, rtol=tolerance, atol=tolerance)


def test_means_are_those_of_every_entry():
    _, models = make()
    close(merge(models), flats(models).mean(0))
    weights = np.array([1.0, 2.0, 5.0])
    close(merge(models, rule="weighted", weights=(1, 2, 5)), weights / 8 @ flats(models))
    close(
        merge(models, rule="weighted", weights=(1, 2, 5), normalise=False), weights @ flats(models)
    )
    close(merge([models[0]] * 3), flat(models[0]), 0)


@pytest.mark.parametrize("t", [0.0, 0.25, 0.5, 1.0])
def test_slerp_is_the_arc_between_two_vectors(t):
    _, (p, q) = make(2)
    whole = merge([p, q], rule="slerp", t=t, scope="model")
    u, v = flat(p), flat(q)
    angle = np.arccos(u @ v / np.linalg.norm(u) / np.linalg.norm(v))
    close(whole, (np.sin((1 - t) * angle) * u + np.sin(t * angle) * v) / np.sin(angle), 1e-9)
    of_leaf = merge([p, q], rule="slerp", t=t)
    u, v = p["w"].ravel(), q["w"].ravel()
    angle = np.arccos(u @ v / np.linalg.norm(u) / np.linalg.norm(v))
    by_hand = (np.sin((1 - t) * angle) * u + np.sin(t * angle) * v) / np.sin(angle)
    np.testing.assert_allclose(of_leaf["w"].ravel(), by_hand, rtol=1e-9)


def test_slerp_is_a_line_where_there_is_no_arc():
    for p, q in (([1.0, 2.0], [2.0, 4.0]), ([0.0, 0.0], [1.0, 3.0]), ([1.0, 1.0], [-1.0, -1.0])):
        found = merge([np.array(p), np.array(q)], rule="slerp", t=0.25)
        np.testing.assert_allclose(found, 0.75 * np.array(p) + 0.25 * np.array(q), atol=1e-12)


def test_task_arithmetic_adds_scaled_task_vectors():
    base, models = make()
    tasks = flats(models) - flat(base)
    close(merge(models, base, "task_arithmetic", scale=0.4), flat(base) + 0.4 * tasks.sum(0))
    scales = (0.4, -1.0, 2.0)
    close(merge(models, base, "task_arithmetic", scale=scales), flat(base) + scales @ tasks)


def ties_by_hand(tasks, density, scale):
    trimmed = []
    for task in tasks:
        keep = np.sort(np.abs(task))[::-1][: int(density * task.size + 0.5)]
        trimmed.append([t if keep.size and abs(t) >= keep.min() else 0.0 for t in task])
    merged = []
    for entries in zip(*trimmed, strict=True):
        sign = np.sign(sum(entries))
        agree = [entry for entry in entries if entry and np.sign(entry) == sign]
        merged.append(scale * np.mean(agree) if agree else 0.0)
    return np.array(merged)


@pytest.mark.parametrize("density", [0.0, 0.2, 0.5, 1.0])
def test_ties_trims_elects_and_averages(density):
    base, models = make(4)
    tasks = flats(models) - flat(base)
    found = merge(models, base, "ties", density=density, scale=0.7)
    close(found, flat(base) + ties_by_hand(tasks, density, 0.7))
    found = merge(models, base, "ties", density=density, scale=0.7, scope="leaf")
    ends = np.cumsum([0, 12, 3, 1])
    by_leaf = [ties_by_hand(tasks[:, p:q], density, 0.7) for p, q in itertools.pairwise(ends)]
    close(found, flat(base) + np.concatenate(by_leaf))


def test_ties_gives_the_example_of_its_definition():
    base = np.zeros(4)
    models = [np.array([3.0, 1.0, -4.0, 0.5]), np.array([-1.0, 2.0, 5.0, 0.1])]
    found = merge(models, base, "ties", density=0.5)  # keeps 3, -4 and 2, 5
    np.testing.assert_array_equal(found, [3.0, 2.0, 5.0, 0.0])


@pytest.mark.parametrize("scope", ["leaf", "model"])
def test_breadcrumbs_drop_both_ends(scope):
    base, models = make()
    tasks = flats(models) - flat(base)
    ends = [0, 16] if scope == "model" else np.cumsum([0, 12, 3, 1])
    kept = np.zeros_like(tasks)
    for task, out in zip(tasks, kept, strict=True):
        for p, q in itertools.pairwise(ends):
            order = p + np.argsort(np.abs(task[p:q]))
            n = q - p
            here = order[int(0.4 * n + 0.5) : n - int(0.1 * n + 0.5)]
            out[here] = task[here]
    found = run("breadcrumbs", models, base, scale=0.5, scope=scope)
    close(found, flat(base) + 0.5 * kept.sum(0))


def test_dare_keeps_each_entry_with_its_probability_and_rescales():
    base, models = {"w": np.zeros((200, 300))}, [{"w": np.ones((200, 300))}]
    found = merge(models, base, "dare", drop=0.8, seed=1)["w"]
    np.testing.assert_allclose(np.unique(found), [0, 5], rtol=1e-12)
    assert abs(found.mean() - 1) < 5 * np.sqrt(4 / found.size)  # the variance of an entry is 4
    assert (merge(models, base, "dare", drop=0.0)["w"] == 1).all()
    other = merge(models, base, "dare", drop=0.8, seed=2)["w"]
    assert 0.6 < (found == other).mean() < 0.76  # .8² + .2² = .68


def test_dare_elects_signs_as_ties_does():
    base, models = make(4)
    found = run("dare", models, base, combine="elect", drop=0.0)
    close(found, flat(base) + ties_by_hand(flats(models) - flat(base), 1.0, 1.0))


def test_della_drops_small_entries_more_often():
    n, rows = 8, 20_000
    base, task = np.zeros((n, rows)), np.arange(1.0, n + 1)[:, None] * np.ones(rows)
    found = merge([task], base, "della", drop=0.5, spread=0.4, axis=0, seed=3)
    dropped = (found == 0).mean(1)
    expected = 0.3 + 0.4 * np.arange(n)[::-1] / n  # the largest has rank 0
    assert np.abs(dropped - expected).max() < 5 * np.sqrt(0.25 / rows)
    kept = found != 0
    factor = np.broadcast_to((task[:, :1] / (1 - expected[:, None])), found.shape)
    np.testing.assert_allclose(found[kept], factor[kept], rtol=1e-6)


@pytest.mark.parametrize("rule", ["dare", "della"])
def test_random_masks_depend_on_path_place_and_seed_alone(rule):
    base, models = make()
    whole = run(rule, models, base)
    alone = [{"w": model["w"]} for model in models]
    np.testing.assert_array_equal(run(rule, alone, {"w": base["w"]})["w"], whole["w"])
    turned = [dict(reversed(model.items())) for model in models]
    np.testing.assert_array_equal(run(rule, turned, base)["w"], whole["w"])
    assert not np.array_equal(run(rule, models, base, seed=1)["w"], whole["w"])


def test_fisher_weights_every_entry():
    _, models = make()
    rng = np.random.default_rng(5)
    fishers = [{n: rng.exponential(size=s) for n, s in SHAPES.items()} for _ in models]
    by_hand = (flats(fishers) * flats(models)).sum(0) / flats(fishers).sum(0)
    close(merge(models, rule="fisher", statistics=fishers), by_hand)
    tiny = [jax.tree.map(lambda leaf: 1e-300 * leaf, of) for of in fishers]
    close(merge(models, rule="fisher", statistics=tiny), by_hand)
    none = [jax.tree.map(np.zeros_like, of) for of in fishers]
    close(merge(models, rule="fisher", statistics=none), flats(models).mean(0))
    found = merge(models, rule="fisher", statistics=none, weights=(1, 1, 2))
    close(found, [0.25, 0.25, 0.5] @ flats(models))


@pytest.mark.parametrize("shrink", [0.5, 1.0])
def test_regmean_solves_the_normal_equations(shrink):
    _, models = make()
    rng = np.random.default_rng(6)
    inputs = [rng.normal(size=(20, 4)) for _ in models]
    grams = [x.T @ x for x in inputs]
    known = [{"w": InputGram(gram, (0,))} for gram in grams]
    found = merge(models, rule="regmean", statistics=known, shrink=shrink)
    off = [shrink * g + (1 - shrink) * np.diag(np.diag(g)) for g in grams]
    right = sum(g @ model["w"] for g, model in zip(off, models, strict=True))
    np.testing.assert_allclose(found["w"], np.linalg.solve(sum(off), right), rtol=1e-9)
    np.testing.assert_allclose(found["b"], np.mean([m["b"] for m in models], 0), rtol=1e-12)
    turned = [{"w": model["w"].T} for model in models]
    known = [{"w": InputGram(gram, (1,))} for gram in grams]
    other = merge(turned, rule="regmean", statistics=known, shrink=shrink)
    np.testing.assert_allclose(other["w"].T, found["w"], rtol=1e-12)


@pytest.mark.parametrize("shrink", [0.9, 1.0])
def test_regmean_is_the_mean_where_no_input_reaches(shrink):
    _, models = make(2)
    x = np.array([[1.0, 2.0, 0.0, 0.0]])  # rank one, and two inputs never used
    known = [{"w": InputGram(x.T @ x, (0,)), "b": InputGram(np.eye(3), (0,))}] * 2
    found = merge(models, rule="regmean", statistics=known, shrink=shrink)
    close(found, flats(models).mean(0), 1e-9)


def test_the_geometric_median_minimises_the_sum_of_distances():
    _, models = make(5)
    points = flats(models)
    found = flat(merge(models, rule="geometric_median", scope="model"))

    def total(at):
        return np.linalg.norm(points - at, axis=1).sum()

    best = optimize.minimize(total, points.mean(0), tol=1e-14)
    np.testing.assert_allclose(found, best.x, atol=1e-5)
    assert total(found) <= best.fun + 1e-9


def test_the_geometric_median_may_be_one_of_the_models():
    corner = [np.array(p) for p in ([0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.1], [0.1, -1.0])]
    found = merge(corner, rule="geometric_median")
    np.testing.assert_allclose(found, [0, 0], atol=0.03)
    far = [np.array([0.0, 1e6]), np.array([1.0, 2.0]), np.array([1.0, 2.0])]
    np.testing.assert_allclose(merge(far, rule="geometric_median"), [1, 2], atol=1e-6)
    middle = [np.array([x, 0.0]) for x in (-3.0, 0.0, 3.0)]
    np.testing.assert_allclose(merge(middle, rule="geometric_median"), [0, 0], atol=1e-12)
    # The mean is a model, but not the median.
    odd = [np.array(p) for p in ([0.0, 0.0], [1.0, 1.0], [1.0, -1.0], [-2.0, 0.0])]
    found = merge(odd, rule="geometric_median")
    distances = [sum(np.linalg.norm(q - p) for q in odd) for p in (found, *odd)]
    assert distances[0] <= min(distances[1:]) + 1e-12


@pytest.mark.parametrize("rule", ["geometric_median", "karcher"])
def test_models_that_lie_close_together(rule):
    rng = np.random.default_rng(4)
    base = rng.normal(size=1000)
    points = [base + size * rng.normal(size=1000) for size in (1e-4, 1e-4, 2e-4, 1e-3)]
    exact = merge(points, rule=rule)
    narrow = [jnp.asarray(point, jnp.float32) for point in points]
    found = jax.jit(lambda models: merge(models, rule=rule))(narrow)
    by_sums = np.mean([np.abs(exact - point).mean() for point in points])
    assert np.abs(np.asarray(found, np.float64) - exact).mean() < 0.01 * by_sums


def test_the_karcher_mean_balances_the_angles():
    _, models = make(4)
    points = flats(models)
    found = flat(merge(models, rule="karcher", scope="model"))
    assert np.linalg.norm(found) == pytest.approx(np.linalg.norm(points, axis=1).mean(), rel=1e-9)
    units = points / np.linalg.norm(points, axis=1, keepdims=True)
    at = found / np.linalg.norm(found)
    angles = np.arccos(units @ at)
    logs = (angles / np.sin(angles))[:, None] * (units - np.cos(angles)[:, None] * at)
    np.testing.assert_allclose(logs.sum(0), 0, atol=1e-7)
    p, q = ({"w": m["w"] / np.linalg.norm(m["w"])} for m in models[:2])
    half = merge([p, q], rule="slerp", t=0.5)
    np.testing.assert_allclose(merge([p, q], rule="karcher")["w"], half["w"], rtol=1e-9)


def test_the_greedy_soup_takes_what_helps():
    target = np.array([1.0, 1.0])
    models = [{"w": np.array(w)} for w in ([2.0, 1.0], [0.2, 1.0], [9.0, 9.0], [1.0, 1.4])]
    seen = []

    def evaluate(tree):
        seen.append(tree["w"])
        return -np.abs(tree["w"] - target).sum()

    found = merge(models, rule="greedy_soup", evaluate=evaluate)
    # Alone: -1, -.8, -16, -.4. Then [1, 1.4] with [.2, 1]: -.6, with [2, 1]: -.7, with [9, 9]: -8.
    np.testing.assert_allclose(found["w"], [1.0, 1.4])
    assert len(seen) == 7
    found = merge(models[:2], rule="greedy_soup", evaluate=evaluate)
    np.testing.assert_allclose(found["w"], [1.1, 1.0])  # -.1, better than -.8
    lower = merge(models, rule="greedy_soup", evaluate=lambda t: -evaluate(t),
                  higher_is_better=False)  # fmt: skip
    np.testing.assert_allclose(lower["w"], [1.0, 1.4])
    with pytest.raises(MergeError, match="NaN"):
        merge(models, rule="greedy_soup", evaluate=lambda _: np.nan)


SYMMETRIC = [n for n in PLAIN if n not in ("weighted", "slerp", "dare", "della")]


@pytest.mark.parametrize("rule", SYMMETRIC)
def test_the_order_of_models_does_not_matter(rule):
    base, models = make(4)
    expected = flat(run(rule, models, base))
    for order in ((3, 2, 1, 0), (1, 3, 0, 2)):
        close(run(rule, [models[i] for i in order], base), expected, 1e-10)


@pytest.mark.parametrize("rule", [n for n in PLAIN if n != "greedy_soup"])
@pytest.mark.parametrize("factor", [2.0**-40, 1e12])
def test_scaling_all_models_scales_the_merge(rule, factor):
    base, models = make()
    scaled = [jax.tree.map(lambda leaf: factor * leaf, tree) for tree in (base, *models)]
    expected = factor * flat(run(rule, models, base))
    close(run(rule, scaled[1:], scaled[0]), expected, 1e-9 * max(1, factor))


@pytest.mark.parametrize("rule", PLAIN)
def test_equal_models_give_that_model(rule):
    _, models = make(1)
    found = run(rule, models * 3, models[0])
    close(found, flat(models[0]), 1e-12 if rule != "karcher" else 1e-9)


@pytest.mark.parametrize("rule", PLAIN)
def test_jax_and_numpy_agree(rule):
    base, models = make(dtype=np.float32)
    found = run(rule, models, base)
    inside = jax.jit(lambda models, base: merge(models, base, rule, **OPTIONS.get(rule, {})))
    if rule != "greedy_soup":
        models_ = models[:2] if rule == "slerp" else models
        close(inside(models_, base), flat(found), 3e-5)
    on_device = [jax.tree.map(jnp.asarray, tree) for tree in (base, *models)]
    again = run(rule, on_device[1:], on_device[0])
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(again))
    close(again, flat(found), 1e-6)


def test_thresholds_are_exact_over_blocks_and_leaves(monkeypatch):
    from llfc_jax.merging import reading, rule

    monkeypatch.setattr(reading, "BLOCK", 5)
    monkeypatch.setattr(rule, "BLOCK", 5)
    monkeypatch.setattr(rule, "CHUNK", 3)
    for dtype in (np.float32, np.float64):
        base, models = make(3, seed=2, dtype=dtype)
        for density in (0.1, 0.33, 0.8):
            tasks = (flats(models) - flat(base)).astype(dtype).astype(np.float64)
            found = merge(models, base, "ties", density=density)
            close(found, flat(base) + ties_by_hand(tasks, density, 1.0), 1e-6)
    cut = {name: flat(run(name, models, base)) for name in PLAIN}
    on_device = [jax.tree.map(lambda x: jnp.asarray(x, "f4"), tree) for tree in (base, *models)]
    for name in ("dare", "della"):  # their numbers are drawn block by block
        drawn = jax.jit(lambda base, *models, name=name: run(name, models, base))(*on_device)
        close(drawn, cut[name], 1e-5)
    monkeypatch.undo()
    for name in set(PLAIN) - {"dare", "della"}:
        close(run(name, models, base), cut[name], 1e-12)


def test_the_page_lists_every_rule_and_its_class():
    page = (Path(__file__).parents[2] / "docs" / "merging.md").read_text("utf-8")
    table = page.partition("## Rules")[2].partition("## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(RULES)
    for rule in RULES.values():
        assert f"::: llfc_jax.merging.{rule.__name__}\n" in page
        assert "Source: " in rule.__doc__


def test_options_are_checked_when_a_rule_is_built():
    for name, options, words in (
        ("tis", {}, "did you mean 'ties'"),
        ("ties", {"densty": 0.2}, "did you mean 'density'"),
        ("ties", {"density": 20}, "density must lie between 0 and 1, not 20"),
        ("ties", {"density": "all"}, "density must be float"),
        ("slerp", {"t": -0.1}, "t must lie"),
        ("dare", {"drop": 1.0}, "below 1"),
        ("della", {"drop": 0.05}, "probabilities from -0.05"),
        ("ties", {"scope": "layer"}, "one of"),
        ("weighted", {}, "needs a value for 'weights'"),
    ):
        with pytest.raises(MergeError, match=words) as found:
            merging.build_rule(name, **options)
        assert "\n" not in str(found.value)
    with pytest.raises(MergeError, match="no further options"):
        merging.build_rule(merging.Ties(), density=0.1)
