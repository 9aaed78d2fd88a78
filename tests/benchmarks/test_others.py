"""The networks that others trained, as we hold them: against loops in NumPy; their symmetries."""

import jax
import jax.numpy as jnp
import numpy as np
import others
import others_madmom
import others_pocketnet
import pytest

from llfc_jax import symmetry

UNITS = 4


@pytest.fixture(autouse=True)
def as_readers_have_it():
    with jax.numpy_rank_promotion("allow"):
        yield


def detector(seed):
    draw = np.random.default_rng(seed)
    weights = {}
    for layer in range(others_madmom.LAYERS):
        wide = 6 if layer == 0 else UNITS
        weights[f"layer{layer}.weights"] = draw.normal(size=(wide, UNITS))
        weights[f"layer{layer}.recurrent"] = draw.normal(size=(UNITS, UNITS))
        weights[f"layer{layer}.bias"] = draw.normal(size=UNITS)
    weights |= {"out.weights": draw.normal(size=(UNITS, 1)), "out.bias": draw.normal(size=1)}
    return {name: array.astype(np.float32) for name, array in weights.items()}


@pytest.fixture(scope="module")
def music():
    return np.random.default_rng(9).normal(size=(3, 7, 6)).astype(np.float32)


def test_the_detector_is_a_loop_over_frames(music):
    weights = {name: array.astype(float) for name, array in detector(0).items()}
    expected = []
    for clip in music.astype(float):
        h = clip
        for layer in range(others_madmom.LAYERS):
            state, states = np.zeros(UNITS), []
            for frame in h:
                z = frame @ weights[f"layer{layer}.weights"] + weights[f"layer{layer}.bias"]
                state = np.tanh(z + state @ weights[f"layer{layer}.recurrent"])
                states.append(state)
            h = np.array(states)
        expected.append((h @ weights["out.weights"] + weights["out.bias"])[:, 0])
    ours = others_madmom.apply(detector(0), jnp.asarray(music))
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_planted_signs_are_turned_back(music):
    a = detector(0)
    sign = np.array([1, -1, -1, 1], np.float32)
    planted = dict(a)
    for name, by in (("weights", sign), ("bias", sign), ("recurrent", sign * sign[:, None])):
        planted[f"layer1.{name}"] = a[f"layer1.{name}"] * by
    planted["layer2.weights"] = a["layer2.weights"] * sign[:, None]
    turned = others_madmom.flip_signs(a, planted, music)
    for name, array in a.items():
        np.testing.assert_array_equal(turned[name], array)


def test_turned_signs_leave_another_networks_function(music):
    b = detector(1)
    turned = others_madmom.flip_signs(detector(0), b, music)
    assert any((turned[name] != b[name]).any() for name in b)
    kept = others.evaluate(others_madmom.apply, [b, turned], music, 2)
    np.testing.assert_allclose(kept[1], kept[0], atol=1e-5)


def test_members_come_apart_from_inputs(tmp_path):
    weights = {"fold0/w": np.ones(2), "fold1/w": np.zeros(2), "fold1/v.b": np.ones(1)}
    np.savez(tmp_path / "x.npz", x=np.arange(5), rest=np.arange(6), **weights)
    x, members, rest = others.load(tmp_path / "x.npz", ["x"], 3)
    assert x["x"].tolist() == [0, 1, 2]
    assert rest["rest"].tolist() == [0, 1, 2]
    assert [sorted(member) for member in members] == [["w"], ["v.b", "w"]]


def pocket_net(width=6, narrow=4, heads=2):
    """Weights and inputs of a small one: five atoms with three neighbours, two points."""
    draw = np.random.default_rng(0)
    weights = {"emb.weight": draw.normal(size=(9, width))}

    def add(name, out, wide):
        weights[f"{name}.weight"] = draw.normal(size=(out, wide)) / wide**0.5
        weights[f"{name}.bias"] = draw.normal(size=out)

    add("bur", width, 4)
    for layer in range(others_pocketnet.LAYERS):
        name = f"layers.{layer}"
        add(f"{name}.msg.0", width, 2 * width + 16)
        add(f"{name}.msg.2", width, width)
        add(f"{name}.gate", width, 2 * width + 16)
        add(f"{name}.upd.0", width, 2 * width)
        add(f"{name}.upd.2", width, width)
        weights[f"{name}.n1.weight"] = draw.normal(size=width)
        weights[f"{name}.n1.bias"] = draw.normal(size=width)
    sizes = [("proj", narrow, width), ("att.0", 5, 22 + narrow), ("att.2", heads, 5)]
    sizes += [("val", narrow, 22 + narrow), ("pfn.0", 5, 3), ("pfn.2", 5, 5)]
    sizes += [("out.0", 7, heads * narrow + 5 + narrow), ("out.3", 5, 7), ("out.5", 1, 5)]
    for name, out, wide in sizes:
        add(name, out, wide)
    weights = {name: array.astype(np.float32) for name, array in weights.items()}
    shapes = {"types": (5,), "counts": (5, 4), "near_atoms": (5, 3), "distance": (5, 3)}
    shapes |= {"bonded": (5, 3), "nearest": (2,), "atoms_at_point": (2, 4)}
    shapes |= dict.fromkeys(("point_distance", "axial", "radial"), (2, 4))
    shapes |= {"point_features": (2, 3)}
    x = {}
    for name in others_pocketnet.INPUTS:
        shape = (3, *shapes[name])
        x[name] = draw.uniform(0, 12, shape).astype(np.float32)
        if name in ("types", "near_atoms", "nearest", "atoms_at_point"):
            x[name] = draw.integers(0, 5, shape).astype(np.int32)
    return weights, x | {"bonded": x["distance"] < others_pocketnet.R_ATOM}


def test_messages_are_summed_over_bonded_neighbours():
    weights, x = pocket_net()
    one = {name: value[0] for name, value in x.items()}
    h = np.random.default_rng(3).normal(size=(5, 6))
    w = {name: np.asarray(value, float) for name, value in weights.items()}

    def dense(name, v):
        return w[f"layers.0.{name}.weight"] @ v + w[f"layers.0.{name}.bias"]

    def sigmoid(v):
        return 1 / (1 + np.exp(-v))

    def two(name, v):
        v = dense(f"{name}.0", v)
        return dense(f"{name}.2", v * sigmoid(v))

    expected = []
    for i in range(5):
        total = np.zeros(6)
        for j, distance in zip(one["near_atoms"][i], one["distance"][i], strict=True):
            if distance < 6:
                basis = np.exp(-(((distance - np.linspace(0, 6, 16)) / (6 / 16)) ** 2))
                z = np.concatenate([h[i], h[j], basis])
                total += two("msg", z) * sigmoid(dense("gate", z))
        new = h[i] + two("upd", np.concatenate([h[i], total / 12]))
        new = (new - new.mean()) / np.sqrt(new.var() + 1e-5)
        expected.append(new * w["layers.0.n1.weight"] + w["layers.0.n1.bias"])
    run = jax.jit(others_pocketnet.pass_messages, static_argnums=1)
    ours = run(weights, "layers.0", jnp.asarray(h, jnp.float32), one)
    np.testing.assert_allclose(ours, expected, rtol=2e-4, atol=2e-4)


def test_the_units_of_pocketnet_are_free_to_be_permuted(monkeypatch):
    monkeypatch.setattr(others_pocketnet, "LAYERS", 2)
    weights, x = pocket_net()
    spec = symmetry.permutation_spec(others_pocketnet.apply, weights, x)
    permutation = spec.random(jax.random.key(1))
    moved = spec.apply(permutation, weights)
    assert (np.asarray(moved["emb.weight"]) != np.asarray(weights["emb.weight"])).any()
    run = jax.jit(others_pocketnet.apply)
    before, after = (run(w, x) for w in (weights, moved))
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4)
