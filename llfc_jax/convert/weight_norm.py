"""Weight normalisation (Salimans and Kingma 2016): w = g v / ||v||, in every library's form.

Only w counts for what a network computes, so PyTorch's g and v become w; and a network whose own
layer is normalised gets w as its v, and the norm of w as its g.
"""

import re
from collections.abc import Iterable, Mapping

import numpy as np


def fold(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Replaces each g and v (`weight_norm`) in a state dict by the weight that they make."""
    folded = {}
    pairs = {v: (g, name) for g, v, name in _pairs(state)}
    scales = {g for g, _ in pairs.values()}
    for name, array in state.items():
        if name in pairs:
            g, weight = pairs[name]
            v = np.asarray(array)
            folded[weight] = (state[g] * (v / _norm(v, np.shape(state[g])))).astype(v.dtype)
        elif name not in scales:
            folded[name] = array
    return folded


def unfold(
    state: Mapping[str, np.ndarray], like: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Undoes `fold`, for a state dict that has the names of `like`: v is w, and g its norm."""
    made = dict(state)
    for g, v, name in _pairs(like):
        weight = made.pop(name)
        made |= {v: weight, g: _norm(weight, like[g].shape).astype(weight.dtype)}
    return {name: made[name] for name in like}


def find_scales(paths: Iterable[str]) -> dict[str, str]:
    """Returns path of the g -> path of the v, of every normalised weight of a JAX network.

    Paths are without collection and wrapping: `WeightNorm_0/Dense_0/kernel/scale` in Linen,
    `scales/('kernel',)` in NNX, `g` beside `layer/weight` in Equinox.
    """
    known, found = set(paths), {}
    for path in known:
        linen = re.fullmatch(r"(.*/)?WeightNorm_\d+/(.+)/scale", path)
        nnx = re.fullmatch(r"(.*/)?scales/\((.+)\)", path)
        equinox = re.fullmatch(r"(.*/)?g", path)
        if linen:
            weight = f"{linen[1] or ''}{linen[2]}"
        elif nnx:
            weight = "/".join([f"{nnx[1] or ''}layer_instance", *re.findall(r"'(.+?)'", nnx[2])])
        elif equinox:
            weight = f"{equinox[1] or ''}layer/weight"
        else:
            continue
        if weight in known:
            found[path] = weight
    return found


def scale_of(weight: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the g, of this shape, of a weight: its norm over all axes but that of its features.

    Args:
        weight: of the JAX network.
        shape: [features], the weight's last axis (Flax); or the weight's, with ones (Equinox).
    """
    if len(shape) == weight.ndim:
        return _norm(weight, shape)
    return _norm(weight, (1,) * (weight.ndim - 1) + shape).reshape(shape)


def _norm(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the Euclidean norm over the axes that are 1 in `shape`."""
    axes = tuple(i for i, size in enumerate(shape) if size == 1)
    return np.sqrt(np.sum(np.square(array.astype(np.float64)), axis=axes, keepdims=True))


def _pairs(state: Iterable[str]) -> list[tuple[str, str, str]]:
    """Returns the names of g, v and weight of every normalised parameter of a state dict."""
    known, found = set(state), []
    for name in known:
        new = re.fullmatch(r"(.*?)parametrizations\.(\w+)\.original0", name)
        if new and (v := f"{name[:-1]}1") in known:
            found.append((name, v, f"{new[1]}{new[2]}"))
        elif name.endswith("_g") and (v := f"{name[:-2]}_v") in known:
            found.append((name, v, name[:-2]))
    return found
