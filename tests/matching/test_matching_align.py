"""Whatever the method, the matched network computes what it computed before."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matching_nets import drawn

from llfc_jax.errors import MatchingError, ModeError
from llfc_jax.matching import METHODS, align
from llfc_jax.symmetry import permutation_spec

SHAPES = {
    "conv": (3, 3, 1, 5),
    "scale": (5,),
    "flat": (5 * 9, 6),
    "up": (6, 7),
    "down": (7, 6),
    "out": (6, 3),
}
KEY = jax.random.key(0)
# So that each takes as little time as it can.
QUICK: dict[str, dict[str, Any]] = {
    "ste": {"epochs": 1},
    "commutativity": {"steps": 2},
}


def network(w: Any, x: Any) -> Any:
    numbers = ("NHWC", "HWIO", "NHWC")
    x = jax.lax.conv_general_dilated(x, w["conv"], (1, 1), "SAME", dimension_numbers=numbers)
    x = jax.nn.relu(x * w["scale"][None, None, None]).reshape(len(x), -1) @ w["flat"]
    return (x + jax.nn.relu(x @ w["up"]) @ w["down"]) @ w["out"]


def weights(seed: int) -> Any:
    return drawn({k: jax.ShapeDtypeStruct(s, jnp.float32) for k, s in SHAPES.items()}, seed)


X = jax.random.normal(KEY, (12, 3, 3, 1))
Y = jnp.arange(12) % 3
BATCHES = [(X[:8], Y[:8]), (X[8:], Y[8:])]


@pytest.mark.parametrize("method", list(METHODS))
def test_a_matched_network_gives_the_outputs_it_gave(method: str) -> None:
    a, b = weights(0), weights(1)
    before = {name: np.array(leaf) for name, leaf in b.items()}
    found = align(method, KEY, network, None, a, b, BATCHES, **QUICK.get(method, {}))
    spec = permutation_spec(network, a, X)
    spec.validate(found.permutation)
    assert found.method == method
    assert np.isfinite(found.objective)
    moved = spec.apply(found.permutation, b)
    outputs = network(b, X)
    np.testing.assert_allclose(network(moved, X), outputs, atol=1e-5 * float(abs(outputs).max()))
    assert not all(np.array_equal(moved[name], b[name]) for name in b)  # it did move something
    for name, leaf in b.items():
        np.testing.assert_array_equal(leaf, before[name])  # and left the given one alone


@pytest.mark.parametrize("method", list(METHODS))
def test_mistakes_are_told_in_one_line_before_the_data_is_read(method: str) -> None:
    a, b = weights(0), weights(1)
    spec = permutation_spec(network, a, X)

    def unread() -> Any:
        raise AssertionError("the data was read")
        yield

    for error, words, arguments, options in (
        (MatchingError, "unknown option", (a, b), {"restrats": 2}),
        (ModeError, "shape", (a, b | {"up": b["up"][:, :6]}), {}),
        (ModeError, "NaN", (a, b | {"up": b["up"] * jnp.nan}), {}),
        (ModeError, "up", (a, {name: leaf for name, leaf in b.items() if name != "up"}), {}),
    ):
        with pytest.raises(error, match=words) as caught:
            align(method, KEY, network, spec, *arguments, unread(), **options)
        assert "\n" not in str(caught.value)
    other = {"w": jnp.ones((4, 3))}
    with pytest.raises(MatchingError, match="are not the spec's"):
        align(method, KEY, lambda w, x: x @ w["w"], spec, other, other, unread())


@pytest.mark.parametrize("name", list(METHODS))
def test_the_listed_options_are_those_of_the_function(name: str) -> None:
    method = METHODS[name]
    named = inspect.signature(method.function).parameters
    assert all(named[option].default == value for option, value in method.options.items())
    assert QUICK.get(name, {}).keys() <= method.options.keys()
    assert "solver" in method.options


@pytest.mark.parametrize("method", METHODS)
def test_keys_and_counters_among_the_variables_are_left_as_they_are(method: str) -> None:
    a, b = ({"w": weights(i), "key": jax.random.key(i), "step": jnp.array(i)} for i in range(2))

    def apply(v: Any, x: Any) -> Any:
        return network(v["w"], x)

    x, y = jnp.ones((4, 3, 3, 1)), jnp.arange(4) % 3
    options = QUICK.get(method, {})
    found = align(method, KEY, apply, None, a, b, [(x, y)], **options)
    spec = permutation_spec(apply, a, x)
    moved = spec.apply(found.permutation, b)
    assert moved["key"] is b["key"]
    assert moved["step"] is b["step"]
    plain = align(method, KEY, network, None, a["w"], b["w"], [(x, y)], **options)
    np.testing.assert_allclose(found.objective, plain.objective, rtol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_a_network_without_hidden_units_comes_back_as_it_is(method: str) -> None:
    a, b = jnp.ones((4, 3)), jnp.arange(12.0).reshape(4, 3)
    batches = [(jnp.ones((5, 4)), jnp.zeros(5, jnp.int32))]
    found = align(method, KEY, lambda w, x: x @ w, None, a, b, batches)
    assert found.permutation == {}
    assert np.isfinite(found.objective)


@pytest.mark.parametrize("method", METHODS)
def test_a_second_pair_of_a_network_compiles_nothing(method: str) -> None:
    x, y = jnp.ones((4, 3, 3, 1)), jnp.arange(4) % 3

    def apply(w: Any, x: Any) -> Any:  # unknown to any cache so far
        return network(w, x)

    spec = permutation_spec(apply, weights(0), x)
    compiled: list[str] = []

    def compilations(a: Any, b: Any) -> int:
        compiled.clear()
        align(method, KEY, apply, spec, a, b, [(x, y)], **QUICK.get(method, {}))
        return len(compiled)

    pairs = [(weights(i), weights(i + 1)) for i in (0, 2)]
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, _, **more: compiled.append(event) if "backend_compile" in event else None
    )
    try:
        first, second = (compilations(*pair) for pair in pairs)
    finally:
        jax.monitoring.clear_event_listeners()
    assert second == 0
    assert first > 0 or method == "weight"  # which does not depend on the function
