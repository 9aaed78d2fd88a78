"""Networks of every framework in evaluation: state, dropout, pickling, equality, errors."""

import pickle
from typing import Any

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from llfc_jax import measures
from llfc_jax.errors import GraphError, ModeError
from llfc_jax.frameworks import Network
from llfc_jax.graph import trace
from llfc_jax.graph.queries import operands

X = jax.random.normal(jax.random.key(0), (8, 6)) * 2 + 1
Y = np.arange(8) % 4


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x: Any, train: bool) -> Any:
        x = nn.BatchNorm(use_running_average=not train, name="bn")(nn.Dense(9, name="a")(x))
        return nn.Dense(4, name="b")(nn.Dropout(0.5, deterministic=not train)(nn.relu(x)))


class Nnx(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.a, self.bn = nnx.Linear(6, 9, rngs=rngs), nnx.BatchNorm(9, rngs=rngs)
        self.drop, self.b = nnx.Dropout(0.5, rngs=rngs), nnx.Linear(9, 4, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.b(self.drop(nnx.relu(self.bn(self.a(x)))))


class Equinox(eqx.Module):
    a: eqx.nn.Linear
    bn: eqx.nn.BatchNorm
    drop: eqx.nn.Dropout
    b: eqx.nn.Linear

    def __init__(self, key: Any, mode: Any = "ema"):
        self.a, self.b = (eqx.nn.Linear(*n, key=key) for n in ((6, 9), (9, 4)))
        self.bn = eqx.nn.BatchNorm(9, "batch", mode=mode)
        self.drop = eqx.nn.Dropout(0.5)

    def __call__(self, x: Any, state: Any, key: Any = None) -> Any:
        h, state = self.bn(self.a(x), state)
        return self.b(self.drop(jax.nn.relu(h), key=key)), state


def haiku_forward(x: Any, is_training: bool) -> Any:
    h = hk.BatchNorm(True, True, 0.9, name="bn")(hk.Linear(9, name="a")(x), is_training)
    h = jax.nn.relu(h)
    return hk.Linear(4, name="b")(hk.dropout(hk.next_rng_key(), 0.5, h) if is_training else h)


HAIKU = hk.transform_with_state(haiku_forward)


def linen(seed: int) -> Any:
    v = Linen().init(jax.random.key(seed), X, train=False)
    _, new = Linen().apply(
        v, X, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(1)}
    )
    return {**v, **new}


def nnx_model(seed: int) -> Any:
    model = Nnx(nnx.Rngs(seed))
    model(X)
    return model


def equinox(seed: int, mode: str = "ema") -> Any:
    model, state = eqx.nn.make_with_state(Equinox)(jax.random.key(seed), mode)
    run = jax.vmap(model, axis_name="batch", in_axes=(0, None, None), out_axes=(0, None))
    return model, run(X, state, jax.random.key(3))[1]


def haiku(seed: int) -> Any:
    p, s = HAIKU.init(jax.random.key(seed), X, True)
    return p, HAIKU.apply(p, s, jax.random.key(1), X, True)[1]


def by_equinox(mode: Any, x: Any) -> Any:
    model = eqx.nn.inference_mode(mode[0])
    return jax.vmap(lambda row: model(row, mode[1])[0])(x)


def by_nnx(model: Any, x: Any) -> Any:
    model.eval()
    out = model(x)
    model.train()
    return out


CASES = {
    "linen": (lambda: Network.of(Linen()), linen, lambda v, x: Linen().apply(v, x, train=False)),
    "nnx": (lambda: Network.of(nnx_model(0)), nnx_model, by_nnx),
    "equinox ema": (lambda: Network.of(equinox(0)), equinox, by_equinox),
    "equinox batch": (
        lambda: Network.of(equinox(0, "batch")[0]), lambda s: equinox(s, "batch"), by_equinox,
    ),
    "haiku": (
        lambda: Network.of(HAIKU, is_training=False),
        haiku,
        lambda mode, x: HAIKU.apply(*mode, None, x, False)[0],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_network_is_what_its_framework_runs_in_evaluation(name: str):
    make, mode_of, run = CASES[name]
    network, mode = make(), mode_of(5)
    variables = network.variables(mode)
    for _ in range(2):  # nothing random
        np.testing.assert_allclose(network.apply(variables, X), run(mode, X), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(run(network.model(variables), X), run(mode, X), rtol=1e-5, atol=1e-6)
    graph = trace(network.apply, variables, X)
    kinds = [s.function or s.kind for s in graph.sites if s.kind != "module"]
    assert kinds == ["linear", "relu", "linear"]
    assert len(graph.normalisers) == 1


@pytest.mark.parametrize("name", CASES)
def test_its_batchnorm_is_reset(name: str):
    """Against the network whose statistics are set by hand, in float64."""
    make, mode_of, _ = CASES[name]
    network, modes = make(), [make().variables(mode_of(i)) for i in (5, 6)]
    found = measures.lmc(
        network.apply, *modes, [(X, Y)], alphas=(0, 0.5, 1), renormalise="reset",
        train_batches=[(X, Y)],
    ).loss  # fmt: skip
    mixed = [modes[1], jax.tree.map(lambda p, q: (p + q) / 2, *modes), modes[0]]
    for v, ours in zip(mixed, found, strict=True):
        graph = trace(network.apply, v, X)
        run, linear = graph.evaluate(v, X), graph.select("linear")
        h, out = (np.asarray(run[s.name], np.float64) for s in linear)
        relu = np.maximum((h - h.mean(0)) / np.sqrt(h.var(0) + 1e-5), 0)  # scale 1, shift 0
        active = np.asarray(run[graph.select("relu")[0].name], np.float64)
        w = np.asarray(run.all[operands(graph, linear[1])[2]], np.float64)
        w = w if w.shape == (9, 4) else w.T
        logits = relu @ w + (out - active @ w)[0]
        right = np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(8), Y])
        np.testing.assert_allclose(ours, right, rtol=1e-3)


@pytest.mark.parametrize("name", CASES)
def test_two_views_of_a_network_are_the_same_program(name: str):
    make, mode_of, _ = CASES[name]
    one, two = make(), make()
    assert one.apply == two.apply
    assert hash(one.apply) == hash(two.apply)
    if name != "haiku":  # its transforms are closures
        again = pickle.loads(pickle.dumps(one))
        variables = one.variables(mode_of(5))
        np.testing.assert_array_equal(again.apply(variables, X), one.apply(variables, X))
        assert again.apply == one.apply


def test_modes_as_parameters_and_state():
    v = linen(3)
    network = Network.of(Linen())
    same = network.variables((v["params"], {"batch_stats": v["batch_stats"]}))
    np.testing.assert_array_equal(network.apply(same, X), network.apply(v, X))

    model = nnx_model(3)
    parts = nnx.state(model, nnx.Param, nnx.BatchStat, ...)[:2]
    network = Network.of(model)
    np.testing.assert_array_equal(
        network.apply(network.variables(tuple(parts)), X),
        network.apply(network.variables(model), X),
    )


def test_other_arguments_make_another_network():
    assert Network.of(Linen()).apply != Network.of(Linen(), train=True).apply
    assert Network.of(HAIKU, is_training=False).apply != Network.of(HAIKU).apply


def needs_rng(x: Any) -> Any:
    return hk.Linear(3)(hk.dropout(hk.next_rng_key(), 0.5, x))


@pytest.mark.parametrize(
    ("run", "kind", "words"),
    [
        (lambda: Network.of(3), GraphError, "a int is no network"),
        (lambda: Network.of(()), GraphError, "a tuple is no network"),
        (lambda: Network.of(equinox(0)).variables(equinox(0)[0]), ModeError, "has state"),
        (lambda: Network.of(equinox(0)).variables({"a": 1}), ModeError, "not a dict"),
        (lambda: Network.of(HAIKU).variables({"a": 1}), ModeError, "(params, state)"),
        (lambda: Network.of(Linen()).variables({"a": 1}), ModeError, "without 'params'"),
        (lambda: trace(Network.of(HAIKU).apply, haiku(0), X), GraphError, "Network.of"),
        (
            lambda: trace(
                Network.of(hk.transform(needs_rng)).apply,
                {"linear": {"w": jnp.ones((6, 3)), "b": jnp.ones(3)}},
                X,
            ),
            GraphError,
            "without randomness",
        ),
    ],
)
def test_what_cannot_be_run_says_so_in_one_line(run: Any, kind: type[Exception], words: str):
    with pytest.raises(kind) as caught:
        run()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
