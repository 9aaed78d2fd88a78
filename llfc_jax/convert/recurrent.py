"""Recurrent cells of PyTorch, Flax Linen, NNX, Equinox and Haiku, by way of one common form.

The common form of a cell is a dict: `input` [gates, hidden, inputs], `hidden` [gates, hidden,
hidden], `bias` [gates, hidden] and, of a GRU, `bias_n` [hidden], the bias that the reset gate
multiplies. Gates are in PyTorch's order: i f g o (LSTM), r z n (GRU). Each library's way of storing
it is a `CellStyle`: how its arrays become the common form, and the way back.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import numpy as np

from llfc_jax.errors import ModeError

Arrays = dict[str, np.ndarray]
GATES = {"lstm": "ifgo", "gru": "rzn", "rnn": ""}
KINDS = {4: "lstm", 3: "gru", 1: "rnn"}


@dataclasses.dataclass(frozen=True)
class CellStyle:
    """How a library stores a cell.

    Attributes:
        needs: names, below the cell's own, that such a cell has; by them it is recognised.
        kind: `lstm`, `gru` or `rnn`; None where `kind_of` reads it off the shapes.
        read: its arrays -> the common form.
        write: the common form -> its arrays.
        cell: how the cell's own name begins (in lower case), where the names below say too little.
    """

    needs: tuple[str, ...]
    kind: str | None
    read: Callable[[Arrays], Arrays]
    write: Callable[[Arrays], Arrays]
    cell: str = ""

    def kind_of(self, shapes: Mapping[str, tuple[int, ...]]) -> str:
        """Returns the kind of a cell whose arrays have these shapes."""
        if self.kind is not None:
            return self.kind
        widths = sorted(shapes[self.needs[1]])
        return KINDS.get(widths[1] // widths[0], "unknown")


def _by_gate(kind: str) -> CellStyle:
    """Returns Flax's style of a dense layer per gate: ii, hi, if, hf, ... (a simple cell: i, h)."""
    gates = GATES[kind] or [""]

    def read(arrays: Arrays) -> Arrays:
        stack = lambda part: np.stack([arrays[f"{part}{gate}/kernel"].T for gate in gates])  # noqa: E731
        size = arrays[f"h{gates[0]}/kernel"].shape[1]
        zero = np.zeros(size, np.float32)
        bias = np.stack([
            arrays.get(f"{'h' if kind == 'lstm' else 'i'}{gate}/bias", zero) for gate in gates
        ])  # fmt: skip
        return {"input": stack("i"), "hidden": stack("h"), "bias": bias} | (
            {"bias_n": arrays.get("hn/bias", zero)} if kind == "gru" else {}
        )

    def write(cell: Arrays) -> Arrays:
        made = {}
        for number, gate in enumerate(gates):
            made[f"i{gate}/kernel"] = cell["input"][number].T
            made[f"h{gate}/kernel"] = cell["hidden"][number].T
            made[f"{'h' if kind == 'lstm' else 'i'}{gate}/bias"] = cell["bias"][number]
        return made | ({"hn/bias": cell["bias_n"]} if kind == "gru" else {})

    needs = tuple(f"{part}{gate}/kernel" for gate in gates for part in "ih")
    return CellStyle(needs, kind, read, write)


def _fused(inputs: str, hidden: str, bias: str, bias_n: str, *, flip: bool) -> CellStyle:
    """Returns a style of one array for all gates; `flip` where it is [inputs, gates hidden]."""
    names = (inputs, hidden, bias, bias_n)
    read = functools.partial(_read_fused, names, flip)
    return CellStyle((inputs, hidden), None, read, functools.partial(_write_fused, names, flip))


def _read_fused(names: tuple[str, str, str, str], flip: bool, arrays: Arrays) -> Arrays:
    inputs, hidden, bias, bias_n = names
    weight = _turn(arrays[hidden], flip)
    size = weight.shape[1]
    split = lambda array: array.reshape(-1, size, *array.shape[1:])  # noqa: E731
    zero = np.zeros(len(weight), weight.dtype)
    made = {
        "input": split(_turn(arrays[inputs], flip)),
        "hidden": split(weight),
        "bias": split(arrays.get(bias, zero)),
    }
    return made | {"bias_n": arrays.get(bias_n, zero[:size])} if len(weight) == 3 * size else made


def _write_fused(names: tuple[str, str, str, str], flip: bool, cell: Arrays) -> Arrays:
    inputs, hidden, bias, bias_n = names
    join = lambda array: array.reshape(-1, *array.shape[2:])  # noqa: E731
    made = {
        inputs: _turn(join(cell["input"]), flip),
        hidden: _turn(join(cell["hidden"]), flip),
        bias: join(cell["bias"]),
    }
    return made | ({bias_n: cell["bias_n"]} if "bias_n" in cell else {})


def _turn(array: np.ndarray, flip: bool) -> np.ndarray:
    return array.T if flip else array


def _nnx() -> CellStyle:
    """Returns NNX's style: an LSTM has its bias beside the hidden weights, the others do not."""
    plain = _fused("dense_i/kernel", "dense_h/kernel", "dense_i/bias", "bias of n", flip=True)
    lstm = _fused("dense_i/kernel", "dense_h/kernel", "dense_h/bias", "bias of n", flip=True)
    pick = lambda gates: lstm if gates == 4 else plain  # noqa: E731

    def read(arrays: Arrays) -> Arrays:
        hidden, all_gates = sorted(arrays["dense_h/kernel"].shape)
        return pick(all_gates // hidden).read(arrays)

    return CellStyle(plain.needs, None, read, lambda cell: pick(len(cell["input"])).write(cell))


def _haiku_lstm() -> CellStyle:
    """Returns Haiku's style: inputs and hidden joined, gates i g f o, and 1 added to f."""
    order, one = [0, 2, 1, 3], np.array([0.0, 1.0, 0.0, 0.0], np.float32)[:, None]

    def read(arrays: Arrays) -> Arrays:
        weight = arrays["linear/w"].T
        size = len(weight) // 4
        gates = weight.reshape(4, size, -1)[order]
        bias = arrays["linear/b"].reshape(4, size)[order]
        return {"input": gates[..., :-size], "hidden": gates[..., -size:], "bias": bias + one}

    def write(cell: Arrays) -> Arrays:
        gates = np.concatenate([cell["input"], cell["hidden"]], axis=-1)[order]
        bias = (cell["bias"] - one)[order]
        return {"linear/w": gates.reshape(-1, gates.shape[-1]).T, "linear/b": bias.reshape(-1)}

    return CellStyle(("linear/w", "linear/b"), "lstm", read, write, "lstm")


def _haiku_rnn() -> CellStyle:
    """Returns Haiku's style of a simple cell: two layers, each with a bias."""

    def read(arrays: Arrays) -> Arrays:
        bias = arrays["linear/b"] + arrays["linear_1/b"]
        weights = {"input": arrays["linear/w"].T, "hidden": arrays["linear_1/w"].T, "bias": bias}
        return {name: array[None] for name, array in weights.items()}

    def write(cell: Arrays) -> Arrays:
        bias = cell["bias"][0]
        weights = {"linear/w": cell["input"][0].T, "linear_1/w": cell["hidden"][0].T}
        return weights | {"linear/b": bias, "linear_1/b": np.zeros_like(bias)}

    return CellStyle(("linear/w", "linear_1/w"), "rnn", read, write, "vanilla_rnn")


STYLES = (
    _by_gate("lstm"),
    _by_gate("gru"),
    _by_gate("rnn"),
    _nnx(),
    _fused("weight_ih", "weight_hh", "bias", "bias_n", flip=False),  # Equinox
    _haiku_lstm(),
    _haiku_rnn(),
)


def read_torch_cell(arrays: Mapping[str, np.ndarray], name: str) -> tuple[str, Arrays]:
    """Returns the kind and the common form of one layer of a PyTorch LSTM, GRU, RNN or cell.

    Args:
        arrays: `weight_ih`, `weight_hh` and, where it has them, `bias_ih`, `bias_hh`.
        name: of the module, for errors.

    Raises:
        ModeError: for a projection behind the cell, which the other libraries lack.
    """
    if "weight_hr" in arrays:
        raise ModeError(f"{name} has a projection (proj_size), which no JAX library's cell has")
    weight = arrays["weight_hh"]
    size = weight.shape[1]
    kind = KINDS[len(weight) // size]
    zero = np.zeros(len(weight), weight.dtype)
    biases = [arrays.get(f"bias_{part}", zero).reshape(-1, size) for part in ("ih", "hh")]
    cell = {
        "input": arrays["weight_ih"].reshape(-1, size, arrays["weight_ih"].shape[1]),
        "hidden": weight.reshape(-1, size, size),
        "bias": biases[0] + biases[1],
    }
    if kind == "gru":
        cell["bias"] = np.concatenate([cell["bias"][:2], biases[0][2:]])
        cell["bias_n"] = biases[1][2]
    return kind, cell


def write_torch_cell(cell: Arrays, *, with_bias: bool) -> Arrays:
    """Returns a cell as PyTorch has it, its biases beside the input weights where they can be.

    Raises:
        ModeError: PyTorch's cell has no bias, and this one has.
    """
    join = lambda array: array.reshape(-1, *array.shape[2:])  # noqa: E731
    made = {"weight_ih": join(cell["input"]), "weight_hh": join(cell["hidden"])}
    second = np.zeros_like(cell["bias"])
    if "bias_n" in cell:
        second[2] = cell["bias_n"]
    if with_bias:
        return made | {"bias_ih": join(cell["bias"]), "bias_hh": join(second)}
    if cell["bias"].any() or second.any():
        raise ModeError("the cell has a bias, but PyTorch's was made with bias=False")
    return made
