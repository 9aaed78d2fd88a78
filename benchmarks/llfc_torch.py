"""The PyTorch side of `llfc_stored.py`: one process, in which nothing of JAX is imported.

The features are read by hooks on linear layers, convolutions and ReLUs, compared as tensors, on as
many threads as there are cores.
"""

import importlib
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from in_torch import torch_network
from storing import CASES, CLASSES, Library, Made, parser, stored, timed


def library(module: Any, batches: Made) -> Library:
    """Features of a state dict's network, as PyTorch's users store them."""
    torch: Any = importlib.import_module("torch")
    kinds = torch.nn.Linear, torch.nn.Conv2d, torch.nn.ReLU
    layers = [layer for layer in module.modules() if isinstance(layer, kinds)]

    def kept(state: Any) -> list[Any]:
        module.load_state_dict(state)
        parts: dict[Any, list[Any]] = {layer: [] for layer in layers}
        hooks = [
            layer.register_forward_hook(lambda layer, _, out: parts[layer].append(out.flatten(1)))
            for layer in layers
        ]
        outputs(module, batches)
        for hook in hooks:
            hook.remove()
        return [torch.cat(parts.pop(layer)) for layer in layers]

    def mix(a: Any, b: Any, alpha: float) -> Any:
        return {key: alpha * a[key] + (1 - alpha) * b[key] for key in a}

    return Library(kept, lambda u: u.double(), lambda u, v: (u * v).sum(1), mix)


def outputs(module: Any, batches: Made) -> np.ndarray:
    """The network's, batch after batch."""
    torch: Any = importlib.import_module("torch")
    with torch.inference_mode():
        parts = [module(torch.from_numpy(x).permute(0, 3, 1, 2)) for x, _ in batches]
    return torch.cat(parts).numpy()


def main() -> None:
    """Measure one way in this process."""
    told = parser(("stored", "plain"))
    told.add_argument("--weights", nargs=2, required=True, help=".npz files of state dicts")
    asked = told.parse_args()
    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(os.cpu_count() or 1)
    name, fields, shape, _ = CASES[asked.case]
    module = torch_network(name, fields, shape, CLASSES).eval()
    a, b = (
        {key: torch.from_numpy(array) for key, array in np.load(path).items()}
        for path in asked.weights
    )

    def measure(batches: Made, alphas: Sequence[float]) -> np.ndarray:
        if asked.way == "plain":
            return outputs(module, batches)
        return stored(library(module, batches), a, b, alphas)

    timed(asked, measure)


if __name__ == "__main__":
    main()
