"""What is affine in the parameters is the mixture of the ends' between any two modes."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from graph_nets import SHAPE, batch, networks

from llfc_jax import measures
from llfc_jax import networks as zoo
from llfc_jax.graph import Graph, trace
from llfc_jax.measures import renormalise
from llfc_jax.measures.batch import Points, Reading, TracedNetwork, compiled
from llfc_jax.pair import Curve, interpolate
from llfc_jax.tasks import classification


def normal(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def dense(w: Any, x: Any) -> Any:
    return jax.nn.relu(x.reshape(len(x), -1) @ w["in"] + w["bias"]) @ w["out"]


def standardised(w: Any, x: Any) -> Any:
    """A first layer whose weights are brought to unit length where they are used."""
    return dense(w | {"in": w["in"] / jnp.linalg.norm(w["in"], axis=0, keepdims=True)}, x)


def embedding(w: Any, x: Any) -> Any:
    """Tokens looked up by what stands in x, and then their sum over positions."""
    tokens = (jnp.abs(x.reshape(len(x), -1)) * 10).astype(jnp.int32) % len(w["in"])
    return jax.nn.relu(w["in"][tokens].sum(1) + w["bias"]) @ w["out"]


def tied(w: Any, x: Any) -> Any:
    """The same weights on the way in and again: their square is in no way affine."""
    return jax.nn.relu(x.reshape(len(x), -1) @ (w["in"] * w["in"]) / 3) @ w["out"]


def scaled(w: Any, x: Any) -> Any:
    """Only shaped, added up and divided by numbers: affine up to the ReLU."""
    first = jnp.concatenate([w["in"].T, -w["in"].T])[: w["in"].shape[1]].T / 7 - 1
    return jax.nn.relu(x.reshape(len(x), -1) @ first + 2 * w["bias"]) @ w["out"]


def halved(w: Any, x: Any) -> Any:
    """Weights divided by weights."""
    return jax.nn.relu(x.reshape(len(x), -1) @ (w["in"] / w["bias"])) @ w["out"]


def small(seed: int) -> dict[str, jax.Array]:
    size = int(np.prod(SHAPE[1:]))
    shapes = {"in": (size, 8), "bias": (1, 8), "out": (8, 3)}
    return {name: normal(100 * seed + i, *shape) for i, (name, shape) in enumerate(shapes.items())}


# Name -> (network, whether the product of its first layer is affine).
BY_HAND: dict[str, tuple[Callable[[Any, Any], Any], bool]] = {
    "dense": (dense, True),
    "scaled": (scaled, True),
    "embedding": (embedding, True),
    "standardised": (standardised, False),
    "tied": (tied, False),
    "halved": (halved, False),
}


def checked(apply: Any, a: Any, b: Any, x: Any) -> Graph:
    """The graph, after seeing that θ_α's affine values are the mixture of the ends'."""
    graph = trace(apply, a, x)
    of_a, of_b, of_both = (graph.evaluate(w, x).all for w in (a, b, interpolate(a, b, 0.3)))
    for number in graph.affine:
        mixture = interpolate(of_a[number], of_b[number], 0.3)
        size = 1e-5 * float(jnp.abs(mixture).max()) + 1e-6
        np.testing.assert_allclose(of_both[number], mixture, atol=size)
    return graph


@pytest.mark.parametrize("name", BY_HAND)
def test_networks_by_hand(name: str):
    apply, first = BY_HAND[name]
    graph = checked(apply, small(0), small(1), batch())
    before = next(eq for eq in graph.program.equations if "custom_jvp" in eq.name)
    assert (before.inputs[0] in graph.affine) == first
    assert before.outputs[0] not in graph.affine
    assert graph.program.outputs[0] not in graph.affine


@pytest.mark.slow
@pytest.mark.parametrize("framework", networks())
def test_every_framework(framework: str):
    apply, a, sites = networks(0)[framework]
    graph = checked(apply, a, networks(1)[framework][1], batch())
    assert [s.name for s in graph.select() if s.value in graph.affine] == [sites[0]]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "fields", "sites"), [
    ("mlp", {"widths": (8,)}, ["Dense_0"]),
    ("lenet5", {}, ["Conv_0"]),
    ("resnet_cifar", {"depth": 20, "width": 0.25, "norm": "batch"}, 1),
    ("vit", {"dim": 8, "depth": 1, "heads": 2, "patch": 7}, 1),
])  # fmt: skip
def test_our_networks(name: str, fields: dict[str, Any], sites: Any):
    module, x = zoo.build(name, 10, **fields), normal(7, 3, 28, 28, 1)
    a, b = (zoo.init(module, jax.random.key(seed), x) for seed in (0, 1))
    graph = checked(module.apply, a, b, x)
    found = [s.name for s in graph.select() if s.value in graph.affine]
    assert found == sites if isinstance(sites, list) else len(found) == sites


@pytest.mark.slow
def test_weights_that_are_normalised_first_do_tell():
    """A first layer is no proof of anything only where it is linear in the parameters."""
    many, a = normal(3, 2000, *SHAPE[1:]), small(0)
    b = {name: w + 0.2 * normal(9, *w.shape) for name, w in a.items()}
    for name in ("dense", "standardised"):
        apply, first = BY_HAND[name]
        y = np.asarray(apply(a, many).argmax(1), np.int32)
        rows = np.concatenate([np.flatnonzero(y == c)[:30] for c in range(3)])  # no class for all
        found = measures.llfc(apply, a, b, [(many[rows], y[rows])])
        assert found.baseline[0] > 1e-4
        assert np.asarray(found.informative).tolist() == [not first, True, True], name


@dataclasses.dataclass(frozen=True)
class Outputs:
    """Runs the network at every α and does next to nothing with it."""

    name: str = "outputs"

    def read(self, batch: Any, plan: Any) -> Reading:
        return Reading(on_line=lambda alpha, values: values.output.sum())


def test_no_alpha_computes_the_first_product():
    """Beside a network that differs in that its first layer's input holds a parameter."""
    module, x = zoo.build("mlp", 10, widths=(16, 24)), normal(5, 32, 28, 28, 1)
    a, b = (zoo.init(module, jax.random.key(seed), x) for seed in (0, 1))

    def hidden(w: Any, x: Any) -> Any:
        return module.apply(w, x + 0 * w["params"]["Dense_0"]["bias"].sum())

    points = Points(jnp.linspace(0, 1, 11), renormalise.NOTHING)
    rest = Curve(a, b), points, x, jnp.zeros(32, int), jnp.ones(32)
    flops = []
    for apply in (module.apply, hidden):
        network = TracedNetwork(apply, a, x)
        run = compiled(quickly=False).lower(
            network, classification(), ((Outputs(), None),), (0, 10), "unroll", *rest
        )
        flops.append(run.compile().cost_analysis()["flops"])
    product = 2 * 32 * 784 * 16
    # Eleven times, and now once for each of the ends (and no first kernel is interpolated).
    assert 8.5 * product < flops[1] - flops[0] < 10.5 * product
