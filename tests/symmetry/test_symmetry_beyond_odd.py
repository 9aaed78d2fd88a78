"""Odd programs: whatever is done to an axis, no element of its symmetry changes the function."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from programs import TOLERANCE, element_changes

from llfc_jax.symmetry.beyond.derive import symmetry_spec
from llfc_jax.symmetry.checking import double_precision

Program = tuple[Callable[[Any, Any], Any], dict[str, tuple[int, ...]], tuple[int, ...]]
PROGRAMS: dict[str, Program] = {}
N = 4


def program(x: tuple[int, ...] = (3, 5), **shapes: tuple[int, ...]) -> Callable[[Any], Any]:
    """Registers a function of weights `w` and inputs `x` under its name."""

    def register(apply: Any) -> Any:
        PROGRAMS[apply.__name__] = (apply, shapes, x)
        return apply

    return register


# -- values that do not vary along a part of an axis -----------------------------------------------


@program(a=(5, N), b=(5, 3), out=(2 * (N + 3), 2))
def a_row_that_is_uniform_in_a_part(w, x):
    whole = jnp.concatenate([x @ w["a"], x @ w["b"]], -1)
    part = jnp.concatenate([jnp.broadcast_to(x[:, :1], (len(x), N)), x @ w["b"]], -1)
    return jnp.stack([whole, part], 1).reshape(len(x), -1) @ w["out"]


@program(a=(5, N), b=(5, 3), c=(2, 2), out=(N + 3, 2))
def rows_side_by_side_one_uniform_in_a_part(w, x):
    whole = jnp.concatenate([x @ w["a"], x @ w["b"]], -1)
    part = jnp.concatenate([jnp.broadcast_to(x[:, :1], (len(x), N)), x @ w["b"]], -1)
    both = jnp.concatenate([whole[:, None], part[:, None]], 1)
    return (jnp.einsum("btd,tu->bud", both, w["c"]) @ w["out"]).sum(1)


@program(a=(5, N), b=(5, 3), out=(N + 3, 2))
def a_sum_with_a_value_uniform_in_a_part(w, x):
    whole = jnp.concatenate([x @ w["a"], x @ w["b"]], -1)
    part = jnp.concatenate([jnp.ones((len(x), N)), x @ w["b"]], -1)
    return (whole + part) @ w["out"]


@program(a=(5, N), b=(5, 3), out=(N + 3, 2))
def a_product_with_a_value_uniform_in_a_part(w, x):
    whole = jnp.concatenate([x @ w["a"], x @ w["b"]], -1)
    part = jnp.concatenate([jnp.broadcast_to(x[:, :1], (len(x), N)), x @ w["b"]], -1)
    return (whole * part) @ w["out"]


@program(a=(5, N), b=(5, 3), out=(N + 3, 2))
def a_product_summed_with_a_value_uniform_in_a_part(w, x):
    whole = jnp.concatenate([x @ w["a"], x @ w["b"]], -1)
    part = jnp.concatenate([jnp.ones((len(x), N)), x @ w["b"]], -1)
    return jnp.einsum("bd,bd->b", whole, part)[:, None] * x


@program(a=(5, N), out=(N + 2, 2))
def padding_by_ones(w, x):
    return lax.pad(x @ w["a"], np.float64(1), [(0, 0, 0), (1, 1, 0)]) @ w["out"]


@program(a=(5, N), out=(N, 2))
def rows_padded_by_ones(w, x):
    return lax.pad(x @ w["a"], np.float64(1), [(0, 0, 0), (0, 0, 0)]) @ w["out"]


@program(x=(3, 4, 5), a=(5, N), c=(6, 2), out=(N, 2))
def steps_padded_by_ones(w, x):
    h = jnp.pad(x @ w["a"], ((0, 0), (1, 1), (0, 0)), constant_values=1.0)
    return (jnp.einsum("btd,tu->bud", h, w["c"]) @ w["out"]).sum(1)


@program(x=(3, 4, 5), a=(5, N), c=(6, 2), out=(N, 2))
def steps_padded_by_zeros(w, x):
    h = jnp.pad(x @ w["a"], ((0, 0), (1, 1), (0, 0)))
    return (jnp.einsum("btd,tu->bud", h, w["c"]) @ w["out"]).sum(1)


@program(x=(3, 4, 5), a=(5, N), out=(N, 2))
def rows_looked_up_beyond_the_end_are_ones(w, x):
    h = jnp.swapaxes(x @ w["a"], 0, 1)
    taken = h.at[jnp.array([0, 7])].get(mode="fill", fill_value=1.0)
    return taken.sum(0) @ w["out"]


@program(x=(3, 4, 5), a=(5, N), out=(N, 2))
def rows_looked_up_beyond_the_end_are_zeros(w, x):
    h = jnp.swapaxes(x @ w["a"], 0, 1)
    taken = h.at[jnp.array([0, 7])].get(mode="fill", fill_value=0.0)
    return taken.sum(0) @ w["out"]


# -- squares ---------------------------------------------------------------------------------------


@program(a=(5, N), out=(N, 2))
def squares_carried_by_a_loop(w, x):
    h = x @ w["a"]
    _, (rows,) = lax.scan(lambda c, _: ((c[1], c[0]), (c[0],)), (h, h**2), None, length=2)
    return h @ w["out"] / (1 + rows.sum((0, 2))[:, None] ** 2)


@program(a=(5, N), out=(N, 2))
def squares_beside_plain_values(w, x):
    h = x @ w["a"]
    return h @ w["out"] / (1 + jnp.stack([h, h**2]).sum((0, 2))[:, None] ** 2)


@program(a=(5, N), out=(N, 2))
def squares_that_are_weighted(w, x):
    h = x @ w["a"]
    return h @ w["out"] / (1 + (h**2 * jnp.arange(1.0, N + 1)).sum(-1, keepdims=True))


@program(a=(5, N), g=(N,), out=(N, 2))
def squares_times_a_gain(w, x):
    h = x @ w["a"]
    return h @ w["out"] / (1 + (h**2 * w["g"] ** 2).sum(-1, keepdims=True))


@program(a=(5, N), out=(N, 2))
def a_root_of_each_square(w, x):
    h = x @ w["a"]
    return h @ w["out"] / (1 + jnp.sqrt(h**2).sum(-1, keepdims=True))


@program(a=(5, N), out=(N, 2))
def fourth_powers(w, x):
    h = x @ w["a"]
    return h @ w["out"] / (1 + jnp.square(h**2).sum(-1, keepdims=True))


@program(a=(5, N), b=(5, N), out=(N, 2), end=(N, 2))
def squares_less_squares(w, x):
    h, z = x @ w["a"], x @ w["b"]
    return (h @ w["out"] + z @ w["end"]) / (1 + (h**2 - z**2 + h * 0).sum(-1, keepdims=True) ** 2)


@program(a=(5, N), b=(5, N), out=(N, 2), end=(N, 2))
def a_product_of_two_values_summed(w, x):
    h, z = x @ w["a"], x @ w["b"]
    return (h @ w["out"] + z @ w["end"]) / (1 + (h * z).sum(-1, keepdims=True) ** 2)


@program(x=(3, 4, 5), a=(5, N), out=(N, 2))
def norms_over_time(w, x):
    h = x @ w["a"]
    return (h / jnp.sqrt((h**2).sum(1, keepdims=True) + 1)).sum(1) @ w["out"]


@program(x=(3, 4, 5), a=(5, N), out=(N, 2))
def a_norm_over_time_and_units(w, x):
    h = x @ w["a"]
    return (h / jnp.sqrt((h**2).sum((1, 2), keepdims=True) + 1)).sum(1) @ w["out"]


@program(a=(5, N), out=(N, 2))
def a_sum_of_squares_less_their_mean(w, x):
    h = x @ w["a"]
    z = h**2 - (h**2).mean(-1, keepdims=True)
    return h @ w["out"] / (1 + z.sum(-1, keepdims=True))


@program(a=(5, N), out=(N, 2))
def a_variance(w, x):
    h = x @ w["a"]
    return h @ w["out"] / (1 + jnp.var(h, -1, keepdims=True))


# -- groups inside groups, and groups that meet themselves -----------------------------------------


@program(a=(5, 3, N), b=(N, 3, 2))
def two_axes_of_one_product_swapped(w, x):
    h = jnp.einsum("bi,ihk->bhk", x, w["a"])
    return jnp.einsum("bhk,khj->bj", h, w["b"])


@program(a=(5, 3, N), c=(N, 3, N), b=(N, 3, 2))
def a_product_of_axes_through_a_weight_of_both(w, x):
    h = jnp.einsum("bi,ihk->bhk", x, w["a"])
    h = jnp.einsum("bhk,khl->blh", h, w["c"])
    return jnp.einsum("blh,lhj->bj", h, w["b"])


@program(a=(5, N), out=(N * N, 2))
def an_outer_product_with_itself(w, x):
    h = x @ w["a"]
    return (h[:, :, None] * h[:, None, :]).reshape(len(x), -1) @ w["out"]


@program(a=(5, N), b=(5, N), out=(N * N, 2))
def an_outer_product_of_duals(w, x):
    q, k = x @ w["a"], x @ w["b"]
    gram = jnp.einsum("bi,bj->bij", q, k).reshape(len(x), -1) @ w["out"]
    return gram + jnp.einsum("bi,bi->b", q, k)[:, None]


@program(a=(5, N), s=(N, N), out=(N, 2))
def a_symmetric_weight(w, x):
    return x @ w["a"] @ (w["s"] + w["s"].T) @ w["out"]


@program(a=(5, N), s=(N, N), out=(N, 2))
def a_skew_weight_and_its_exponential(w, x):
    skew = w["s"] - w["s"].T
    return x @ w["a"] @ (jnp.eye(N) + skew + skew @ skew / 2) @ w["out"]


@program(a=(5, N), s=(N, N), out=(N, 2))
def a_bilinear_form(w, x):
    h = x @ w["a"]
    return h @ w["out"] * jnp.einsum("bi,ij,bj->b", h, w["s"], h)[:, None]


@program(a=(5, N), s=(N, N), out=(N, 2))
def a_trace(w, x):
    return x @ w["a"] @ w["out"] * jnp.trace(w["s"]) + (x @ w["a"] @ w["s"]).sum(-1, keepdims=True)


@program(a=(5, N), u=(N, N), out=(N, 2))
def a_weight_used_forward_and_back(w, x):
    h = x @ w["a"]
    return (h @ w["u"] + h @ w["u"].T) @ w["out"]


@program(x=(3, 4, 5), e=(5, N), out=(2, 2))
def an_embedding_read_again(w, x):
    return ((x @ w["e"]) @ w["e"].T)[..., :2].sum(1) @ w["out"]


# -- numbers that are no real numbers, and other types ---------------------------------------------


@program(a=(5, N), s=(N,), out=(N, 2))
def weights_of_whole_numbers(w, x):
    return ((x @ w["a"]) * w["s"]) @ w["out"].astype(int).astype(float)


@program(a=(5, N), out=(N, 2))
def numbers_cut_to_whole_ones(w, x):
    return (x @ w["a"] * 10).astype(int).astype(float) @ w["out"]


@program(a=(5, N), c=(5, N), out=(N, 2))
def complex_numbers(w, x):
    z = lax.complex(x @ w["a"], x @ w["c"])
    return (jnp.real(z * jnp.conj(z)) + jnp.imag(z)) @ w["out"]


@program(a=(5, N), out=(N, 2))
def a_derivative_inside(w, x):
    return jax.grad(lambda h: (jnp.tanh(h @ w["out"]) ** 2).sum())(x @ w["a"]) @ w["out"]


@program(a=(5, N), out=(N, 2))
def a_step_of_learning_inside(w, x):
    def loss(a):
        return ((jnp.maximum(x @ a, 0) @ w["out"]) ** 2).sum()

    return jnp.maximum(x @ (w["a"] - 0.1 * jax.grad(loss)(w["a"])), 0) @ w["out"]


# -- choices and powers ----------------------------------------------------------------------------


@program(a=(5, N), b=(5, N), out=(N, 2))
def the_larger_of_two_values(w, x):
    return jnp.maximum(x @ w["a"], x @ w["b"]) @ w["out"]


@program(a=(5, N), b=(5, N), out=(N, 2))
def one_value_where_another_is_positive(w, x):
    return jnp.where(x @ w["a"] > 0, x @ w["b"], 0.0) @ w["out"]


@program(a=(5, N), b=(5, N), out=(N, 2))
def one_value_where_another_is_larger_than_it(w, x):
    h, z = x @ w["a"], x @ w["b"]
    return jnp.where(h > z, h, 2 * h) @ w["out"]


@program(a=(5, N), b=(5, N), out=(N, 2))
def one_value_where_its_negative_is_larger(w, x):
    h = x @ w["a"]
    return jnp.where(h > -h, h, x @ w["b"]) @ w["out"]


@program(a=(5, N), b=(5, N), out=(N, 2))
def one_sign_times_another_size(w, x):
    return (jnp.sign(x @ w["a"]) * jnp.abs(x @ w["b"])) @ w["out"]


@program(a=(5, N), out=(N, 2))
def roots_of_sizes(w, x):
    return (jnp.sqrt(jnp.abs(x @ w["a"]) + 0.0) * (x @ w["a"]) ** 3) @ w["out"]


@program(a=(5, N), b=(5, N), out=(N, 2))
def a_quotient(w, x):
    return (x @ w["a"] / (1e-2 + (x @ w["b"]) ** 2) + (x @ w["b"]) ** -1) @ w["out"]


@program(a=(5, N), b=(5, N), c=(5, N), out=(N, 2))
def a_product_of_three_and_a_quotient(w, x):
    h, z, y = x @ w["a"], x @ w["b"], x @ w["c"]
    return (h * z * y + h * h * z / y) @ w["out"]


@program(a=(5, N), b=(5, N), out=(N, 2))
def a_gate_of_a_relu(w, x):
    return (jax.nn.relu(x @ w["a"]) * (x @ w["b"])) @ w["out"]


@program(a=(5, N), out=(N, 2))
def a_shrinkage(w, x):
    h = x @ w["a"]
    return jnp.sign(h) * jnp.maximum(jnp.abs(h) - 0.1, 0) @ w["out"]


@program(a=(5, N), t=(N,), out=(N, 2))
def a_shrinkage_with_thresholds_of_its_own(w, x):
    h = x @ w["a"]
    return (jnp.sign(h) * jnp.maximum(jnp.abs(h) - jnp.abs(w["t"]), 0)) @ w["out"]


@program(a=(5, N), slope=(N,), out=(N, 2))
def slopes_of_their_own(w, x):
    h = x @ w["a"]
    return jnp.where(h > 0, h, w["slope"] * h) @ w["out"]


@program(a=(5, N), g=(N,), out=(N, 2))
def a_learned_frequency(w, x):
    h = x @ w["a"]
    return (h + jnp.sin(w["g"] * h) ** 2 / w["g"]) @ w["out"]


@program(a=(5, N), out=(N, 2))
def a_softmax_then_a_sum_of_it(w, x):
    return jax.nn.softmax(x @ w["a"]) @ w["out"]


@program(x=(3, 4, 5), a=(5, N), out=(N, 2))
def the_largest_over_time(w, x):
    return (x @ w["a"]).max(1) @ w["out"]


@program(x=(3, 4, 5), a=(5, N), out=(N, 2))
def running_sums_over_time(w, x):
    return (jnp.cumsum(x @ w["a"], 1) * jnp.arange(4.0)[None, :, None]).sum(1) @ w["out"]


@program(x=(3, 4, 5), a=(5, N), out=(N, 2))
def time_reversed_and_sorted(w, x):
    h = x @ w["a"]
    return (jnp.flip(h, 1) * jnp.arange(4.0)[None, :, None] + jnp.sort(h, 1)).sum(1) @ w["out"]


@program(x=(3, 4, 5), a=(5, N), u=(2, N, N), out=(N, 2))
def linear_layers_in_a_scan(w, x):
    return lax.scan(lambda h, u: (h @ u, None), x.sum(1) @ w["a"], w["u"])[0] @ w["out"]


@program(x=(3, 4, 5), a=(5, N), u=(N, N), out=(N, 2))
def a_linear_recurrence(w, x):
    step = lambda h, now: ((h @ w["u"] + now),) * 2  # noqa: E731
    _, rows = lax.scan(step, jnp.zeros((len(x), N)), jnp.swapaxes(x @ w["a"], 0, 1))
    return rows.sum(0) @ w["out"]


@program(x=(3, 4, 5), a=(5, N), u=(N, N), out=(N, 2))
def a_linear_recurrence_from_ones(w, x):
    step = lambda h, now: ((h @ w["u"] + now),) * 2  # noqa: E731
    _, rows = lax.scan(step, jnp.ones((len(x), N)), jnp.swapaxes(x @ w["a"], 0, 1))
    return rows.sum(0) @ w["out"]


@program(a=(5, N), u=(N, N), out=(N, 2))
def a_loop_of_unknown_length(w, x):
    h = lax.while_loop(lambda h: jnp.abs(h).max() > 0.5, lambda h: h @ w["u"] * 0.1, x @ w["a"])
    return h @ w["out"]


@program(a=(5, N), g=(N,), out=(N, 2))
def a_gain_used_twice(w, x):
    h = x @ w["a"]
    h = h / jnp.sqrt((h**2).mean(-1, keepdims=True) + 1e-3) * w["g"]
    return h @ w["out"] + (w["g"] ** 2).sum()


@program(a=(5, N), g=(N,), c=(N, N), out=(N, 2))
def a_gain_in_two_norms(w, x):
    norm = lambda h: h / jnp.sqrt((h**2).mean(-1, keepdims=True) + 1e-3) * w["g"]  # noqa: E731
    h = x @ w["a"]
    return norm(h + norm(h) @ w["c"]) @ w["out"]


@pytest.mark.parametrize("name", list(PROGRAMS))
def test_an_odd_program_has_no_wrong_element(name: str) -> None:
    apply, shapes, shape = PROGRAMS[name]
    rng = np.random.default_rng(0)
    weights = {k: rng.normal(size=s) + 0.1 for k, s in shapes.items()}
    x = rng.normal(size=shape)
    with double_precision(), jax.numpy_rank_promotion("allow"):
        spec = symmetry_spec(apply, weights, x)
        jaxpr = jax.make_jaxpr(apply)(weights, x)
        changes = element_changes(jaxpr, spec, weights, x, rng)
    assert changes is not None
    wrong = {key: change for key, change in changes.items() if not change <= TOLERANCE}
    assert not wrong, f"{wrong}\n{spec.explain()}"


def test_whole_numbers_are_neither_scaled_nor_mixed() -> None:
    rng = np.random.default_rng(0)
    weights = {"a": rng.normal(size=(5, N)), "q": rng.integers(-7, 8, (N, 2)).astype(np.int32)}

    def apply(w, x):
        return x @ w["a"] @ w["q"].astype(x.dtype)

    with double_precision():
        spec = symmetry_spec(apply, weights, rng.normal(size=(3, 5)))
    (action,) = spec.actions
    assert action.kind == "permutations", spec.explain()
