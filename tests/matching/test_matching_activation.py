"""Activation matching against NumPy in float64: forward pass, correlations, assignment."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matching_nets import ZOO, batch, equal, variables
from scipy.optimize import linear_sum_assignment

from llfc_jax.errors import DataError, MatchingError, ModeError
from llfc_jax.matching import activation_matching
from llfc_jax.matching.methods.activation import KINDS
from llfc_jax.symmetry import permutation_spec, permutation_spec_from_axes

SAMPLES = 48
SIDE, CHANNELS, HIDDEN = 4, 5, 7


def network(w: Any, x: Any) -> Any:
    """Convolution, dense layer on the flattened positions, a residual block, dense layer."""
    numbers = ("NHWC", "HWIO", "NHWC")
    x = jax.lax.conv_general_dilated(x, w["conv"], (1, 1), "SAME", dimension_numbers=numbers)
    x = jax.nn.relu(x + w["shift"][None, None, None]).reshape(len(x), -1)
    x = jax.nn.relu(x @ w["flat"] + w["rise"][None])
    x = jax.nn.relu(x + jax.nn.relu(x @ w["up"] + w["lift"][None]) @ w["down"])
    return x @ w["out"]


def by_hand(w: Any, x: np.ndarray) -> dict[str, list[np.ndarray]]:
    """What each group's ReLUs give, [samples and positions, units], in float64."""
    w = {name: np.asarray(value, np.float64) for name, value in w.items()}
    padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = [
        padded[:, i : i + SIDE, j : j + SIDE] @ w["conv"][i, j] for i in range(3) for j in range(3)
    ]
    conv = np.maximum(sum(windows) + w["shift"], 0)
    flat = np.maximum(conv.reshape(len(x), -1) @ w["flat"] + w["rise"], 0)
    up = np.maximum(flat @ w["up"] + w["lift"], 0)
    after = np.maximum(flat + up @ w["down"], 0)
    return {"conv": [conv.reshape(-1, CHANNELS)], "flat": [flat, after], "up": [up]}


def correlation(kind: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if kind == "uncentred":
        return a.T @ b / len(a)
    if kind == "centred":
        return np.cov(a, b, rowvar=False, bias=True)[: a.shape[1], a.shape[1] :]
    return np.corrcoef(a, b, rowvar=False)[: a.shape[1], a.shape[1] :]


def draw(seed: int) -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    shapes = {
        "conv": (3, 3, 2, CHANNELS),
        "flat": (SIDE * SIDE * CHANNELS, HIDDEN),
        "up": (HIDDEN, HIDDEN + 2),
        "down": (HIDDEN + 2, HIDDEN),
        "out": (HIDDEN, 3),
    }
    w = {k: rng.normal(size=s) / np.sqrt(np.prod(s[:-1])) for k, s in shapes.items()}
    # Inputs are positive: weights that sum to 0, and biases, keep every unit alive (dead ones tie).
    w |= {name: w[name] - w[name].mean(0) for name in ("flat", "up", "down")}
    sizes = {"shift": CHANNELS, "rise": HIDDEN, "lift": HIDDEN + 2}
    w |= {name: 0.5 + rng.random(n) for name, n in sizes.items()}
    return {name: jnp.asarray(value, jnp.float32) for name, value in w.items()}


def images(seed: int, samples: int = SAMPLES) -> np.ndarray:
    rng = np.random.default_rng(100 + seed)
    return rng.normal(size=(samples, SIDE, SIDE, 2)).astype(np.float32)


SPEC = permutation_spec(network, draw(0), images(0, 2))


def batches(x: np.ndarray, size: int = SAMPLES) -> list[tuple[np.ndarray, None]]:
    return [(x[i : i + size], None) for i in range(0, len(x), size)]


@pytest.mark.parametrize("size", [SAMPLES, 20])  # of the batches; the last one is shorter
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_that_of_numpy(kind: Any, size: int) -> None:
    a, b, x = draw(size), draw(size + 1), images(size)
    found = activation_matching(network, SPEC, a, b, batches(x, size), kind=kind)
    of_a, of_b = by_hand(a, x), by_hand(b, x)
    total = 0.0
    for name in of_a:
        scores = sum(correlation(kind, p, q) for p, q in zip(of_a[name], of_b[name], strict=True))
        rows, columns = linear_sum_assignment(scores, maximize=True)
        np.testing.assert_array_equal(found.permutation[name], columns)
        total += scores[rows, columns].sum()
    assert float(found.objective) == pytest.approx(total, rel=1e-5)
    assert found.method == "activation"


def test_large_means_do_not_swamp_the_covariance() -> None:
    """Sums of products in float32 would lose it: the means are a thousand deviations away."""
    a, b, x = draw(1), draw(2), images(3)
    far = {"shift": a["shift"] + 3e3}
    a, b = a | far, b | far
    found = activation_matching(network, SPEC, a, b, batches(x, 16), kind="centred")
    of_a, of_b = by_hand(a, x)["conv"][0], by_hand(b, x)["conv"][0]
    scores = correlation("centred", of_a, of_b)
    _, columns = linear_sum_assignment(scores, maximize=True)
    np.testing.assert_array_equal(found.permutation["conv"], columns)


def test_a_network_is_matched_to_itself() -> None:
    a, x = draw(0), images(0)
    found = activation_matching(network, SPEC, a, a, batches(x))
    assert equal(found.permutation, SPEC.identity())
    assert float(found.objective) == pytest.approx(CHANNELS + 3 * HIDDEN + 2, rel=1e-5)


def test_planted_permutations_are_found_where_groups_stand_inside_others() -> None:
    """Depthwise and grouped convolutions, concatenated channels."""
    apply, a, x = ZOO["grouped"].apply, variables("grouped"), batch(2, 6)
    spec = permutation_spec(apply, a, x)
    planted = spec.random(jax.random.key(7))
    b = spec.apply(spec.invert(planted), a)
    found = activation_matching(apply, spec, a, b, [(x, None)])
    assert equal(found.permutation, planted)


def test_units_that_never_change_go_last_and_do_no_harm() -> None:
    a, x = draw(0), images(0)
    planted = SPEC.random(jax.random.key(3))
    a["lift"] = a["lift"].at[jnp.array([1, 4])].set(-1e3)
    b = SPEC.apply(SPEC.invert(planted), a)
    found = activation_matching(network, SPEC, a, b, batches(x))
    np.testing.assert_array_equal(
        np.delete(found.permutation["up"], [1, 4]), np.delete(planted["up"], [1, 4])
    )
    assert np.isfinite(found.objective)
    # Correlation 1 at every unit that lives, at every place where it is read.
    live = sum((value.std(0) > 0).sum() for values in by_hand(a, x).values() for value in values)
    assert float(found.objective) == pytest.approx(live, rel=1e-5)


def test_progress_counts_the_batches() -> None:
    seen = []
    parts = batches(images(0), 20)
    activation_matching(
        network, SPEC, draw(0), draw(1), parts, progress=lambda *said: seen.append(said)
    )
    assert [said[:2] for said in seen] == [(1, 3), (2, 3), (3, 3)]


def test_what_does_not_fit_is_refused_in_one_line() -> None:
    a, x = draw(0), images(0)
    data = batches(x)
    typed = permutation_spec_from_axes(a, {"up": [("up", 1), ("lift", 0), ("down", 0)]})
    for error, words, arguments, kind in (
        (MatchingError, "'pearson', not 'pearsons'", (SPEC, a, a, data), "pearsons"),
        (DataError, "no batch", (SPEC, a, a, []), "pearson"),
        (MatchingError, "not the one that this network's", (typed, a, a, data), "centred"),
        (ModeError, "shape", (SPEC, a, a | {"out": a["out"][:, :2]}, data), "pearson"),
        (ModeError, "NaN", (SPEC, a, a | {"out": a["out"].at[0, 0].set(jnp.nan)}, data), "pearson"),
    ):  # fmt: skip
        with pytest.raises(error, match=words) as caught:
            activation_matching(network, *arguments, kind=kind)
        assert "\n" not in str(caught.value)
