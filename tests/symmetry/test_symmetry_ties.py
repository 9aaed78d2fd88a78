"""Where equal numbers can occur by construction, whatever breaks ties by place fixes the places.

`argmax`, `top_k` and `argsort` take the first of equal numbers. Each program scores five codes
and takes the code of the best; whatever groups its spec has are proved on many samples, most of
whose pre-activations are negative.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from programs import TOLERANCE, largest_changes

from llfc_jax.symmetry import permutation_spec
from llfc_jax.symmetry.checking import double_precision

relu, sigmoid = jax.nn.relu, jax.nn.sigmoid
Score = Callable[[Any, Any], Any]

# h [b, 5] holds mostly negative numbers, w: a second matrix "g", a scale "s", a scalar "t".
TIED: dict[str, Score] = {
    "relu": lambda w, h: relu(h),
    "relu times a scale": lambda w, h: relu(h) * w["s"],
    "relu over a scale": lambda w, h: relu(h) / w["s"],
    "relu times a number": lambda w, h: relu(h) * w["t"],
    "relu times a gate": lambda w, h: relu(h) * sigmoid(h @ w["g"]),
    "a linear unit gated by relu": lambda w, h: relu(h) * (h @ w["g"]),
    "a mask": lambda w, h: h * (h @ w["g"] > 0),
    "zero where not chosen": lambda w, h: jnp.where(h > 0, h, 0 * h),
    "far below where not chosen": lambda w, h: jnp.where(h > 0, h, -jnp.inf),
    "a bool": lambda w, h: h > 0,
    "int32": lambda w, h: h.astype(jnp.int32),
    "int32 and back": lambda w, h: h.astype(jnp.int32).astype(float) * w["s"],
    "int8": lambda w, h: h.astype(jnp.int8),
    "float8": lambda w, h: h.astype(jnp.float8_e4m3fn).astype(float),
    "bfloat16": lambda w, h: h.astype(jnp.bfloat16),
    "bits": lambda w, h: lax.reduce_precision(h, 8, 2),
    "a steep exponential": lambda w, h: jnp.exp(1e3 * h),
    "floor": lambda w, h: jnp.floor(h),
    "round, modulo": lambda w, h: jnp.mod(jnp.round(h), 2),
    "sign": lambda w, h: jnp.sign(h),
    "sign by division": lambda w, h: h / jnp.abs(h),
    "relu6": lambda w, h: jax.nn.relu6(5 * h),
    "hard sigmoid": lambda w, h: jax.nn.hard_sigmoid(4 * h),
    "relu squared": lambda w, h: relu(h) ** 2,
    "root of relu": lambda w, h: jnp.sqrt(relu(h)),
    "relu, normalised": lambda w, h: relu(h) / jnp.sqrt((relu(h) ** 2).mean(-1, keepdims=True) + 1),
    "relu less its mean": lambda w, h: relu(h) - relu(h).mean(-1, keepdims=True),
    "two relus": lambda w, h: relu(h) + relu(h @ w["g"] - 3),
    "relu in a scan": lambda w, h: lax.scan(lambda c, _: (relu(c - 0.1), None), h, None, 3)[0],
    "relu in a loop": lambda w, h: lax.fori_loop(0, 3, lambda i, c: relu(c - 0.1), h),
    "relu in a branch": lambda w, h: lax.cond(h.sum() < 0, relu, lambda c: c, h),
    "largest of relus": lambda w, h: relu(jnp.stack([h, 2 * h], 1)).max(1) * w["s"],
    "relu by a diagonal": lambda w, h: jnp.einsum("bh,h->bh", relu(h), w["s"]),
    "relu by a matrix": lambda w, h: relu(h - 2) @ w["g"],
    "relu by a convolution": lambda w, h: lax.conv_general_dilated(
        relu(h - 2)[:, None], w["g"][None], (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
    )[:, 0],
    "straight through": lambda w, h: h + lax.stop_gradient(jnp.round(h) - h),
}

DISTINCT: dict[str, Score] = {
    "linear": lambda w, h: h,
    "scaled": lambda w, h: 0.3 * h * w["s"],
    "gated": lambda w, h: h * sigmoid(h @ w["g"]),
    "softmax": lambda w, h: jax.nn.softmax(h) / 2,
    "gelu": lambda w, h: jax.nn.gelu(h),
    "relu and a bias": lambda w, h: relu(h) + w["s"],
    "relu, a matrix, a bias": lambda w, h: relu(h - 2) @ w["g"] + w["s"],
    "layer norm": lambda w, h: (h - h.mean(-1, keepdims=True)) / jnp.sqrt(
        jnp.maximum(0, h.var(-1, keepdims=True)) + 1e-5),
    "unit length": lambda w, h: h / jnp.maximum(jnp.linalg.norm(h, axis=-1, keepdims=True), 1e-6),
    "float32": lambda w, h: h.astype(jnp.float32),
    "leaky relu, a matrix": lambda w, h: jax.nn.leaky_relu(h) @ w["g"],
}  # fmt: skip


def choose(how: str, score: Score) -> Callable[[Any, Any], Any]:
    """A network whose codes are chosen by their scores."""

    def apply(w: Any, x: Any) -> Any:
        z = score(w, x @ w["first"])
        if how == "argmax":
            return jax.nn.one_hot(jnp.argmax(z, -1), 5) @ w["codes"]
        if how == "top_k":
            return jax.nn.one_hot(lax.top_k(z, 2)[1], 5).sum(1) @ w["codes"]
        return w["codes"][jnp.argsort(z, -1)[:, -2]]

    return apply


def prove(apply: Callable[[Any, Any], Any], shift: float) -> tuple[int, int]:
    """How many groups there are, each proved, and how many notes on ties."""
    rng = np.random.default_rng(0)
    shapes = {"first": (6, 5), "g": (5, 5), "s": (5,), "t": (), "codes": (5, 3)}
    w = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    w["first"] -= shift
    x = np.abs(rng.normal(size=(64, 6)))
    with double_precision(), jax.numpy_rank_promotion("allow"):
        spec = permutation_spec(apply, w, x)
        jaxpr = jax.make_jaxpr(apply)(w, x)
        changes = largest_changes(jaxpr, spec, w, x, rng)
    assert changes is not None
    assert max(changes.values(), default=0.0) < TOLERANCE, spec.explain()
    fixed = [note for note in spec.notes if "breaks ties by place" in note]
    return len(spec.groups), len(fixed)


@pytest.mark.parametrize("how", ["argmax", "top_k", "argsort"])
@pytest.mark.parametrize("name", list(TIED))
def test_places_are_fixed_where_numbers_tie(name: str, how: str) -> None:
    if how == "top_k" and name in ("a bool", "float8"):
        pytest.skip("no order of these numbers on this device")
    groups, said = prove(choose(how, TIED[name]), shift=0.7)
    assert said
    assert groups <= ("a matrix" in name or "a convolution" in name)


@pytest.mark.parametrize("name", list(DISTINCT))
def test_places_are_free_where_numbers_differ(name: str) -> None:
    for how in ("argmax", "top_k"):
        groups, said = prove(choose(how, DISTINCT[name]), shift=0.0)
        assert groups
        assert not said
