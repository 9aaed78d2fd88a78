"""PyTorch's files (.pt, .pth, .bin, .ckpt) without PyTorch: a pickle and storages in a zip archive.

The pickle is read as data (`checkpoints.pickled`): nothing that it names is imported or called.
The tensors lie in the file. What is no state dict of plain tensors is refused in one line.
"""

import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from llfc_jax.checkpoints.mapped import Bytes, dtype_named, map_zip
from llfc_jax.checkpoints.pickled import Call, Name, Reader

STATE_KEYS = ("state_dict", "model_state_dict", "model", "module", "net")
"""Under which a checkpoint keeps its weights beside other things."""

_STORAGES = {
    "FloatStorage": "float32", "DoubleStorage": "float64", "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32",
    "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8", "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64", "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
}  # fmt: skip
_TENSORS = {"_rebuild_tensor": 4, "_rebuild_tensor_v2": 4, "_rebuild_tensor_v3": 7}
_PARAMETERS = ("_rebuild_parameter", "_rebuild_parameter_with_state")


class _Storage(NamedTuple):
    data: Bytes
    dtype: np.dtype


def read_torch(path: Path) -> dict[str, Any]:
    """Returns a state dict: name -> array, or dicts of such.

    Raises:
        ValueError: it is damaged, of PyTorch before 1.6, or holds something else.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError("it is cut short, or was written before PyTorch 1.6; save it anew there")
    members = map_zip(path)
    pickles = [name for name in members if name.rpartition("/")[2] == "data.pkl"]
    if len(pickles) != 1:
        raise ValueError("it is a zip archive without PyTorch's data.pkl")
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in members:
        raise ValueError("it holds a TorchScript program; save model.state_dict() instead")
    if bytes(members.get(f"{root}byteorder", b"little")) != b"little":
        raise ValueError("its numbers are big-endian; save it anew on another machine")

    def resolve(call: Call) -> Any:
        return _resolve(call, members, root)

    content = _plain_dicts(Reader(bytes(members[pickles[0]]), resolve).read())
    return _state_of(content)


def _resolve(call: Call, members: Mapping[str, Bytes], root: str) -> Any:
    """Returns the tensor, storage or dict that a call stands for; any other call as it is."""
    if not isinstance(call.function, Name):
        return call
    module, name = call.function.module, call.function.name
    if not module:  # a persistent id
        _, kind, key, _, _ = call.arguments
        return _Storage(members[f"{root}data/{key}"], dtype_named(_STORAGES[kind.name]))
    if module == "torch._utils" and name in _TENSORS:
        return _tensor(*call.arguments[:4], dtype=call.arguments[6:7] if _TENSORS[name] > 4 else ())
    if module == "torch._utils" and name in _PARAMETERS:
        return call.arguments[0]
    if module == "torch._tensor" and name == "_rebuild_from_type_v2":
        function, _, arguments, _ = call.arguments
        return _resolve(Call(function, arguments), members, root)
    if (module, name) == ("collections", "OrderedDict"):
        return OrderedDict(*call.arguments)
    return call


def _tensor(
    storage: _Storage,
    start: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    dtype: tuple[Name, ...],
) -> np.ndarray:
    """Returns the tensor that lies in a storage; NumPy checks that it does."""
    kind = dtype_named(dtype[0].name) if dtype else storage.dtype
    steps = [stride * kind.itemsize for stride in strides]
    array = np.ndarray(shape, kind, storage.data, start * kind.itemsize, steps)
    array.flags.writeable = False
    return array


def _plain_dicts(content: object) -> Any:
    """Returns the content with plain dicts for ordered ones, which JAX keeps apart."""
    if isinstance(content, dict):
        return {name: _plain_dicts(value) for name, value in content.items()}
    return content


def _state_of(content: object) -> dict[str, Any]:
    """Returns the state dict in what a file holds.

    Raises:
        ValueError: there is none, or it holds more than tensors.
    """
    if not isinstance(content, dict):
        raise ValueError(f"it holds {_describe(content)}; save model.state_dict() instead")
    other = _find_other(content)
    if other:
        for key in STATE_KEYS:
            if isinstance(content.get(key), dict) and not _find_other(content[key]):
                return content[key]
        raise ValueError(f"it holds more than a state dict ({other}); save model.state_dict()")
    return content


def write_torch(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a state dict that PyTorch loads with `weights_only=True`.

    Raises:
        ValueError: a type that PyTorch lacks.
    """
    names = {dtype_named(own): name for name, own in _STORAGES.items() if name != "UntypedStorage"}
    with zipfile.ZipFile(path, "w") as archive:
        state = b"\x80\x02}("  # protocol 2, an empty dict, a mark
        for number, (name, array) in enumerate(arrays.items()):
            if array.dtype not in names:
                raise ValueError(f"{name} is {array.dtype}; write .safetensors instead")
            archive.writestr(f"archive/data/{number}", array.tobytes())
            state += _pickle_text(name) + _pickle_tensor(names[array.dtype], str(number), array)
        archive.writestr("archive/data.pkl", state + b"u.")
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/version", "3\n")


def _pickle_tensor(storage: str, key: str, array: np.ndarray) -> bytes:
    """Returns the instructions that PyTorch writes for a tensor."""
    strides = [step // array.itemsize for step in array.strides]
    place = _pickle_text("storage") + f"ctorch\n{storage}\n".encode() + _pickle_text(key)
    place = b"(" + place + _pickle_text("cpu") + _pickle_int(array.size) + b"tQ"
    sizes = [b"(" + b"".join(map(_pickle_int, part)) + b"t" for part in (array.shape, strides)]
    hooks = b"ccollections\nOrderedDict\n)R"
    arguments = place + _pickle_int(0) + sizes[0] + sizes[1] + b"\x89" + hooks
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR"


def _pickle_text(text: str) -> bytes:
    data = text.encode()
    return b"X" + len(data).to_bytes(4, "little") + data


def _pickle_int(number: int) -> bytes:
    return b"\x8a\x08" + number.to_bytes(8, "little", signed=True)


def _find_other(state: dict[Any, Any]) -> str:
    """Returns in words the first entry that is no tensor, "" where all are."""
    for name, value in state.items():
        if isinstance(value, dict):
            if inside := _find_other(value):
                return inside
        elif not isinstance(value, np.ndarray) or not isinstance(name, str):
            return f"{name!r} is {_describe(value)}"
    return ""


def _describe(value: object) -> str:
    return f"a {value.function}" if isinstance(value, Call) else f"a {type(value).__name__}"
