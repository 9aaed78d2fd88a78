"""Git Re-Basin's own specs, typed by its authors, and its runs on trained networks."""

import functools
import json
from pathlib import Path
from typing import Any

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llfc_jax import data, networks
from llfc_jax.errors import DataError
from llfc_jax.matching import activation_matching, weight_matching
from llfc_jax.symmetry import PermutationSpec, permutation_spec

HERE = Path(__file__).parent / "golden"
RESNET = {"name": "resnet_cifar", "norm": "layer", "shortcut": "conv3", "padding": "same"}
VGG = {"name": "vgg", "norm": "layer", "width": 0.125, "hidden": (512, 512)}


def ours(path: str) -> str:
    """Our name of one of their parameters."""
    names = {"shortcut/layers_0": "shortcut_conv", "shortcut/layers_1": "shortcut_norm"}
    names |= {f"blockgroups_{s}/blocks_{i}": f"stage{s + 1}_block{i}" for s, i in np.ndindex(3, 3)}
    for theirs, name in {**names, "LayerNorm_": "Norm_"}.items():
        path = path.replace(theirs, name)
    return f"params/{path}"


@pytest.mark.parametrize(("file", "fields"), [("resnet20_w1", RESNET), ("vgg16_m8", VGG)])
def test_the_derived_spec_is_the_one_that_the_authors_typed(file: str, fields: Any) -> None:
    with np.load(HERE / f"{file}.npz") as stored:
        typed = json.loads(str(stored["spec"]))
    theirs: dict[str, set[tuple[str, int]]] = {}
    for path, axes in typed.items():
        for axis, group in enumerate(axes):
            if group is not None:
                theirs.setdefault(group, set()).add((ours(path), axis))
    module = networks.build(fields["name"], 10, **{k: v for k, v in fields.items() if k != "name"})
    x = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), x)
    spec = permutation_spec(module.apply, variables, x)
    assert {frozenset(spec.where(g.name)) for g in spec.groups} == set(
        map(frozenset, theirs.values())
    )
    assert len(spec.groups) == len(theirs)


def dense(state: dict[str, np.ndarray], name: str) -> dict[str, jax.Array]:
    weight, bias = (jnp.asarray(state[f"{name}.{end}"]) for end in ("weight", "bias"))
    return {"kernel": weight.T, "bias": bias}


@functools.cache
def trained() -> tuple[Any, PermutationSpec, Any, Any, dict[str, np.ndarray]]:
    """Two MLPs trained on Fashion-MNIST from unlike seeds, and the authors' runs on them."""
    stored = golden.load("mlp_independent")
    a, b = (
        {"params": {f"Dense_{i}": dense(state, f"layers.{2 * i}") for i in range(4)}}
        for state in (stored.a, stored.b)
    )
    apply = networks.build("mlp", 10).apply
    with np.load(HERE / "mlp_512.npz") as file:
        results = dict(file)
    return apply, permutation_spec(apply, a, jnp.zeros((2, 784))), a, b, results


def objective(spec: PermutationSpec, permutation: Any, a: Any, b: Any) -> float:
    """Sum over all parameters of <A, π(B)>, in float64, permuted by NumPy."""
    total, order = 0.0, {name: np.asarray(p) for name, p in permutation.items()}
    for i in range(4):
        at, before = f"Dense_{i}", f"Dense_{i - 1}"
        kernel, bias = (np.asarray(b["params"][at][n], np.float64) for n in ("kernel", "bias"))
        if at in order:
            kernel, bias = kernel[:, order[at]], bias[order[at]]
        if before in order:
            kernel = kernel[order[before]]
        mine = a["params"][at]
        total += np.vdot(mine["kernel"], kernel) + np.vdot(mine["bias"], bias)
    return float(total)


def same(permutation: Any, results: dict[str, np.ndarray], run: str) -> float:
    """Smallest share of a group's units that went where the authors' run put them."""
    pairs = ((p, results[f"{run}/perm:{name}"]) for name, p in permutation.items())
    return min(float(np.mean(np.asarray(p) == q)) for p, q in pairs)


def test_trained_networks_are_matched_as_the_authors_match_them() -> None:
    _, spec, a, b, results = trained()
    start = objective(spec, spec.identity(), a, b)
    assert start == pytest.approx(float(results["identity/objective"]), rel=1e-9)
    run = "weight_matching_seed0"
    visits = results[f"{run}/visits"].tolist()
    replayed = weight_matching(jax.random.key(0), spec, a, b, start="identity", visits=visits)
    # Dead units tie: their weights are nearly zero.
    assert same(replayed.permutation, results, run) > 0.995
    for seed in range(3):
        run = f"weight_matching_seed{seed}"
        # Visits in the same order.
        found = weight_matching(jax.random.key(seed), spec, a, b, start="identity")
        reached = objective(spec, found.permutation, a, b)
        assert reached >= float(results[f"{run}/objective"]) * (1 - 1e-9)
        assert float(found.objective) == pytest.approx(reached, rel=1e-6)
        assert same(found.permutation, results, run) > 0.99


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["uncentred", "pearson"])
def test_activations_over_the_train_set_are_matched_as_the_authors_match_them(kind: Any) -> None:
    """Needs Fashion-MNIST prepared; the authors' figures are from its 60,000 images."""
    try:
        images = data.load("fashion_mnist").train.images
    except DataError as error:
        pytest.skip(str(error))
    apply, spec, a, b, results = trained()
    x = data.normalise(images, (0.1307,), (0.3081,)).reshape(-1, 784)
    batches = [(x[i : i + 5000], None) for i in range(0, len(x), 5000)]
    found = activation_matching(apply, spec, a, b, batches, kind=kind)
    run = f"activation_{kind}"
    if kind == "uncentred":  # theirs is not finite for Pearson, where units are dead
        values = sum(float(results[f"{run}/value:Dense_{i}"]) for i in range(3))
        # Their covariance is over n - 1.
        assert float(found.objective) == pytest.approx(values, rel=1.1 / len(x))
    for name, index in found.permutation.items():
        theirs = results[f"{run}/perm:{name}"]
        live = results[f"live:A:{name}"] & results[f"live:B:{name}"][theirs]
        assert live.sum() > 400
        assert np.mean(np.asarray(index)[live] == theirs[live]) > 0.96
