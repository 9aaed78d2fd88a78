"""Reference values from the authors' code; README.md beside this file says what they are."""

import dataclasses
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
CIFAR = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


@dataclasses.dataclass(frozen=True)
class Golden:
    """PyTorch state dicts of a pair, images (channels last), and the authors' results."""

    a: dict[str, np.ndarray]
    b: dict[str, np.ndarray]
    x: np.ndarray
    y: np.ndarray
    results: dict[str, np.ndarray]


def _arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(HERE / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


def _state(stored: dict[str, np.ndarray], end: str) -> dict[str, np.ndarray]:
    state = {}
    for key, planes in stored.items():
        which, _, name = key.partition("/")
        if which == end:
            shape = stored.get(f"shape/{name}")
            flat = np.ascontiguousarray(planes.T).view("<f4") if shape is not None else planes
            state[name] = flat.reshape(shape) if shape is not None else planes
    return state


def images() -> tuple[np.ndarray, np.ndarray]:
    """Test images 0..511 of Fashion-MNIST as uint8 [n, 28, 28, 1], and their labels."""
    stored = _arrays("images")
    return stored["images"][..., None], stored["labels"]


def load(name: str) -> Golden:
    """One of `mlp_independent`, `lenet_spawned`, `resnet20_spawned`."""
    weights, (x, y) = _arrays(f"{name}_weights"), images()
    x = x.astype(np.float32) / 255
    if name.startswith("resnet"):
        x = np.pad(x[:64], ((0, 0), (2, 2), (2, 2), (0, 0))).repeat(3, -1)
        mean, std = np.array(CIFAR, np.float32)
    else:
        mean, std = np.float32(0.1307), np.float32(0.3081)
    x = (x - mean) / std
    return Golden(
        _state(weights, "A"), _state(weights, "B"), x, y[: len(x)], _arrays(f"{name}_results")
    )


def edge_metrics() -> dict[str, np.ndarray]:
    """The authors' metric on rows that are zero, parallel or anti-parallel."""
    return _arrays("edge_metrics")
