"""Curves between modes and planes through them, against plain NumPy in float64."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llfc_jax import landscape, measures
from llfc_jax.checkpoints import begun
from llfc_jax.errors import ConfigError, LlfcError, ModeError, WorkdirError
from llfc_jax.graph import trace
from llfc_jax.landscape.fit import run_on_batch
from llfc_jax.pair import Curve

rng = np.random.default_rng(0)
X = rng.normal(size=(90, 5)).astype(np.float32)
Y = np.argmax(X @ rng.normal(size=(5, 3)) + 0.3 * rng.normal(size=(90, 3)), 1)
EPS = 1e-5


def mode(seed: int) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    shapes = {"in": (5, 8), "bias": (8,), "mean": (8,), "var": (8,), "gain": (8,), "out": (3, 8)}
    made = {name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    made["var"] = np.abs(made["var"]) + 0.5
    return made


def mlp(w: Any, x: Any) -> Any:
    return jax.nn.relu(x @ w["in"] + w["bias"]) @ w["out"].T


def normed(w: Any, x: Any) -> Any:
    h = x @ w["in"]
    h = (h - w["mean"]) / jnp.sqrt(w["var"] + EPS) * w["gain"] + w["bias"]
    return jax.nn.relu(h) @ w["out"].T


@pytest.fixture(autouse=True)
def _plain_rank_promotion() -> Any:
    with jax.numpy_rank_promotion("allow"):
        yield


def plain(w: Any, *, statistics: bool = False) -> tuple[float, float]:
    """Loss and error in float64; of the normed network with the data's own statistics."""
    w = {k: np.asarray(v, np.float64) for k, v in w.items()}
    h = X.astype(np.float64) @ w["in"]
    if statistics:
        h = (h - h.mean(0)) / np.sqrt(h.var(0) + EPS) * w["gain"]
    z = np.maximum(h + w["bias"], 0) @ w["out"].T
    loss = np.log(np.exp(z).sum(1)) - z[np.arange(len(z)), Y]
    return float(loss.mean()), float(np.mean(z.argmax(1) != Y))


A, B, C = mode(1), mode(2), mode(3)


def mixed(p: Any, q: Any, alpha: float) -> Any:
    return {k: alpha * np.float64(p[k]) + (1 - alpha) * np.float64(q[k]) for k in p}


def on_curve(kind: str, alpha: float) -> Any:
    if kind == "bezier":
        return {k: alpha**2 * np.float64(A[k]) + 2 * alpha * (1 - alpha) * np.float64(C[k])
                + (1 - alpha) ** 2 * np.float64(B[k]) for k in A}  # fmt: skip
    if kind == "chain":
        return mixed(A, C, 2 * alpha - 1) if alpha > 0.5 else mixed(C, B, 2 * alpha)
    return mixed(A, B, alpha)


@pytest.mark.parametrize("kind", ["line", "bezier", "chain"])
def test_a_curve_is_its_formula_and_its_ends_are_the_modes(kind):
    curve = Curve(A, B, None if kind == "line" else C, kind)
    for alpha in (0.1, 0.5, 0.8):
        found, wanted = jax.jit(curve.at)(alpha), on_curve(kind, alpha)
        jax.tree.map(
            lambda p, q: np.testing.assert_allclose(p, q, rtol=0, atol=1e-6), found, wanted
        )
    for alpha, end in ((0, B), (1, A)):
        jax.tree.map(np.testing.assert_array_equal, curve.at(alpha), end)


@pytest.mark.parametrize("kind", ["bezier", "chain"])
def test_loss_and_features_along_a_curve(kind):
    found = landscape.measure_curve(mlp, Curve(A, B, C, kind), (X, Y))
    lmc, llfc = found["lmc"], found["llfc"]
    wanted = [plain(on_curve(kind, alpha)) for alpha in lmc.alphas]
    np.testing.assert_allclose(np.stack([lmc.loss, lmc.error], 1), wanted, rtol=1e-5)

    def feature(w):
        return np.maximum(np.float64(X) @ np.float64(w["in"]) + np.float64(w["bias"]), 0)

    row = llfc.layers.index("in.relu" if "in.relu" in llfc.layers else llfc.layers[1])
    alpha = 0.3
    u, v = feature(on_curve(kind, alpha)), alpha * feature(A) + (1 - alpha) * feature(B)
    cosine = (u * v).sum(1) / np.linalg.norm(u, axis=1) / np.linalg.norm(v, axis=1)
    column = llfc.alphas.index(alpha)
    np.testing.assert_allclose(llfc.distance[row, column], np.mean(1 - cosine), rtol=1e-4)


def test_a_curve_with_its_bend_in_the_middle_is_the_line():
    middle = mixed(A, B, 0.5)
    line = measures.llfc(mlp, A, B, [(X, Y)])
    curve = landscape.measure_curve(mlp, Curve(A, B, middle, "bezier"), (X, Y))["llfc"]
    np.testing.assert_allclose(curve.distance, line.distance, atol=2e-6)
    np.testing.assert_allclose(curve.baseline, line.baseline, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bezier", "chain"])
def test_a_fitted_curve_goes_round_the_barrier(kind):
    options = landscape.CurveOptions(kind, steps=300, batch_size=90, learning_rate=0.05)
    a, b = ({k: 2 * v for k, v in w.items()} for w in (A, {k: -v for k, v in A.items()}))
    a, b = _trained(a), _trained(b)
    alone = landscape.fit_curve(mlp, a, b, (X, Y), options)
    other, same = landscape.fit_curves(mlp, [(a, C), (a, b)], (X, Y), options)
    straight, bent = (
        np.mean(landscape.measure_curve(mlp, way, (X, Y), measures=["lmc"])["lmc"].loss)
        for way in (Curve(a, b), alone)
    )
    assert bent < 0.5 * straight
    assert alone.history[-20:].mean() < alone.history[:20].mean()
    np.testing.assert_allclose(same.history, alone.history, rtol=1e-2, atol=1e-3)
    assert other.curve.kind == kind


class Stop(Exception):
    """A crash."""


def test_a_fit_that_was_stopped_goes_on_with_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr(begun, "SECONDS", 0.0)
    options = landscape.CurveOptions(steps=150, batch_size=30)
    pairs, file = [(A, B), (A, C)], tmp_path / "curves.npz"
    whole = landscape.fit_curves(mlp, pairs, (X, Y), options)

    def crash(done: int, total: int, words: str) -> None:
        if done == 100:
            raise Stop

    with pytest.raises(Stop):
        landscape.fit_curves(mlp, pairs, (X, Y), options, crash, checkpoint=file)
    seen = []
    for _ in range(2):  # once from the middle, once from the end
        again = landscape.fit_curves(
            mlp, pairs, (X, Y), options, lambda done, *_: seen.append(done), checkpoint=file
        )
        for p, q in zip(whole, again, strict=True):
            assert p.history.tolist() == q.history.tolist()
            jax.tree.map(np.testing.assert_array_equal, p.curve.bend, q.curve.bend)
    assert seen == [100, 150]
    other = landscape.CurveOptions(steps=150, batch_size=30, seed=1)
    with pytest.raises(WorkdirError, match="of other work"):
        landscape.fit_curves(mlp, pairs, (X, Y), other, checkpoint=file)
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(WorkdirError, match="damaged"):
        landscape.fit_curves(mlp, pairs, (X, Y), options, checkpoint=file)


def _trained(w: Any) -> Any:
    step = jax.jit(jax.grad(lambda w: -jnp.take_along_axis(
        jax.nn.log_softmax(mlp(w, X)), jnp.asarray(Y)[:, None], 1).mean()))  # fmt: skip
    for _ in range(200):
        w = jax.tree.map(lambda p, g: p - 0.3 * g, w, step(w))
    return w


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_modes_are_fitted_in_float32_and_keep_their_type(dtype):
    a, b = ({k: jnp.asarray(v, dtype) for k, v in w.items()} for w in (A, B))
    options = landscape.CurveOptions(steps=60, batch_size=90, learning_rate=0.02)
    fitted = landscape.fit_curve(mlp, a, b, (X, Y), options)
    assert {leaf.dtype for leaf in jax.tree.leaves(fitted.curve.bend)} == {jnp.dtype(dtype)}
    assert fitted.history[-10:].mean() < fitted.history[:10].mean()


def test_a_curve_that_diverges_is_said():
    options = landscape.CurveOptions(steps=60, batch_size=90, learning_rate=1e30)
    with pytest.raises(ModeError, match="lower learning_rate"):
        landscape.fit_curve(mlp, A, B, (X, Y), options)


def test_a_task_without_classes():
    def linear(w, x):
        return x["in"] @ w

    x, goal = {"in": X}, (X @ np.ones((5, 1), np.float32))
    a, b = (np.ones((5, 1), np.float32) + d * np.eye(5, 1, dtype=np.float32) for d in (1, -1))
    options = landscape.CurveOptions(steps=60, batch_size=30, task="regression", learning_rate=0.05)
    fitted = landscape.fit_curve(linear, a, b, [(x, goal)], options)
    best = (a + b) / 2  # on the bent curve as on the line the middle is the best there is
    np.testing.assert_allclose(fitted.curve.bend, best, atol=0.5)
    plane = landscape.plane_through(a, b, 2 * np.ones((5, 1), np.float32))
    found = landscape.measure_plane(linear, plane, [(x, goal)], [0.0, 2.0], [0.0, 1.0],
                                    options=landscape.PointOptions("regression"))  # fmt: skip
    wanted = [
        [np.mean((X @ np.asarray(plane.at(u, v)) - goal) ** 2) for u in (0, 2)] for v in (0, 1)
    ]
    np.testing.assert_allclose(found.loss, wanted, rtol=1e-4)
    assert np.isnan(found.error).all()


def test_while_it_is_fitted_the_batch_normalises():
    graph = trace(normed, A, X)
    found = run_on_batch(graph, A, jnp.asarray(X)).output
    h = np.float64(X) @ np.float64(A["in"])
    h = (h - h.mean(0)) / np.sqrt(h.var(0) + EPS) * A["gain"] + A["bias"]
    np.testing.assert_allclose(found, np.maximum(h, 0) @ np.float64(A["out"]).T, atol=2e-5)


@pytest.mark.slow
def test_running_statistics_are_not_fitted_and_are_taken_anew():
    options = landscape.CurveOptions(steps=20, batch_size=64)
    fitted = landscape.fit_curve(normed, A, B, (X, Y), options)
    for name in ("mean", "var"):
        np.testing.assert_allclose(fitted.curve.bend[name], (A[name] + B[name]) / 2, rtol=1e-6)
    assert not np.allclose(fitted.curve.bend["in"], (A["in"] + B["in"]) / 2, atol=1e-3)
    found = landscape.measure_curve(normed, fitted, (X, Y), measures=["lmc"])["lmc"]
    assert found.renormalise == "reset"
    wanted = [plain(fitted.curve.at(alpha), statistics=True) for alpha in found.alphas]
    np.testing.assert_allclose(np.stack([found.loss, found.error], 1), wanted, rtol=2e-4)


def test_a_plane_through_three_modes():
    plane = landscape.plane_through(A, B, C)
    gap = [np.concatenate([(q[k] - A[k]).ravel() for k in sorted(A)]) for q in (B, C)]
    length = np.linalg.norm(gap[0])
    along = gap[1] @ gap[0] / length
    across = np.sqrt(gap[1] @ gap[1] - along**2)
    for w, place in ((A, (0, 0)), (B, (length, 0)), (C, (along, across))):
        x, y, distance = plane.project(w)
        np.testing.assert_allclose((x, y, distance), (*place, 0), atol=1e-4)
        jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, atol=1e-5), plane.at(x, y), w)


def test_random_directions_have_each_filters_length():
    graph = trace(mlp, A, X)
    plane = landscape.random_plane(graph, A, jax.random.key(3))
    np.testing.assert_allclose(
        np.linalg.norm(plane.u["in"], axis=0), np.linalg.norm(A["in"], axis=0), rtol=1e-5
    )  # a unit's weights stand in a column
    np.testing.assert_allclose(
        np.linalg.norm(plane.u["out"], axis=1), np.linalg.norm(A["out"], axis=1), rtol=1e-5
    )  # the weight is transposed: in a row
    assert not plane.u["bias"].any()
    dots = [np.vdot(plane.u[k], plane.v[k]) for k in A]
    assert abs(sum(dots)) < 1e-3
    again = landscape.random_plane(graph, A, jax.random.key(3))
    jax.tree.map(np.testing.assert_array_equal, plane.u, again.u)


def test_random_directions_of_a_convolution():
    def conv(w, x):
        h = jax.lax.conv_general_dilated(x, w["k"], (1, 1), "SAME",
                                         dimension_numbers=("NHWC", "HWIO", "NHWC"))  # fmt: skip
        return jax.nn.relu(h).mean((1, 2)) @ w["o"]

    w = {"k": rng.normal(size=(3, 3, 2, 4)).astype(np.float32), "o": np.eye(4, 3, dtype=np.float32)}
    graph = trace(conv, w, jnp.zeros((2, 5, 5, 2)))
    plane = landscape.random_plane(graph, w, jax.random.key(0))
    lengths = [np.sqrt(np.square(t["k"]).sum((0, 1, 2))) for t in (plane.u, w)]
    np.testing.assert_allclose(*lengths, rtol=1e-5)


def test_the_principal_plane_of_a_run():
    draw = np.random.default_rng(5)
    first, second = mode(6), mode(7)
    run = [
        {k: A[k] + t * first[k] + 0.2 * t**2 * second[k]
            + 1e-3 * draw.normal(size=A[k].shape).astype(np.float32) for k in A}
        for t in np.linspace(2, 0, 9)
    ]  # fmt: skip
    plane, explained = landscape.principal_plane(run)
    assert explained[0] > 0.9
    assert 0.99 < explained.sum() <= 1 + 1e-9
    rows = np.stack([np.concatenate([(w[k] - run[-1][k]).ravel() for k in sorted(A)]) for w in run])
    values = np.linalg.svd(np.float64(rows), compute_uv=False) ** 2
    np.testing.assert_allclose(explained, values[:2] / values.sum(), rtol=1e-5)
    assert max(plane.project(w)[2] for w in run) < 0.1


@pytest.mark.parametrize("renormalise", ["none", "reset"])
def test_the_loss_over_a_plane_is_that_of_each_point(renormalise):
    plane = landscape.plane_through(A, B, C)
    xs, ys, statistics = (-1.0, 0.0, 2.5, 6.0), (-2.0, 0.0, 3.0), renormalise == "reset"
    network = normed if statistics else mlp
    found, other = (
        landscape.measure_plane(
            network, plane, (X, Y), xs, ys,
            options=landscape.PointOptions(renormalise=renormalise, batch_size=size),
        ) for size in (90, 32)
    )  # fmt: skip
    wanted = [[plain(plane.at(x, y), statistics=statistics) for x in xs] for y in ys]
    np.testing.assert_allclose(np.stack([found.loss, found.error], -1), wanted, rtol=2e-4)
    np.testing.assert_allclose(other.loss, found.loss, rtol=1e-5)
    assert {(row["x"], row["y"]) for row in found.records()} == {(x, y) for x in xs for y in ys}


def rows_of(chart: Any, layer: Any) -> list[Any]:
    data = layer["data"]
    return data["values"] if "values" in data else chart["datasets"][data["name"]]


def test_figures_hold_the_numbers():
    plane = landscape.plane_through(A, B, C)
    found = landscape.measure_plane(mlp, plane, (X, Y), (0.0, 1.0), (0.0, 1.0, 2.0))
    chart = landscape.draw_plane(found, "loss", {"a": (0, 0)}, [(0, 0), (1, 1)]).to_dict()
    values = rows_of(chart, chart["layer"][0])
    assert [row["loss"] for row in values] == found.loss.ravel().tolist()
    assert len(chart["layer"]) == 4
    lmc = landscape.measure_curve(mlp, Curve(A, B), (X, Y), measures=["lmc"])["lmc"]
    chart = landscape.draw_curve({"line": lmc}, "loss").to_dict()
    drawn = [point["value"] for point in rows_of(chart, chart)]
    np.testing.assert_allclose(drawn, lmc.loss, rtol=1e-5)


BAD = {
    "kind": (lambda: landscape.CurveOptions("spline"), ConfigError, "unknown kind of curve"),
    "steps": (lambda: landscape.CurveOptions(steps=0), ConfigError, "steps must be more than 0"),
    "no pair": (lambda: landscape.fit_curves(mlp, [], (X, Y)), ModeError, "there is no pair"),
    "shapes": (
        lambda: landscape.fit_curve(mlp, A, {"in": A["in"]}, (X, Y)),
        ModeError,
        "not modes",
    ),
    "labels": (lambda: landscape.fit_curve(mlp, A, B, (X, Y + 5)), LlfcError, "label"),
    "a line": (lambda: landscape.plane_through(A, B, mixed(A, B, 0.3)), ModeError, "on a line"),
    "one mode": (lambda: landscape.plane_through(A, A, B), ModeError, "span no plane"),
    "two": (lambda: landscape.principal_plane([A, B]), ModeError, "give three or more"),
    "grid": (
        lambda: landscape.measure_plane(mlp, landscape.plane_through(A, B, C), (X, Y), [], [0.0]),
        ModeError,
        "xs and ys must be finite numbers",
    ),
    "no norm": (
        lambda: landscape.measure_plane(
            mlp,
            landscape.plane_through(A, B, C),
            (X, Y),
            [0.0],
            [0.0],
            options=landscape.PointOptions(renormalise="reset"),
        ),
        ModeError,
        "needs BatchNorm",
    ),
    "spline": (
        lambda: landscape.measure_curve(mlp, Curve(A, B, C, "spline"), (X, Y)),
        ModeError,
        "unknown kind of curve",
    ),
    "no bend": (
        lambda: landscape.measure_curve(mlp, Curve(A, B, None, "bezier"), (X, Y)),
        ModeError,
        "needs a bend",
    ),
    "a bend on a line": (
        lambda: landscape.measure_curve(mlp, Curve(A, B, C), (X, Y)),
        ModeError,
        "has no bend",
    ),
    "another network's bend": (
        lambda: landscape.measure_curve(mlp, Curve(A, B, {"in": X}, "chain"), (X, Y)),
        ModeError,
        "not modes of one network",
    ),
    "repair": (
        lambda: landscape.measure_plane(
            mlp,
            landscape.plane_through(A, B, C),
            (X, Y),
            (0.0,),
            (0.0,),
            options=landscape.PointOptions(renormalise="repair"),
        ),
        ModeError,
        "'none' or 'reset'",
    ),
    "renormalisation": (
        lambda: landscape.PointOptions(renormalise="repaired"),
        ModeError,
        "did you mean 'repair'",
    ),
    "measure": (
        lambda: landscape.measure_curve(mlp, Curve(A, B), (X, Y), measures=["stitching"]),
        ModeError,
        "assumes a straight line",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gives_one_line(name):
    make, kind, words = BAD[name]
    with pytest.raises(kind, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)
