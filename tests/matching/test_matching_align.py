"""Whatever the method, the matched network computes what it computed before."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matching_nets import drawn, equal

from llfc_jax import networks, symmetry
from llfc_jax.errors import MatchingError, ModeError
from llfc_jax.frameworks import Network
from llfc_jax.matching import (
    METHODS,
    Match,
    Method,
    Problem,
    activation_matching,
    align,
    build_method,
    matching_method,
)
from llfc_jax.symmetry import permutation_spec, permutation_spec_from_axes

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
    "learned": {"steps": 1, "objective": "loss", "symmetry": "heads", "start": "identity"},
    "commutativity": {"steps": 2, "rounds": 1},
    "output": {"steps": 4, "rounds": 1},
}


# Learning compiles a large program.
EVERY = [pytest.param(m, marks=pytest.mark.slow) if m == "learned" else m for m in METHODS]


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


@pytest.mark.parametrize("method", EVERY)
def test_a_matched_network_gives_the_outputs_it_gave(method: str) -> None:
    a, b = weights(0), weights(1)
    before = {name: np.array(leaf) for name, leaf in b.items()}
    found = align(method, KEY, network, a, b, BATCHES, **QUICK.get(method, {}))
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
        (MatchingError, "unknown field of", (a, b), {"restrats": 2}),
        (ModeError, "shape", (a, b | {"up": b["up"][:, :6]}), {}),
        (ModeError, "NaN", (a, b | {"up": b["up"] * jnp.nan}), {}),
        (ModeError, "up", (a, {name: leaf for name, leaf in b.items() if name != "up"}), {}),
    ):
        with pytest.raises(error, match=words) as caught:
            align(method, KEY, network, *arguments, unread, spec=spec, **options)
        assert "\n" not in str(caught.value)
    other = {"w": jnp.ones((4, 3))}
    with pytest.raises(MatchingError, match="are not the spec's"):
        align(method, KEY, lambda w, x: x @ w["w"], other, other, unread, spec=spec)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_a_frozen_dataclass_of_its_options(name: str) -> None:
    method = build_method(name)
    assert method == build_method(name) == METHODS[name]()
    assert isinstance(method, Method)
    words = (METHODS[name].__doc__ or "").partition("\n")[0]
    assert 20 < len(words) < 100
    assert words.endswith(".")
    with pytest.raises(dataclasses.FrozenInstanceError):
        method.solver = "scipy"  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("wieght", {}, "did you mean 'weight'"),
        ("weight", {"restart": 2}, "did you mean 'restarts'"),
        ("weight", {"restarts": "two"}, "restarts must be int, not 'two'"),
        ("weight", {"restarts": 0}, "at least 1"),
        ("weight", {"max_sweeps": 0}, "at least 1"),
        ("weight", {"tolerance": -1.0}, "0 or more"),
        ("weight", {"tolerance": float("nan")}, "0 or more"),
        ("weight", {"start": "anchord"}, "did you mean 'anchored'"),
        ("weight", {"start": ["identity", "relxed"]}, "did you mean 'relaxed'"),
        ("weight", {"start": []}, "start is empty"),
        ("weight", {"start": 3}, "start must be"),
        ("weight", {"visits": []}, "visits is empty"),
        ("weight", {"solver": "scip"}, "solver must be one of"),
        ("activation", {"kind": "person"}, "kind must be one of"),
        ("ste", {"epochs": -1}, "0 or more"),
        ("ste", {"epochs": 1.5}, "epochs must be int"),
        ("ste", {"learning_rate": 0}, "above 0"),
        ("ste", {"learning_rate": float("nan")}, "above 0"),
        ("ste", {"max_sweeps": 0}, "at least 1"),
        ("ste", {"start": "weight"}, "unknown start"),
        ("commutativity", {"start": "wait"}, "unknown start"),
        ("commutativity", {"samples": 0}, "at least 1"),
        ("output", {"steps": -1}, "0 or more"),
        ("output", {"rounds": -1}, "0 or more"),
    ],
)
def test_options_are_checked_before_anything_runs(name: str, options: Any, words: str) -> None:
    with pytest.raises(MatchingError, match=words) as caught:
        build_method(name, options)
    assert "\n" not in str(caught.value)


def test_a_method_is_added_by_one_class() -> None:
    @matching_method("reverse")
    @dataclasses.dataclass(frozen=True)
    class Reverse:
        """Puts all units in the opposite order."""

        def __call__(self, key: Any, problem: Problem, progress: Any = None) -> Match:
            order = {n: p[..., ::-1] for n, p in problem.spec.identity().items()}
            nothing = jnp.zeros(())
            return Match(order, nothing, nothing[None], jnp.array(1), "reverse")

    try:
        a, b = weights(0), weights(1)
        found = align("reverse", KEY, network, a, b, BATCHES)
        assert found.method == "reverse"
        np.testing.assert_array_equal(found.permutation["up"], np.arange(7)[::-1])
    finally:
        METHODS.pop("reverse")


def test_a_wrong_spec_is_refused_and_a_right_one_proved_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def apply(w: Any, x: Any) -> Any:  # no test has proved its spec before
        return jnp.sort(x @ w["in"], -1) @ w["out"]

    a, b = (drawn({"in": X_SHAPE, "out": OUT_SHAPE}, seed) for seed in (0, 1))
    x = np.random.default_rng(3).normal(size=(4, 6)).astype(np.float32)
    wrong = permutation_spec_from_axes(a, {"in": [("in", 1), ("out", 0)]})
    with pytest.raises(MatchingError) as caught:
        align("weight", KEY, apply, a, b, [(x, None)], spec=wrong)
    assert "\n" not in str(caught.value)
    proofs: list[Any] = []
    monkeypatch.setattr(symmetry, "check", lambda *arguments: proofs.append(arguments))
    for _ in range(3):
        align("weight", KEY, apply, a, b, [(x, None)])
    assert len(proofs) == 1


X_SHAPE, OUT_SHAPE = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((6, 5), (5, 3)))


def test_networks_are_modules_or_functions() -> None:
    module = networks.build("mlp", 3, widths=(6, 5))
    x = np.random.default_rng(3).normal(size=(8, 4)).astype(np.float32)
    a, b = (networks.init(module, jax.random.key(seed), x) for seed in (0, 1))
    by_module = align("weight", KEY, module, a, b, [(x, None)])
    by_function = align("weight", KEY, module.apply, a, b, [(x, None)])
    assert equal(by_module.permutation, by_function.permutation)
    spec = permutation_spec(module.apply, a, x)
    problem = Problem(module, spec, a, b, [(x, None)])
    found = build_method("activation")(KEY, problem)
    expected = activation_matching(module.apply, spec, a, b, [(x, None)])
    assert equal(found.permutation, expected.permutation)


def test_the_networks_of_other_frameworks_bring_their_own_modes() -> None:
    eqx = pytest.importorskip("equinox")
    a, b = (eqx.nn.MLP(4, 3, 6, 2, key=jax.random.key(seed)) for seed in (0, 1))
    x = np.random.default_rng(3).normal(size=(8, 4)).astype(np.float32)
    found = align("weight", KEY, a, a, b, [(x, None)])
    view = Network.of(a)
    spec = permutation_spec(view.apply, view.variables(a), x)
    moved = spec.apply(found.permutation, view.variables(b))
    expected = view.apply(view.variables(b), x)
    np.testing.assert_allclose(view.apply(moved, x), expected, atol=1e-5)


@pytest.mark.parametrize("method", EVERY)
def test_keys_and_counters_among_the_variables_are_left_as_they_are(method: str) -> None:
    a, b = ({"w": weights(i), "key": jax.random.key(i), "step": jnp.array(i)} for i in range(2))

    def apply(v: Any, x: Any) -> Any:
        return network(v["w"], x)

    x, y = jnp.ones((4, 3, 3, 1)), jnp.arange(4) % 3
    options = QUICK.get(method, {})
    found = align(method, KEY, apply, a, b, [(x, y)], **options)
    spec = permutation_spec(apply, a, x)
    moved = spec.apply(found.permutation, b)
    assert moved["key"] is b["key"]
    assert moved["step"] is b["step"]
    plain = align(method, KEY, network, a["w"], b["w"], [(x, y)], **options)
    np.testing.assert_allclose(found.objective, plain.objective, rtol=1e-5)


@pytest.mark.parametrize("method", EVERY)
def test_a_network_without_hidden_units_comes_back_as_it_is(method: str) -> None:
    a, b = jnp.ones((4, 3)), jnp.arange(12.0).reshape(4, 3)
    batches = [(jnp.ones((5, 4)), jnp.zeros(5, jnp.int32))]
    found = align(method, KEY, lambda w, x: x @ w, a, b, batches)
    assert found.permutation == {}
    assert np.isfinite(found.objective)


@pytest.mark.parametrize("method", EVERY)
def test_a_second_pair_of_a_network_compiles_nothing(method: str) -> None:
    x, y = jnp.ones((4, 3, 3, 1)), jnp.arange(4) % 3

    def apply(w: Any, x: Any) -> Any:  # unknown to any cache so far
        return network(w, x)

    spec = permutation_spec(apply, weights(0), x)
    compiled: list[str] = []

    def compilations(a: Any, b: Any) -> int:
        compiled.clear()
        align(method, KEY, apply, a, b, [(x, y)], spec=spec, **QUICK.get(method, {}))
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
