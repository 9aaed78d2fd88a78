"""Writes torch_outputs.npz: state dicts, inputs and outputs of small PyTorch modules.

    pip install torch==2.13.0 && python tests/convert/make_torch_outputs.py

Keys are CASE/state/NAME, CASE/x (channels last) and CASE/y.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn

SEED = 0
cases: dict[str, np.ndarray] = {}


class Recurrent(nn.Module):
    """A recurrent layer, and a dense layer on its last output."""

    def __init__(self, cell: nn.RNNBase):
        super().__init__()
        self.rnn, self.fc = cell, nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.rnn(x)[0][:, -1])


class Attention(nn.Module):
    """Self-attention, and a square dense layer on its mean."""

    def __init__(self):
        super().__init__()
        self.att = nn.MultiheadAttention(8, 2, batch_first=True)
        self.fc = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.att(x, x, x, need_weights=False)[0].mean(1))


class Words(nn.Module):
    """A bag of words with as many words as features."""

    def __init__(self):
        super().__init__()
        self.emb, self.fc = nn.Embedding(8, 8), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.emb(x).mean(1))


class Up(nn.Module):
    """A transposed convolution with as many channels in as out, between two convolutions."""

    def __init__(self, stride: int, groups: int = 1):
        super().__init__()
        self.c = nn.Conv2d(3, 6, 3, padding=1)
        size = 4 if stride == 2 else 3
        self.u = nn.ConvTranspose2d(6, 6, size, stride=stride, padding=1, groups=groups)
        self.o = nn.Conv2d(6, 5, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.o(torch.relu(self.u(torch.relu(self.c(x))))).mean((2, 3))


class Normalised(nn.Module):
    """A convolution and a square dense layer with weight normalisation, one without."""

    def __init__(self, *, new: bool):
        super().__init__()
        norm = nn.utils.parametrizations.weight_norm if new else nn.utils.weight_norm
        self.c, self.a = norm(nn.Conv2d(3, 4, 3, padding=1)), norm(nn.Linear(4, 4))
        self.b = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(torch.relu(self.a(torch.relu(self.c(x)).mean((2, 3)))))


def add(name: str, module: nn.Module, x: torch.Tensor) -> None:
    """Runs a module and keeps everything."""
    for parameter in module.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter)
    y = module(x).detach().numpy()
    cases[f"{name}/x"] = (x.permute(0, 2, 3, 1) if x.ndim == 4 else x).numpy()
    cases[f"{name}/y"] = y
    for key, value in module.state_dict().items():
        cases[f"{name}/state/{key}"] = value.detach().numpy()


def main() -> None:
    """Makes all cases."""
    torch.manual_seed(SEED)
    x, square = torch.randn(2, 5, 3), torch.randn(2, 5, 4)
    add("lstm", Recurrent(nn.LSTM(3, 4, batch_first=True)), x)
    add("lstm_square", Recurrent(nn.LSTM(4, 4, batch_first=True)), square)
    add("lstm_no_bias", Recurrent(nn.LSTM(4, 4, bias=False, batch_first=True)), square)
    add("lstm_two_layers", Recurrent(nn.LSTM(3, 4, num_layers=2, batch_first=True)), x)
    add("gru", Recurrent(nn.GRU(3, 4, batch_first=True)), x)
    add("rnn", Recurrent(nn.RNN(3, 4, batch_first=True)), x)
    add("rnn_relu", Recurrent(nn.RNN(3, 4, nonlinearity="relu", batch_first=True)), x)
    add("attention", Attention(), torch.randn(2, 5, 8))
    add("words", Words(), torch.randint(0, 8, (4, 6)))
    images = torch.randn(2, 3, 6, 6)
    add("up1", Up(1), images)
    add("up2", Up(2), images)
    add("up2_groups", Up(2, 2), images)
    add("weight_norm_old", Normalised(new=False), images)
    add("weight_norm", Normalised(new=True), images)
    np.savez_compressed(Path(__file__).with_name("torch_outputs.npz"), **cases)


if __name__ == "__main__":
    main()
