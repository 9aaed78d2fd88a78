"""Cells, attention, embeddings, transposed convolutions, weight norm: as PyTorch computes them.

Expected outputs are PyTorch 2.13's own (`make_torch_outputs.py`).
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from llfc_jax.convert import from_torch, to_torch
from llfc_jax.errors import ModeError

KEY = jax.random.key(0)
STORED = dict(np.load(Path(__file__).with_name("torch_outputs.npz")))
BIASES = {f"use_{role}_bias": True for role in ("query", "key", "value", "output")}


@pytest.fixture(autouse=True)
def _libraries_promote_ranks():
    """The libraries add vectors to matrices."""
    with jax.numpy_rank_promotion("allow"):
        yield


def stored(name: str) -> tuple[dict[str, np.ndarray], Any, np.ndarray]:
    """State dict, input and output of a PyTorch module."""
    prefix = f"{name}/state/"
    state = {k.removeprefix(prefix): v for k, v in STORED.items() if k.startswith(prefix)}
    return state, jnp.asarray(STORED[f"{name}/x"]), STORED[f"{name}/y"]


def linen(forward: Any) -> Any:
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            return forward(x)

    return lambda x: (Net().apply, jax.eval_shape(Net().init, KEY, x))


def haiku(forward: Any) -> Any:
    net = hk.without_apply_rng(hk.transform(forward))
    return lambda x: (net.apply, jax.eval_shape(net.init, KEY, x))


def of_nnx(forward: Any, **layers: Any) -> Any:
    class Net(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            for name, make in layers.items():
                setattr(self, name, make(rngs))

        def __call__(self, x: Any) -> Any:
            return forward(self, x)

    def make(x: Any) -> Any:
        graphdef, state = nnx.split(Net(nnx.Rngs(0)))
        return (lambda state, x: nnx.merge(graphdef, state)(x)), state

    return make


def equinox(forward: Any, **layers: Any) -> Any:
    """A network of one sample's layers, which `forward` finds as attributes."""

    def make(x: Any) -> Any:
        arrays, static = eqx.partition(layers, eqx.is_array)

        def apply(arrays: Any, x: Any) -> Any:
            model = SimpleNamespace(**eqx.combine(arrays, static))
            return jax.vmap(lambda one: forward(model, one))(x)

        return apply, arrays

    return make


def linen_rnn(cell: Any, layers: int = 1) -> Any:
    def forward(x: Any) -> Any:
        for _ in range(layers):
            x = nn.RNN(cell(4))(x)
        return nn.Dense(3)(x[:, -1])

    return linen(forward)


def nnx_rnn(cell: Any) -> Any:
    return of_nnx(
        lambda m, x: m.fc(m.rnn(x)[:, -1]),
        rnn=lambda r: nnx.RNN(cell(3, 4, rngs=r)),
        fc=lambda r: nnx.Linear(4, 3, rngs=r),
    )


def haiku_rnn(cell: Any) -> Any:
    def forward(x: Any) -> Any:
        core = cell(4)
        y, _ = hk.dynamic_unroll(core, x, core.initial_state(len(x)), time_major=False)
        return hk.Linear(3)(y[:, -1])

    return haiku(forward)


def equinox_rnn(cell: Any, inputs: int = 3) -> Any:
    lstm = cell is eqx.nn.LSTMCell

    def forward(m: Any, x: Any) -> Any:
        zero = jnp.zeros(4)
        start = (zero, zero) if lstm else zero
        state, _ = jax.lax.scan(lambda state, one: (m.cell(one, state), None), start, x)
        return m.fc(state[0] if lstm else state)

    layers = {"cell": cell(inputs, 4, key=KEY), "fc": eqx.nn.Linear(4, 3, key=KEY)}
    return equinox(forward, **layers)


def size(stride: int) -> int:
    return 4 if stride == 2 else 3


def linen_up(stride: int, transpose_kernel: bool) -> Any:
    def forward(x: Any) -> Any:
        x = nn.relu(nn.Conv(6, (3, 3))(x))
        up = nn.ConvTranspose(
            6, (size(stride),) * 2, (stride,) * 2, transpose_kernel=transpose_kernel
        )
        return nn.Conv(5, (3, 3))(nn.relu(up(x))).mean((1, 2))

    return linen(forward)


def nnx_up(stride: int) -> Any:
    return of_nnx(
        lambda m, x: m.o(nnx.relu(m.u(nnx.relu(m.c(x))))).mean((1, 2)),
        c=lambda r: nnx.Conv(3, 6, (3, 3), rngs=r),
        u=lambda r: nnx.ConvTranspose(6, 6, (size(stride),) * 2, strides=(stride,) * 2, rngs=r),
        o=lambda r: nnx.Conv(6, 5, (3, 3), rngs=r),
    )


def equinox_up(stride: int, groups: int = 1) -> Any:
    relu = jax.nn.relu
    return equinox(
        lambda m, x: m.o(relu(m.u(relu(m.c(x.transpose(2, 0, 1)))))).mean((1, 2)),
        c=eqx.nn.Conv2d(3, 6, 3, padding=1, key=KEY),
        u=eqx.nn.ConvTranspose2d(6, 6, size(stride), stride, padding=1, groups=groups, key=KEY),
        o=eqx.nn.Conv2d(6, 5, 3, padding=1, key=KEY),
    )


def haiku_up(stride: int) -> Any:
    def forward(x: Any) -> Any:
        x = jax.nn.relu(hk.Conv2D(6, 3)(x))
        x = jax.nn.relu(hk.Conv2DTranspose(6, size(stride), stride)(x))
        return hk.Conv2D(5, 3)(x).mean((1, 2))

    return haiku(forward)


def linen_normalised(norm: Any) -> Any:
    def forward(x: Any) -> Any:
        x = nn.relu(norm(nn.Conv(4, (3, 3), name="c"))(x)).mean((1, 2))
        return nn.Dense(4)(nn.relu(norm(nn.Dense(4, name="a"))(x)))

    return linen(forward)


def equinox_attention(biases: dict[str, bool]) -> Any:
    return equinox(
        lambda m, x: m.fc(m.att(x, x, x).mean(0)),
        att=eqx.nn.MultiheadAttention(2, 8, **biases, key=KEY),
        fc=eqx.nn.Linear(8, 8, key=KEY),
    )


WORDS = {
    "linen": linen(lambda t: nn.Dense(5)(nn.Embed(8, 8)(t).mean(1))),
    "nnx": of_nnx(
        lambda m, t: m.fc(m.emb(t).mean(1)),
        emb=lambda r: nnx.Embed(8, 8, rngs=r),
        fc=lambda r: nnx.Linear(8, 5, rngs=r),
    ),
    "equinox": equinox(
        lambda m, t: m.fc(jax.vmap(m.emb)(t).mean(0)),
        emb=eqx.nn.Embedding(8, 8, key=KEY),
        fc=eqx.nn.Linear(8, 5, key=KEY),
    ),
    "haiku": haiku(lambda t: hk.Linear(5)(hk.Embed(8, 8)(t).mean(1))),
    "haiku one-hot": haiku(
        lambda t: hk.Linear(5)(hk.Embed(8, 8, lookup_style="ONE_HOT")(t).mean(1))
    ),
}
ATTENTION = {
    "linen": linen(lambda x: nn.Dense(8)(nn.MultiHeadDotProductAttention(2)(x, x).mean(1))),
    "nnx": of_nnx(
        lambda m, x: m.fc(m.att(x).mean(1)),
        att=lambda r: nnx.MultiHeadAttention(2, 8, decode=False, rngs=r),
        fc=lambda r: nnx.Linear(8, 8, rngs=r),
    ),
    "equinox": equinox_attention(BIASES),
    "haiku": haiku(
        lambda x: hk.Linear(8)(
            hk.MultiHeadAttention(2, 4, model_size=8, w_init=hk.initializers.RandomNormal())(
                x, x, x
            ).mean(1)
        )
    ),
}
NNX_NORMALISED = of_nnx(
    lambda m, x: m.b(nnx.relu(m.a(nnx.relu(m.c(x)).mean((1, 2))))),
    c=lambda r: nnx.WeightNorm(nnx.Conv(3, 4, (3, 3), rngs=r), rngs=r),
    a=lambda r: nnx.WeightNorm(nnx.Linear(4, 4, rngs=r), rngs=r),
    b=lambda r: nnx.Linear(4, 4, rngs=r),
)
EQUINOX_NORMALISED = equinox(
    lambda m, x: m.b(jax.nn.relu(m.a(jax.nn.relu(m.c(x.transpose(2, 0, 1))).mean((1, 2))))),
    c=eqx.nn.WeightNorm(eqx.nn.Conv2d(3, 4, 3, padding=1, key=KEY)),
    a=eqx.nn.WeightNorm(eqx.nn.Linear(4, 4, key=KEY)),
    b=eqx.nn.Linear(4, 4, key=KEY),
)
CASES = {
    "lstm": {
        "linen": linen_rnn(nn.LSTMCell),
        "linen optimized": linen_rnn(nn.OptimizedLSTMCell),
        "nnx": nnx_rnn(nnx.LSTMCell),
        "nnx optimized": nnx_rnn(nnx.OptimizedLSTMCell),
        "equinox": equinox_rnn(eqx.nn.LSTMCell),
        "haiku": haiku_rnn(hk.LSTM),
    },
    "lstm_square": {"linen": linen_rnn(nn.LSTMCell), "haiku": haiku_rnn(hk.LSTM)},
    "lstm_no_bias": {"equinox": equinox_rnn(eqx.nn.LSTMCell, 4)},
    "lstm_two_layers": {"linen": linen_rnn(nn.LSTMCell, 2)},
    "gru": {"linen": linen_rnn(nn.GRUCell), "equinox": equinox_rnn(eqx.nn.GRUCell)},
    "rnn": {"linen": linen_rnn(nn.SimpleCell), "nnx": nnx_rnn(nnx.SimpleCell)},
    "rnn_relu": {"haiku": haiku_rnn(hk.VanillaRNN)},
    "attention": ATTENTION,
    "words": WORDS,
    "up2": {
        "linen": linen_up(2, False),
        "linen transposed": linen_up(2, True),
        "nnx": nnx_up(2),
        "equinox": equinox_up(2),
        "haiku": haiku_up(2),
    },
    "up2_groups": {"equinox": equinox_up(2, 2)},
    "up1": {"linen": linen_up(1, False), "linen transposed": linen_up(1, True)},
    "weight_norm_old": {"plain": linen_normalised(lambda layer: layer), "nnx": NNX_NORMALISED},
    "weight_norm": {"linen": linen_normalised(nn.WeightNorm), "equinox": EQUINOX_NORMALISED},
}


@pytest.mark.parametrize(("case", "network"), [(c, n) for c, some in CASES.items() for n in some])
def test_outputs_are_pytorchs_and_the_state_dict_comes_back(case: str, network: str):
    state, x, y = stored(case)
    apply, like = CASES[case][network](x)
    variables = from_torch(state, apply, like, x)
    assert jax.tree.structure(variables) == jax.tree.structure(like)
    apply = jax.jit(apply)
    np.testing.assert_allclose(apply(variables, x), y, atol=2e-6)
    back = to_torch(variables, state, apply, x)
    assert {k: v.shape for k, v in back.items()} == {k: v.shape for k, v in state.items()}
    again = from_torch(back, apply, like, x)
    for one, other in zip(jax.tree.leaves(variables), jax.tree.leaves(again), strict=True):
        if jnp.issubdtype(one.dtype, jnp.floating):
            np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("make", [nnx_up(1), equinox_up(1)], ids=["nnx", "equinox"])
def test_what_looks_alike_at_stride_1_is_told_apart_by_a_check(make: Any):
    state, x, y = stored("up1")
    apply, like = make(x)
    variables = from_torch(state, apply, like, x, check=(x, y))
    np.testing.assert_allclose(apply(variables, x), y, atol=2e-6)


@pytest.mark.parametrize(
    ("case", "make", "words"),
    [
        ("gru", nnx_rnn(nnx.GRUCell), "rnn has a bias for which rnn/cell has no place"),
        ("gru", haiku_rnn(hk.GRU), "rnn is a recurrent cell (GRU), gru is a plain layer"),
        (
            "attention",
            equinox_attention({}),
            "has a bias of its query, the network has none",
        ),
    ],
    ids=["nnx gru", "haiku gru", "attention without biases"],
)
def test_what_a_library_cannot_compute_is_refused(case: str, make: Any, words: str):
    state, x, _ = stored(case)
    apply, like = make(x)
    with pytest.raises(ModeError) as caught:
        from_torch(state, apply, like, x)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


rng = np.random.default_rng(1)


def normal(*shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


class TestSquareWeights:
    """A square weight fits either way: its layout is read, or refused."""

    def test_a_cell_in_a_loop(self):
        state = {"i.weight": normal(8, 8), "i.bias": normal(8), "h.weight": normal(8, 8)}
        x = normal(4, 5, 8)
        h = np.zeros((4, 8))
        for t in range(5):
            h = np.tanh(x[:, t] @ state["i.weight"].T + state["i.bias"] + h @ state["h.weight"].T)
        net = nn.RNN(nn.SimpleCell(8), return_carry=True)
        apply = lambda v, x: net.apply(v, x)[0]  # noqa: E731
        found = from_torch(state, apply, jax.eval_shape(net.init, KEY, x), x)
        np.testing.assert_allclose(apply(found, x), h, atol=1e-5)

    def test_a_weight_reshaped_to_heads(self):
        state, x = {"q.weight": normal(8, 8)}, normal(4, 8)

        def apply(v: Any, x: Any) -> Any:
            heads = v["q"]["w"].reshape(8, 2, 4)
            return jnp.einsum("nd,dhk->nhk", x, heads).reshape(len(x), 8)

        found = from_torch(state, apply, {"q": {"w": jnp.zeros((8, 8))}}, x)
        np.testing.assert_allclose(apply(found, x), x @ state["q.weight"].T, atol=1e-5)

    def test_products_the_other_way_round_and_mapped(self):
        state, x = {"a.weight": normal(8, 8), "b.weight": normal(8, 8)}, normal(4, 8)

        def apply(v: Any, x: Any) -> Any:
            h = jax.vmap(lambda one: one @ v["a"]["w"])(x)
            return jnp.matmul(v["b"]["w"].T, h.T).T

        like = {name: {"w": jnp.zeros((8, 8))} for name in "ab"}
        found = from_torch(state, apply, like, x)
        expected = x @ state["a.weight"].T @ state["b.weight"].T
        np.testing.assert_allclose(apply(found, x), expected, atol=1e-4)

    def test_what_cannot_be_read_needs_a_check(self):
        state, x = {"a.weight": normal(8, 8) + 4 * np.eye(8, dtype=np.float32)}, normal(4, 8)

        def apply(v: Any, x: Any) -> Any:
            return x @ jnp.linalg.inv(v["a"]["w"])

        like = {"a": {"w": jnp.eye(8)}}
        with pytest.raises(ModeError, match=r"cannot tell how a\.weight \(8, 8\) lies in a/w"):
            from_torch(state, apply, like, x)
        for weight in (state["a.weight"], state["a.weight"].T):
            y = x @ np.linalg.inv(weight)
            for check in ((x, y), lambda _, y=y: y):
                found = from_torch(state, apply, like, x, check=check)
                np.testing.assert_array_equal(found["a"]["w"], weight)
                back = to_torch(found, state, apply, x, check=check)
                np.testing.assert_array_equal(back["a.weight"], state["a.weight"])
        with pytest.raises(ModeError, match="outputs differ"):
            from_torch(state, apply, like, x, check=(x, x))

    def test_layers_that_store_their_inputs_first(self):
        """As GPT-2's Conv1D: the others show it, so a square one is in doubt."""
        state, x = {"a.weight": normal(8, 24), "b.weight": normal(24, 24)}, normal(4, 8)

        def apply(v: Any, x: Any) -> Any:
            return x @ v["a"]["w"] @ v["b"]["w"]

        like = {"a": {"w": jnp.zeros((8, 24))}, "b": {"w": jnp.zeros((24, 24))}}
        with pytest.raises(ModeError, match=r"cannot tell how b\.weight"):
            from_torch(state, apply, like, x)
        y = x @ state["a.weight"] @ state["b.weight"]
        found = from_torch(state, apply, like, x, check=(x, y))
        np.testing.assert_array_equal(found["b"]["w"], state["b.weight"])
