"""Multi-head attention of PyTorch, Flax, Equinox and Haiku, by way of one common form.

The common form is a dict: `query`, `key`, `value`, `out`, each [outputs, inputs] with the heads'
widths along the outputs of the first three (the inputs of the last), and `query_bias`, ... where
there are biases.
"""

import math
from collections.abc import Mapping

import numpy as np

from llfc_jax.errors import ModeError

Arrays = dict[str, np.ndarray]
ROLES = ("query", "key", "value", "out")
# Names of the four weights below the attention's own name, in Flax (Linen, NNX), Equinox and Haiku;
# and of their biases.
STYLES = (
    ({role: f"{role}/kernel" for role in ROLES}, {role: f"{role}/bias" for role in ROLES}),
    (
        {r: f"{'output' if r == 'out' else r}_proj/weight" for r in ROLES},
        {r: f"{'output' if r == 'out' else r}_proj/bias" for r in ROLES},
    ),
    (
        {r: f"{'linear' if r == 'out' else r}/w" for r in ROLES},
        {r: f"{'linear' if r == 'out' else r}/b" for r in ROLES},
    ),
)
EQUINOX = STYLES[1]


def read_torch_attention(arrays: Mapping[str, np.ndarray], name: str) -> Arrays:
    """Returns the common form of PyTorch's `nn.MultiheadAttention`.

    Args:
        arrays: its parameters, by their names in the state dict below the module's.
        name: of the module, for errors.

    Raises:
        ModeError: it has a learned key and value (`add_bias_kv`), which the others lack.
    """
    if "bias_k" in arrays:
        raise ModeError(f"{name} has a learned key and value (add_bias_kv); no JAX library has")
    made: Arrays = {"out": arrays["out_proj.weight"]}
    if "in_proj_weight" in arrays:
        made |= dict(zip(ROLES, np.split(arrays["in_proj_weight"], 3), strict=False))
    else:
        made |= {role: arrays[f"{role[0]}_proj_weight"] for role in ROLES[:3]}
    if "in_proj_bias" in arrays:
        thirds = np.split(arrays["in_proj_bias"], 3)
        made |= {f"{role}_bias": part for role, part in zip(ROLES, thirds, strict=False)}
    if "out_proj.bias" in arrays:
        made["out_bias"] = arrays["out_proj.bias"]
    return made


def write_torch_attention(common: Arrays, like: Mapping[str, np.ndarray]) -> Arrays:
    """Returns the parameters of PyTorch's `nn.MultiheadAttention` that has those of `like`."""
    made: Arrays = {"out_proj.weight": common["out"]}
    if "in_proj_weight" in like:
        made["in_proj_weight"] = np.concatenate([common[role] for role in ROLES[:3]])
    else:
        made |= {f"{role[0]}_proj_weight": common[role] for role in ROLES[:3]}
    zero = np.zeros(len(common["query"]), common["query"].dtype)
    biases = [common.get(f"{role}_bias", zero) for role in ROLES[:3]]
    made["in_proj_bias"] = np.concatenate(biases)
    made["out_proj.bias"] = common.get("out_bias", zero[: len(common["out"])])
    return {name: made[name] for name in like if name in made}


def write_attention(common: Arrays, shapes: Mapping[str, tuple[int, ...]]) -> Arrays:
    """Returns the common form as the arrays of a JAX library, of these names and shapes.

    Raises:
        ModeError: it has a bias that the JAX network lacks.
    """
    weights, biases = _style_of(shapes)
    turn = weights != EQUINOX[0]
    made = {}
    for role in ROLES:
        weight = common[role].T if turn else common[role]
        shape = shapes[weights[role]]
        if math.prod(shape) != weight.size:
            raise ModeError(f"{weights[role]} has shape {shape}, PyTorch's weight {weight.shape}")
        made[weights[role]] = weight.reshape(shape)
        bias = common.get(f"{role}_bias")
        if biases[role] in shapes:
            given = (
                np.zeros(math.prod(shapes[biases[role]]), weight.dtype) if bias is None else bias
            )
            made[biases[role]] = given.reshape(shapes[biases[role]])
        elif bias is not None and bias.any():
            raise ModeError(f"PyTorch's attention has a bias of its {role}, the network has none")
    return made


def read_attention(arrays: Mapping[str, np.ndarray]) -> Arrays:
    """Returns the common form of a JAX library's arrays."""
    weights, biases = _style_of(arrays)
    made: Arrays = {}
    for role in ROLES:
        weight = arrays[weights[role]]
        if weights != EQUINOX[0]:  # [inputs, heads, width] or, of the last, [heads, width, outputs]
            rows = weight.shape[0] if role != "out" else -1
            weight = weight.reshape(rows, -1 if role != "out" else weight.shape[-1]).T
        made[role] = weight
        if biases[role] in arrays:
            made[f"{role}_bias"] = arrays[biases[role]].reshape(-1)
    return made


def _style_of(names: Mapping[str, object]) -> tuple[dict[str, str], dict[str, str]]:
    return next(style for style in STYLES if all(name in names for name in style[0].values()))
