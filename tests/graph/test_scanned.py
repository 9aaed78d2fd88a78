"""A small language model whose layers are scanned: what is seen of it, and how to see all."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import llfc_jax
from llfc_jax import matching, symmetry
from llfc_jax.graph import trace
from llfc_jax.measures import MEASURES

WORDS, LENGTH, WIDTH, HIDDEN, LAYERS = 6, 5, 8, 12, 2
ALPHAS = (0.0, 0.5, 1.0)


def init():
    rng = np.random.default_rng(0)

    def normal(*shape):
        return (rng.normal(size=shape) / np.sqrt(shape[-2])).astype("f4")

    return {
        "embed": normal(WORDS, WIDTH),
        "place": normal(LENGTH, WIDTH),
        "layers": {
            "mix": normal(LAYERS, WIDTH, 3 * WIDTH),
            "up": normal(LAYERS, WIDTH, HIDDEN),
            "down": normal(LAYERS, HIDDEN, WIDTH),
        },
        "head": normal(WIDTH, HIDDEN),
        "out": normal(HIDDEN, WORDS),
    }


def layer(h, w):
    """Causal attention with one head, and an MLP, each added to the stream."""
    query, key, value = jnp.split(h @ w["mix"], 3, axis=-1)
    seen = jnp.tril(jnp.ones((LENGTH, LENGTH), bool))[None]
    scores = jnp.where(seen, query @ key.swapaxes(1, 2) / np.sqrt(WIDTH), -1e9)
    h = h + jax.nn.softmax(scores) @ value
    return h + jax.nn.relu(h @ w["up"]) @ w["down"], None


def apply(w, tokens):
    """Logits of the next word."""
    h, _ = jax.lax.scan(layer, w["embed"][tokens] + w["place"][None], w["layers"])
    return jax.nn.relu(h[:, -1] @ w["head"]) @ w["out"]


def unrolled(w, tokens):
    with jax.disable_jit():
        return apply(w, tokens)


@functools.cache
def samples():
    tokens = jax.random.randint(jax.random.key(9), (300, LENGTH), 0, WORDS)
    return tokens, (tokens[:, -1] + tokens[:, -2]) % WORDS


@functools.cache
def modes():
    """Two models that share half of their training, with other batches afterwards."""
    tokens, words = samples()
    optimizer = optax.adam(5e-3)

    def loss(w, batch):
        logits = apply(w, tokens[batch])
        return optax.softmax_cross_entropy_with_integer_labels(logits, words[batch]).mean()

    def step(state, key):
        w, moments = state
        gradient = jax.grad(loss)(w, jax.random.choice(key, 300, (60,)))
        updates, moments = optimizer.update(gradient, moments)
        return (optax.apply_updates(w, updates), moments), None

    @jax.jit
    def go_on(state, key):
        return jax.lax.scan(step, state, jax.random.split(key, 200))[0]

    w = init()
    trunk = go_on((w, optimizer.init(w)), jax.random.key(1))
    return tuple(go_on(trunk, jax.random.key(seed))[0] for seed in (2, 3))


def test_what_stands_before_and_behind_the_scan_is_seen_and_the_rest_is_told():
    graph = trace(apply, modes()[0], samples()[0])
    assert [site.name for site in graph.sites] == ["head", "head.relu", "out"]
    assert graph.opaque == ("scan in the network",)
    assert "kept whole, no sites inside: scan" in graph.explain()


def test_matching_permutes_the_units_of_every_layer_of_the_scan():
    spec = symmetry.permutation_spec(apply, modes()[0], samples()[0])
    # The stream and the head; in each layer its hidden units, and its queries with its keys.
    expected = [WIDTH, HIDDEN, *[HIDDEN, WIDTH] * LAYERS]
    assert sorted(group.size for group in spec.groups) == sorted(expected)
    assert "layers/up axis 0" in spec.explain()


@functools.cache
def studied(network):
    a, b = modes()
    measures = tuple(MEASURES) if network is apply else ("lmc", "llfc")
    return llfc_jax.study(network, a, b, samples(), measures=measures, alphas=ALPHAS)


@pytest.mark.slow
def test_the_whole_report_is_made_of_it():
    found = studied(apply)
    assert found.rows.keys() == MEASURES.keys()
    assert max(found.summary[0]["error_a"], found.summary[0]["error_b"]) < 0.1
    assert "linearly mode connected" in str(found)


def test_seen_through_disable_jit_every_layer_is_there_and_the_numbers_are_the_same():
    inside, outside = studied(unrolled).rows, studied(apply).rows
    for row, other in zip(inside["lmc"], outside["lmc"], strict=True):
        assert row["loss"] == pytest.approx(other["loss"], rel=1e-4)
    at = {(r["layer"], r["alpha"]): r["distance"] for r in inside["llfc"]}
    for row in outside["llfc"]:
        assert at[row["layer"], row["alpha"]] == pytest.approx(row["distance"], rel=1e-2, abs=1e-6)
    assert {"layers/up", "layers/up#2", "layers/up.relu#2", "layers/mix#2"} <= {n for n, _ in at}


def test_units_of_stacked_layers_trade_places_together_and_are_put_back():
    a, _ = modes()
    order = np.random.default_rng(0).permutation(HIDDEN)
    stack = a["layers"] | {
        "up": a["layers"]["up"][..., order], "down": a["layers"]["down"][:, order]
    }  # fmt: skip
    b = a | {"layers": stack}
    spec = symmetry.permutation_spec(unrolled, a, samples()[0])
    found = matching.weight_matching(jax.random.key(0), spec, a, b)
    aligned = spec.apply(found.permutation, b)
    np.testing.assert_array_equal(aligned["layers"]["up"], a["layers"]["up"])
    np.testing.assert_array_equal(aligned["layers"]["down"], a["layers"]["down"])
