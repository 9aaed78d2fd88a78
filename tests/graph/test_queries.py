"""Cuts against a search of all paths, used leaves, and the queries of linear sites."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from llfc_jax import networks
from llfc_jax.graph import Graph, trace
from llfc_jax.graph.queries import exchange_defect, operands, unit_axes, used_leaves
from llfc_jax.graph.trace import is_literal

relu = jax.nn.relu
X = jnp.ones((4, 6))


def reaches(graph: Graph, blocked: int) -> bool:
    """Whether the output can be reached from x without passing a value: a plain search."""
    (start,) = graph.program.inputs
    seen, queue = {start}, [start]
    while queue:
        number = queue.pop()
        for eq in graph.program.equations:
            if number in [a for a in eq.inputs if not is_literal(a)]:
                new = [n for n in eq.outputs if n not in seen and n != blocked]
                seen.update(new)
                queue += new
    return graph.program.outputs[0] in seen


def plain(v, x):
    return relu(relu(x @ v[0]) @ v[1]) @ v[2]


def residual(v, x):
    h = relu(x @ v[0])
    return (h + relu(h @ v[1])) @ v[2]


def two_branches(v, x):
    return relu(x @ v[0]) @ v[2] + relu(x @ v[1]) @ v[2]


def input_twice(v, x):
    h = relu(x @ v[0]) @ v[1]
    return (h + x) @ v[2]


def gated(v, x):
    h = x @ v[0]
    return (jax.nn.silu(h) * h) @ v[1] @ v[2]


def concatenated(v, x):
    h = relu(x @ v[0])
    return jnp.concatenate([h, relu(h @ v[1])], 1)[:, 3:9] @ v[2]


def weights_of_their_own(v, x):
    return relu(x @ (v[0] @ v[1])) @ (v[1] @ v[2])


def unused_branch(v, x):
    _ = jnp.tanh(x @ v[1])
    return relu(x @ v[0]) @ v[2]


def shared(v, x):
    return relu(relu(x @ v[0]) @ v[0]) @ v[2]


def mask_from_the_input(v, x):
    return (relu(x @ v[0]) * (x[:, :1] > 0)) @ v[1] @ v[2]


def normed(v, x):
    h = x @ v[0]
    h = (h - h.mean(-1, keepdims=True)) / h.std(-1, keepdims=True)
    return relu(h) @ v[1] @ v[2]


def split_in_one_equation(v, x):
    p, q = jnp.split(x @ v[0], 2, axis=1)
    return jnp.concatenate([relu(p), q], 1) @ v[1] @ v[2]


GRAPHS = {
    plain: ["0", "0.relu", "1", "1.relu", "2"],
    residual: ["0", "0.relu", "2"],
    two_branches: [],
    input_twice: ["2"],
    gated: ["0", "0.activation", "1", "2"],
    concatenated: ["0", "0.relu", "2"],
    weights_of_their_own: None,
    unused_branch: ["0", "0.relu", "2"],
    shared: ["0", "0.relu", "0#2", "0.relu#2", "2"],
    mask_from_the_input: ["1", "2"],
    normed: ["0", "0.relu", "1", "2"],
    split_in_one_equation: ["0", "1", "2"],
}


@pytest.mark.parametrize("apply", GRAPHS, ids=lambda f: f.__name__)
def test_a_site_cuts_where_no_path_passes_it_by(apply: Any):
    v = [jnp.ones((6, 6)), jnp.ones((6, 6)), jnp.ones((6, 3))]
    graph = trace(apply, v, X)
    searched = [s.name for s in graph.sites if not reaches(graph, s.value)]
    assert list(graph.cut_sites) == searched
    if (expected := GRAPHS[apply]) is not None:
        assert searched == expected


@pytest.mark.parametrize("seed", range(30))
def test_cuts_of_random_graphs_are_those_of_the_search(seed: int):
    rng = np.random.default_rng(seed)
    plan = [(rng.integers(0, i + 1), rng.integers(0, i + 1), rng.random()) for i in range(7)]

    def apply(v: Any, x: Any) -> Any:
        values = [x]
        for i, (p, q, kind) in enumerate(plan):
            h = values[p] @ v[i]
            values.append(relu(h) if kind < 0.6 else h + values[q])
        return values[-1] @ v[-1]

    graph = trace(apply, [jnp.ones((6, 6))] * 8, X)
    searched = [s.name for s in graph.sites if not reaches(graph, s.value)]
    assert list(graph.cut_sites) == searched


def test_cuts_of_a_residual_network():
    net = networks.build("resnet_cifar", 10, width=0.25)
    x = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    graph = trace(net.apply, jax.eval_shape(net.init, jax.random.key(0), x), x)
    blocks = [f"stage{s}_block{b}" for s in (1, 2, 3) for b in range(3)]
    modules = [n for n in graph.cut_sites if graph[n].kind == "module"]
    assert modules == ["norm1", *blocks]
    linear = [n for n in graph.cut_sites if graph[n].kind == "linear"]
    assert linear == ["conv1", "dense"]
    relus = [n for n in graph.cut_sites if graph[n].kind == "activation"]
    assert relus == ["conv1.relu", *(f"{b}/conv2.relu" for b in blocks)]


def test_the_rest_behind_a_cut_is_a_function_of_its_value():
    v = [jax.random.normal(jax.random.key(i), (6, 6)) for i in range(2)] + [jnp.ones((6, 3))]
    graph = trace(residual, v, X)
    ours, other = (graph.evaluate(v, jax.random.normal(jax.random.key(i), X.shape)) for i in (5, 6))
    for name in graph.cut_sites:
        stitched = other.replace({name: ours[name]}).output
        np.testing.assert_allclose(stitched, ours.output, rtol=1e-5)
    inside = other.replace({"1": ours["1"]}).output
    assert float(jnp.abs(inside - ours.output).max()) > 0.1


def test_leaves_that_the_output_depends_on():
    def apply(v: Any, x: Any) -> Any:
        _ = x @ v["unused"]
        h = x @ v["w"][v["order"]]
        return jnp.where(v["mask"][None], h, 0) @ v["o"] + 0 * v["step"]

    v = {
        "w": jnp.ones((6, 4)), "unused": jnp.ones((6, 4)), "order": jnp.arange(6),
        "mask": jnp.ones(4, bool), "o": jnp.ones((4, 3)), "step": jnp.float32(3),
        "counter": jnp.int32(7), "key": jax.random.key(0),
    }  # fmt: skip
    assert sorted(used_leaves(trace(apply, v, X))) == ["mask", "o", "order", "step", "w"]


class Convolutional(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.relu(nn.Conv(4, (3, 3), name="conv")(x))
        x = nn.DenseGeneral((2, 5), name="general")(x.mean(2))
        return nn.Dense(3, name="out")(x.reshape(len(x), -1))


def test_units_of_linear_sites_and_the_defect_of_exchanged_weights():
    net, x = Convolutional(), jax.random.normal(jax.random.key(3), (2, 6, 6, 3))
    a, b = (net.init(jax.random.key(i), x) for i in (0, 1))
    graph = trace(net.apply, a, x)
    assert unit_axes(graph, graph["conv"])[1] == (3,)
    assert unit_axes(graph, graph["general"])[1] == (2, 3)
    assert unit_axes(graph, graph["out"])[1] == (1,)
    runs = [graph.evaluate(v, x) for v in (a, b)]
    for name in ("general", "out"):
        _, feature, weight = operands(graph, graph[name])
        (ha, wa), (hb, wb) = (
            [np.asarray(run.all[n], np.float64) for n in (feature, weight)] for run in runs
        )
        product = "nrc,cij->nrij" if name == "general" else "nc,ck->nk"
        crossed = [np.einsum(product, h, w) for h, w in ((ha, wa), (hb, wb), (hb, wa), (ha, wb))]
        expected = crossed[0] + crossed[1] - crossed[2] - crossed[3]
        found = exchange_defect(graph[name], *runs)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
