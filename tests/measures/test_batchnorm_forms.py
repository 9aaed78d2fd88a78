"""BatchNorm in every algebraic order and under every name: the same reset, checked in float64."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llfc_jax import measures
from llfc_jax.errors import ModeError
from llfc_jax.graph import trace
from llfc_jax.graph.running_statistics import read_normalisers
from llfc_jax.measures import renormalise

rng = np.random.default_rng(0)
X = (rng.normal(size=(60, 6)) * 2 + 1).astype(np.float32)
Y = rng.integers(0, 4, 60)
EPS = 1e-5


@pytest.fixture(autouse=True)
def _as_people_write_it() -> Any:
    with jax.numpy_rank_promotion("allow"):
        yield


def mode(seed: int) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    return {
        "w": draw.normal(size=(6, 9)),
        "r": draw.normal(size=9) / 3,
        "m": draw.normal(size=9),
        "s": draw.uniform(0.5, 2, 9),
        "g": draw.uniform(0.5, 1.5, 9) * draw.choice([-1, 1], 9),
        "c": draw.normal(size=9) / 3,
        "o": draw.normal(size=(9, 4)),
    }


A, B = mode(1), mode(2)
# Path of each of w (weight), r (bias), m (mean), s (variance), g (scale), c (shift), o (output).
NAMES = {
    "flax": "params/l/kernel params/l/bias batch_stats/n/mean batch_stats/n/var params/n/scale "
    "params/n/bias params/o/kernel",
    "torch": "l/weight l/bias n/running_mean n/running_var n/weight n/bias o/weight",
    "haiku": "l/w l/b n/mean_ema/average n/var_ema/average n/scale n/offset o/w",
    "letters": "a b c d e f g",
    "swapped": "l/w l/b n/var n/mean n/bias n/scale o/w",  # names that mislead
}


def named(values: dict[str, Any], style: str) -> Any:
    tree: Any = {}
    for path, key in zip(NAMES[style].split(), "wrmsgco", strict=True):
        *parents, last = path.split("/")
        at = tree
        for parent in parents:
            at = at.setdefault(parent, {})
        at[last] = jnp.asarray(values[key], jnp.float32)
    return tree


def read(tree: Any, style: str) -> tuple[Any, ...]:
    def at(path: str) -> Any:
        value = tree
        for part in path.split("/"):
            value = value[part]
        return value

    return tuple(map(at, NAMES[style].split()))


def folded(h, m, s, g, c):
    factor = g / jnp.sqrt(s + EPS)
    return h * factor + (c - m * factor)


def folded_by_precomputed_shift(h, m, s, g, c):
    factor = g * jax.lax.rsqrt(s + EPS)
    shift = -m * factor + c
    return shift + factor * h


def with_a_broadcast_of_full_shape(h, m, s, g, c):
    root = jnp.broadcast_to(jnp.sqrt(s + EPS), h.shape)
    return (h - jnp.broadcast_to(m, h.shape)) / root * g + c


FORMS = {
    "textbook": lambda h, m, s, g, c: (h - m) / jnp.sqrt(s + EPS) * g + c,
    "rsqrt": lambda h, m, s, g, c: (h - m) * jax.lax.rsqrt(s + EPS) * g + c,
    "flax's order": lambda h, m, s, g, c: (h - m) * (jax.lax.rsqrt(s + EPS) * g) + c,
    "scale first": lambda h, m, s, g, c: g * (h - m) / jnp.sqrt(EPS + s) + c,
    "power": lambda h, m, s, g, c: (h - m) * (s + EPS) ** -0.5 * g + c,
    "square root as a power": lambda h, m, s, g, c: (h - m) / (s + EPS) ** 0.5 * g + c,
    "negative mean": lambda h, m, s, g, c: (-m + h) / jnp.sqrt(s + EPS) * g + c,
    "mean minus h": lambda h, m, s, g, c: (m - h) * -g / jnp.sqrt(s + EPS) + c,
    "division first": lambda h, m, s, g, c: (h / jnp.sqrt(s + EPS) - m / jnp.sqrt(s + EPS)) * g + c,
    "folded": folded,
    "shift precomputed": folded_by_precomputed_shift,
    "full shape": with_a_broadcast_of_full_shape,
    "clamped variance": lambda h, m, s, g, c: (h - m) / jnp.sqrt(jnp.maximum(s, 0) + EPS) * g + c,
    "deviation clamped": lambda h, m, s, g, c: (h - m) * (g / jnp.sqrt(s + EPS)) + (c + 0.0),
    "rows": lambda h, m, s, g, c: jax.vmap(lambda r: (r - m) / jnp.sqrt(s + EPS) * g + c)(h),
}


def network(form: Any, style: str = "letters") -> Any:
    def apply(tree: Any, x: Any) -> Any:
        w, r, m, s, g, c, o = read(tree, style)
        return jax.nn.relu(form(x @ w + r, m, s, g, c)) @ o

    return apply


def loss(v: dict[str, np.ndarray], statistics: bool) -> float:
    """The loss in float64, with the data's own statistics or those that are held."""
    h = X.astype(np.float64) @ v["w"] + v["r"]
    m, s = (h.mean(0), h.var(0)) if statistics else (v["m"], v["s"])
    z = np.maximum((h - m) / np.sqrt(s + EPS) * v["g"] + v["c"], 0) @ v["o"]
    return float(np.mean(np.log(np.exp(z).sum(1)) - z[np.arange(len(z)), Y]))


MIDDLE = {k: (A[k] + B[k]) / 2 for k in A}
RIGHT = [loss(v, True) for v in (B, MIDDLE, A)]


def reset_losses(apply: Any, a: Any, b: Any) -> Any:
    return measures.lmc(
        apply, a, b, [(X, Y)], alphas=(0, 0.5, 1), renormalise="reset", train_batches=[(X, Y)]
    ).loss


@pytest.mark.parametrize("form", FORMS)
def test_a_reset_is_that_of_the_statistics_in_any_algebraic_order(form: str):
    apply, a, b = network(FORMS[form]), named(A, "letters"), named(B, "letters")
    graph = trace(apply, a, X)
    (found,) = graph.normalisers
    assert (found.mean, found.var, found.axes) == ("c", "d", (1,))
    (held,) = read_normalisers(graph, a, jnp.zeros(())).values()
    np.testing.assert_allclose(held.mean, A["m"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(held.variance, A["s"] + EPS, rtol=1e-5)
    np.testing.assert_allclose(held.epsilon, EPS, rtol=1e-3)
    if form in ("textbook", "mean minus h", "folded"):
        np.testing.assert_allclose(reset_losses(apply, a, b), RIGHT, rtol=2e-5)


@pytest.mark.parametrize("style", NAMES)
def test_the_names_of_the_leaves_do_not_matter(style: str):
    apply = network(FORMS["folded"], style)
    (norm,) = trace(apply, named(A, style), X).normalisers
    assert [norm.mean, norm.var] == NAMES[style].split()[2:4]
    if style in ("torch", "swapped"):
        found = reset_losses(apply, named(A, style), named(B, style))
        np.testing.assert_allclose(found, RIGHT, rtol=2e-5)
    assert abs(loss(MIDDLE, False) - RIGHT[1]) > 0.01


def test_biases_folded_into_the_shift():
    """The product without its bias is normalised; the bias stands among the statistics."""

    def apply(v: Any, x: Any) -> Any:
        w, r, m, s, g, c, o = read(v, "letters")
        factor = g / jnp.sqrt(s + EPS)
        return jax.nn.relu(x @ w * factor + ((r - m) * factor + c)) @ o

    found = reset_losses(apply, named(A, "letters"), named(B, "letters"))
    np.testing.assert_allclose(found, RIGHT, rtol=2e-5)


def test_statistics_that_a_counter_corrects():
    """Zero debiasing: what is held is a share 1 - .9^k of the statistics."""

    def apply(v: Any, x: Any) -> Any:
        w, r, m, s, g, c, o = read(v["tree"], "letters")
        share = 1 - 0.9 ** v["count"]
        return jax.nn.relu((x @ w + r - m / share) / jnp.sqrt(s / share + EPS) * g + c) @ o

    a, b = ({"tree": named(v, "letters"), "count": jnp.int32(5)} for v in (A, B))
    np.testing.assert_allclose(reset_losses(apply, a, b), RIGHT, rtol=2e-5)


def test_a_shortcut_past_the_norm_is_left_alone():
    def apply(v: Any, x: Any) -> Any:
        w, r, m, s, g, c, o = read(v, "letters")
        h = x @ w + r
        return (jax.nn.relu(FORMS["textbook"](h, m, s, g, c)) + h) @ o

    def right(v: dict[str, np.ndarray]) -> float:
        h = X.astype(np.float64) @ v["w"] + v["r"]
        y = (h - h.mean(0)) / np.sqrt(h.var(0) + EPS) * v["g"] + v["c"]
        z = (np.maximum(y, 0) + h) @ v["o"]
        return float(np.mean(np.log(np.exp(z).sum(1)) - z[np.arange(len(z)), Y]))

    found = reset_losses(apply, named(A, "letters"), named(B, "letters"))
    np.testing.assert_allclose(found, [right(v) for v in (B, MIDDLE, A)], rtol=2e-5)


NO_STATISTICS = {
    "a trainable shift and scale": lambda h, m, s, g, c: (h - m) * g + c,
    "a learned deviation": lambda h, m, s, g, c: (h - m) / jnp.exp(s),
    "weight norm": lambda h, m, s, g, c: h * g / jnp.sqrt((s**2).sum()) - m,
    "a root of a scale, no mean": lambda h, m, s, g, c: h * jnp.sqrt(s + 1) + c,
    "a shift by the wrong sign": lambda h, m, s, g, c: h / jnp.sqrt(s + EPS) + c,
}


@pytest.mark.parametrize("form", NO_STATISTICS)
def test_what_is_no_batchnorm(form: str):
    graph = trace(network(NO_STATISTICS[form]), named(A, "letters"), X)
    assert graph.normalisers == ()
    with pytest.raises(ModeError, match="needs BatchNorm; without it use 'repair'"):
        renormalise.check(graph, "reset")


def layer_norm(h, m, s, g, c):
    return (h - h.mean(-1, keepdims=True)) / jnp.sqrt(h.var(-1, keepdims=True) + EPS) * g + c


def rms_norm(h, m, s, g, c):
    return h * jax.lax.rsqrt((h**2).mean(-1, keepdims=True) + EPS) * g


def group_norm(h, m, s, g, c):
    parts = h.reshape(len(h), 3, 3)
    parts = (parts - parts.mean(-1, keepdims=True)) / (parts.std(-1, keepdims=True) + EPS)
    return parts.reshape(h.shape) * g + c


@pytest.mark.parametrize("norm", [layer_norm, rms_norm, group_norm])
def test_norms_of_single_samples_need_no_reset(norm: Any):
    graph = trace(network(norm), named(A, "letters"), X)
    assert graph.normalisers == ()
    with pytest.raises(ModeError, match="need no reset") as caught:
        renormalise.check(graph, "reset")
    assert "\n" not in str(caught.value)
    renormalise.check(graph, "repair")
