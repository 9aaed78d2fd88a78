"""The networks of the benchmarks in PyTorch; nothing of JAX is imported here."""

import importlib
import itertools
import math
from typing import Any


def torch_network(name: str, fields: dict[str, Any], shape: tuple[int, ...], classes: int) -> Any:
    """The network of `llfc_jax.networks` of that name and those fields."""
    torch: Any = importlib.import_module("torch")
    nn: Any = importlib.import_module("torch.nn")

    def convolution(m: int, n: int, stride: int = 1, bias: bool = False) -> Any:
        return nn.Sequential(nn.Conv2d(m, n, 3, stride, 1, bias=bias), nn.BatchNorm2d(n))

    class Block(nn.Module):
        def __init__(self, m: int, n: int, stride: int) -> None:
            super().__init__()
            self.first, self.second = convolution(m, n, stride), convolution(n, n)
            self.stride, self.more = stride, n - m

        def forward(self, x: Any) -> Any:
            y = self.second(torch.relu(self.first(x)))
            if self.more:
                x = x[:, :, :: self.stride, :: self.stride]
                around = (0, 0, 0, 0, self.more // 2, self.more - self.more // 2)
                x = nn.functional.pad(x, around)
            return torch.relu(x + y)

    parts: list[Any] = []
    if name == "mlp":
        widths = [math.prod(shape), 512, 512, 512]
        parts.append(nn.Flatten())
        for m, n in itertools.pairwise(widths):
            parts += [nn.Linear(m, n), nn.ReLU()]
        parts.append(nn.Linear(512, classes))
    elif name == "resnet_cifar":
        parts += [convolution(shape[-1], 16), nn.ReLU()]
        channels = [16, *(n for n in (16, 32, 64) for _ in range(3))]
        for m, n in itertools.pairwise(channels):
            parts.append(Block(m, n, 2 if n > m else 1))
        parts += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes)]
    else:
        m = shape[-1]
        for count, wide in zip((2, 2, 3, 3, 3), (64, 128, 256, 512, 512), strict=True):
            for _ in range(count):
                n = round(wide * fields.get("width", 1.0))
                parts += [convolution(m, n, bias=True), nn.ReLU()]
                m = n
            parts.append(nn.MaxPool2d(2))
        hidden = round(4096 * fields.get("width", 1.0))
        parts += [nn.Flatten(), nn.Linear(m, hidden), nn.ReLU(), nn.Linear(hidden, hidden)]
        parts += [nn.ReLU(), nn.Linear(hidden, classes)]
    return nn.Sequential(*parts)
