"""Running a trace: reading and writing sites, derivatives, and calls within calls."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from graph_nets import CHANNELS, batch, by_hand, networks

from llfc_jax.errors import GraphError
from llfc_jax.graph import Graph, features, rows, trace

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def net() -> tuple[Any, Any, Any, Graph]:
    """(apply, a, b, graph) of the Linen network."""
    apply, a, _ = networks(0)["linen"]
    return apply, a, networks(1)["linen"][1], trace(apply, a, batch())


def test_replacing_by_the_same_values_changes_nothing(net: Any):
    apply, a, _, graph = net
    values = graph.evaluate(a, batch())
    for site in graph.sites:
        again = values.replace({site.name: values[site.name]})
        np.testing.assert_array_equal(again.output, apply(a, batch()))


def test_a_replaced_value_goes_through_the_rest_of_the_network(net: Any):
    _, _, b, graph = net
    x = batch()
    of_a, of_b = by_hand(0, x), by_hand(1, x)
    stitched = graph.evaluate(b, x).replace({"hidden": jnp.asarray(of_a[2], jnp.float32)})
    kernel, bias = (np.asarray(b["params"]["out"][key], np.float64) for key in ("kernel", "bias"))
    expected = np.maximum(of_a[2], 0) @ kernel + bias
    np.testing.assert_allclose(stitched.output, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(stitched["hidden.relu"], np.maximum(of_a[2], 0), atol=1e-5)
    np.testing.assert_allclose(stitched["conv"], of_b[0], atol=1e-5)  # above it: untouched


def test_only_what_depends_on_a_written_site_is_evaluated(net: Any):
    _, a, _, graph = net
    values = graph.evaluate(a, batch())
    changed = values.replace({"hidden": jnp.zeros_like(values["hidden"])})
    assert changed["conv"] is values["conv"]
    assert changed["conv.relu"] is values["conv.relu"]
    assert np.abs(changed.output - values.output).max() > 1e-3
    np.testing.assert_allclose(changed.output, a["params"]["out"]["bias"][None].repeat(5, 0))


def test_writing_two_sites_of_which_one_depends_on_the_other(net: Any):
    _, a, _, graph = net
    values = graph.evaluate(a, batch())
    twos = jnp.full((5, 7), 2.0)
    written = values.replace({"conv": jnp.ones_like(values["conv"]), "hidden": twos})
    np.testing.assert_array_equal(written["hidden"], twos)  # not computed anew from conv
    np.testing.assert_array_equal(written.output, values.replace({"hidden": twos}).output)


def test_writing_the_output(net: Any):
    _, a, _, graph = net
    written = graph.evaluate(a, batch()).replace({"out": jnp.ones((5, 3))})
    np.testing.assert_array_equal(written.output, jnp.ones((5, 3)))


def test_stitching_under_jit_and_vmap(net: Any):
    _, a, b, graph = net
    x = batch()

    @jax.jit
    def stitched(start: Any, rest: Any) -> Any:
        return graph.evaluate(rest, x).replace({"conv": graph.evaluate(start, x)["conv"]}).output

    eager = graph.evaluate(b, x).replace({"conv": graph.evaluate(a, x)["conv"]}).output
    np.testing.assert_allclose(stitched(a, b), eager, rtol=1e-5, atol=1e-6)
    pair = jax.tree.map(lambda p, q: jnp.stack([p, q]), a, b)
    swapped = jax.tree.map(lambda p, q: jnp.stack([p, q]), b, a)
    np.testing.assert_allclose(jax.vmap(stitched)(pair, swapped)[0], eager, rtol=1e-5, atol=1e-5)


def test_visitors_see_values_and_change_what_follows(net: Any):
    _, a, _, graph = net
    number = graph["conv"].value
    seen = {}

    def visit(values: Any) -> Any:
        seen["shape"] = values[number].shape
        return {number: 2 * values[number]}

    values = graph.evaluate(a, batch(), {number: visit})
    assert seen["shape"] == (5, 6, 6, CHANNELS)
    plain = graph.evaluate(a, batch())
    expected = plain.replace({"conv": 2 * plain["conv"]})
    np.testing.assert_array_equal(values.output, expected.output)


@pytest.mark.parametrize("relu", [jax.nn.relu, lambda x: jnp.maximum(x, 0)])
def test_gradients_are_the_networks_own_also_at_zero(relu: Any):
    """jax.nn.relu has gradient 0 at 0, maximum(x, 0) has 1/2: each keeps its own."""

    def apply(v: Any, x: Any) -> Any:
        return relu(x @ v["first"]) @ v["second"]

    v = {"first": jnp.eye(3), "second": jnp.ones((3, 2))}
    x = jnp.array([[0.0, 1.0, -1.0]])
    graph = trace(apply, v, x)
    ours = jax.grad(lambda v, x: graph.evaluate(v, x).output.sum(), argnums=(0, 1))(v, x)
    theirs = jax.grad(lambda v, x: apply(v, x).sum(), argnums=(0, 1))(v, x)
    for p, q in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(p, q)
    np.testing.assert_array_equal(ours[1], [[0.0 if relu is jax.nn.relu else 1.0, 2.0, 0.0]])


def test_gradient_with_respect_to_a_feature(net: Any):
    _, a, _, graph = net
    values = graph.evaluate(a, batch())
    found = jax.grad(lambda h: values.replace({"hidden": h}).output.sum())(values["hidden"])
    expected = (values["hidden"] > 0) * a["params"]["out"]["kernel"].sum(1)[None]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@jax.custom_jvp
def product(x: jax.Array, w: jax.Array) -> jax.Array:
    return x @ w


@product.defjvp
def _(primals: Any, tangents: Any) -> Any:
    (x, w), (dx, dw) = primals, tangents
    return x @ w, dx @ w + x @ dw


@jax.custom_vjp
def rectified_product(x: jax.Array, w: jax.Array) -> jax.Array:
    return jnp.maximum(x @ w, 0)


rectified_product.defvjp(
    lambda x, w: (rectified_product(x, w), (x, w)), lambda kept, g: (g @ kept[1].T, kept[0].T @ g)
)


def calls(v: Any, x: Any) -> Any:
    x = jax.checkpoint(lambda x: jax.nn.relu(x @ v["a"]))(x)
    x = rectified_product(product(x, v["b"]), v["c"])
    x = jax.jit(lambda x: jax.jit(jnp.dot)(x, v["d"]))(x)
    return jax.named_call(lambda x: jax.nn.relu(x) @ v["e"], name="last")(x)


def test_calls_within_calls_are_looked_into():
    v = {name: jax.random.normal(jax.random.key(i), (4, 4)) for i, name in enumerate("abcde")}
    x = jax.random.normal(KEY, (3, 4))
    graph = trace(calls, v, x)
    names = ["a", "a.relu", "b", "c", "c.relu", "d", "d.relu", "e"]
    assert [site.name for site in graph.sites] == names
    assert graph.opaque == ()
    values = graph.evaluate(v, x)
    np.testing.assert_array_equal(values.output, calls(v, x))
    after_b = jax.nn.relu(x @ v["a"]) @ v["b"]
    np.testing.assert_allclose(values["b"], after_b, rtol=1e-6)
    ours = jax.grad(lambda x: graph.evaluate(v, x).output.sum())(x)
    plain = jax.grad(
        lambda x: (
            jax.nn.relu(jnp.maximum(jax.nn.relu(x @ v["a"]) @ v["b"] @ v["c"], 0) @ v["d"]) @ v["e"]
        ).sum()
    )(x)
    np.testing.assert_allclose(ours, plain, rtol=1e-4, atol=1e-4)


def controlled(v: Any, x: Any) -> Any:
    x = x @ v["in"]
    x, _ = jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, v["layers"])
    x = jax.lax.cond(x.sum() > 0, lambda x: x @ v["branch"], lambda x: x, x)
    x = jax.lax.while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, s[1] @ v["loop"]), (0, x))[1]
    x = jax.lax.fori_loop(0, 2, lambda i, x: x + 1, x)  # no product inside: nothing is hidden
    return x @ v["out"]


def test_control_flow_is_kept_whole_and_named():
    keys = ("in", "branch", "loop", "out")
    v = {name: jax.random.normal(jax.random.key(i), (4, 4)) / 2 for i, name in enumerate(keys)}
    v["layers"] = jax.random.normal(KEY, (2, 4, 4))
    x = jax.random.normal(KEY, (3, 4))
    graph = trace(controlled, v, x)
    assert [site.name for site in graph.sites] == ["in", "out"]
    assert [name.partition(" ")[0] for name in graph.opaque] == ["scan", "cond", "while"]
    for line in graph.opaque:
        assert f"kept whole, no sites inside: {line}" in graph.explain()
    np.testing.assert_array_equal(graph.evaluate(v, x).output, controlled(v, x))
    ours = jax.jit(lambda v: graph.evaluate(v, x).replace({"in": jnp.ones((3, 4))}).output)(v)
    assert np.isfinite(ours).all()


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x: Any, _: Any) -> Any:
        return nn.relu(nn.Dense(4)(x)), None


class Scanned(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        layers = nn.scan(Layer, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
        return nn.Dense(2, name="out")(layers(name="layers")(x, None)[0])


def test_a_scanned_stack_of_layers_is_said_to_be_hidden():
    x = jnp.ones((3, 4))
    variables = Scanned().init(KEY, x)
    graph = trace(Scanned().apply, variables, x)
    assert [site.name for site in graph.sites] == ["out"]
    assert graph.opaque
    assert all("scan" in line for line in graph.opaque)
    with pytest.raises(GraphError, match="kept whole: scan"):
        graph.select("relu")
    gradient = jax.grad(lambda v: graph.evaluate(v, x).output.sum())(variables)
    theirs = jax.grad(lambda v: Scanned().apply(v, x).sum())(variables)
    for p, q in zip(jax.tree.leaves(gradient), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(p, q, rtol=1e-6)


def test_tracing_inside_a_traced_function():
    def shifted(shift: Any, v: Any, x: Any) -> Any:
        return jax.nn.relu(x @ v["w"] + shift)

    @jax.jit
    def inside(shift: Any, v: Any, x: Any) -> Any:
        graph = trace(functools.partial(shifted, shift), v, x)  # closes over a traced array
        return graph.evaluate(v, x)["w.relu"]

    shift, v, x = -jnp.ones((2, 3)), {"w": jnp.eye(3)}, jnp.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(inside(shift, v, x), (x - 1).clip(0))


def test_leaves_that_are_numbers_or_numpy_arrays():
    def apply(v: Any, x: Any) -> Any:
        return (v["scale"] * x) @ v["w"]

    v = {"scale": 2.0, "w": np.ones((4, 3)), "nothing": None}
    x = np.ones((2, 4), np.float32)
    graph = trace(apply, v, x)
    np.testing.assert_array_equal(graph.evaluate(v, x).output, apply(v, x))


def test_rows_flatten_the_samples_own_axes(net: Any):
    _, a, _, graph = net
    values = graph.evaluate(a, batch())
    found = features(values, graph["conv"])
    np.testing.assert_array_equal(found, values["conv"].reshape(5, -1))
    np.testing.assert_array_equal(rows(graph, graph["conv"].value, values["conv"]), found)


class TestErrors:
    """Each in one line that says what is wrong."""

    def line(self, do: Any) -> str:
        with pytest.raises(GraphError) as caught:
            do()
        message = str(caught.value)
        assert "\n" not in message
        return message

    def test_unknown_site(self, net: Any):
        _, a, _, graph = net
        values = graph.evaluate(a, batch())
        assert "unknown site 'hiden'; did you mean 'hidden'" in self.line(lambda: values["hiden"])
        self.line(lambda: values.replace({"cnv": jnp.zeros(())}))

    def test_wrong_shapes_and_types(self, net: Any):
        _, a, _, graph = net
        x = batch()
        assert "x is float32[3, 6, 6, 2]" in self.line(lambda: graph.evaluate(a, x[:3]))
        assert "x is int32" in self.line(lambda: graph.evaluate(a, x.astype(int)))
        wider = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf], -1), a)
        assert "params/conv/bias is float32[8]" in self.line(lambda: graph.evaluate(wider, x))
        fewer = {"params": {"out": a["params"]["out"]}}
        assert "variables have 2 arrays" in self.line(lambda: graph.evaluate(fewer, x))
        values = graph.evaluate(a, x)
        message = self.line(lambda: values.replace({"out": jnp.zeros((5, 4))}))
        assert message == "site out has shape (5, 3), not (5, 4)"

    def test_a_leaf_that_is_no_array(self, net: Any):
        apply, a, _, _ = net
        message = self.line(lambda: trace(apply, a | {"name": "net"}, batch()))
        assert "a str at 'name'" in message
        assert "closed over" in message

    def test_a_network_that_returns_nothing(self, net: Any):
        apply, a, _, _ = net
        message = self.line(lambda: trace(lambda v, x: (apply(v, x), None)[1], a, batch()))
        assert "returns no array" in message

    def test_a_network_that_fails(self, net: Any):
        apply, a, _, _ = net
        message = self.line(lambda: trace(apply, a, batch()[:, :4]))
        assert "does not accept x of shape (5, 4, 6, 2)" in message

    def test_x_that_is_no_batch(self, net: Any):
        apply, a, _, _ = net
        assert "an array, or a tree" in self.line(lambda: trace(apply, a, 1.0))
        two = {"image": batch(), "other": batch()[:2]}
        assert "an array, or a tree" in self.line(lambda: trace(apply, a, two))


def test_inputs_and_outputs_are_trees(net: Any):
    apply, a, b, x = net[0], net[1], net[2], batch()

    def double(v: Any, x: Any) -> Any:
        return {"sum": apply(v, x["p"] + x["q"]), "raw": (x["q"],)}

    graph = trace(double, a, {"p": x, "q": 2 * x})
    values = graph.evaluate(b, {"p": x, "q": 2 * x})
    np.testing.assert_allclose(values.output["sum"], apply(b, 3 * x), rtol=1e-5)
    assert (np.asarray(values.output["raw"][0]) == np.asarray(2 * x)).all()
    assert [site.name for site in graph.sites] == [site.name for site in trace(apply, a, x).sites]
