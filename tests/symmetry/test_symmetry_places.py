"""Which axes of which parameters move together, typed by hand for each way of tying them.

Every list is proved from both sides: moving all of a group's places leaves the outputs as they
are (`check`), and leaving out any single one of them changes the outputs.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from matching_nets import drawn

from llfc_jax import networks
from llfc_jax.errors import MatchingError
from llfc_jax.networks.resnet_cifar import ResNetCifar
from llfc_jax.symmetry import PermutationSpec, check, permutation_spec
from llfc_jax.symmetry.axes import Sum, Units

Places = set[tuple[tuple[int, ...], frozenset[str]]]

WIDE = 6  # units in most of the networks below


def places(spec: PermutationSpec) -> Places:
    """(shape of a group's index, the axes it acts on) of each group."""
    found = {
        (spec.shape(g.name), frozenset(f"{path} {axis}" for path, axis in spec.where(g.name)))
        for g in spec.groups
    }
    assert len(found) == len(spec.groups)
    return found


def typed(*groups: tuple[Any, str]) -> Places:
    """The same from (size, "path axis, path axis, ...")."""
    return {
        (size if isinstance(size, tuple) else (size,), frozenset(words.split(", ")))
        for size, words in groups
    }


@dataclasses.dataclass(frozen=True)
class Net:
    """A network, the shapes of its parameters, and the groups it has."""

    apply: Callable[[Any, Any], Any]
    shapes: dict[str, tuple[int, ...]]
    groups: Places
    notes: str = ""
    x: tuple[int, ...] = (4,)

    def variables(self, seed: int = 0) -> Any:
        return drawn(
            {k: jax.ShapeDtypeStruct(s, jnp.float32) for k, s in self.shapes.items()}, seed
        )

    def batch(self, samples: int = 5) -> jax.Array:
        return jax.random.normal(jax.random.key(1), (samples, *self.x))


NETS: dict[str, Net] = {}
ENDS = {"first": (4, WIDE), "last": (WIDE, 3)}
PLAIN = typed((WIDE, "first 1, last 0"))


def net(
    shapes: dict[str, tuple[int, ...]], groups: Places, notes: str = "", x: tuple[int, ...] = (4,)
) -> Callable[[Any], Any]:
    def register(apply: Any) -> Any:
        NETS[apply.__name__] = Net(apply, shapes, groups, notes, x)
        return apply

    return register


@net(ENDS | {"mid": (WIDE, WIDE)}, typed((WIDE, "first 1, mid 0, mid 1, last 0")))
def tied_weight(w: Any, x: Any) -> Any:
    """One weight used twice ties its two sides to each other."""
    x = jnp.tanh(x @ w["first"])
    for _ in range(2):
        x = jnp.tanh(x @ w["mid"])
    return x @ w["last"]


@net({"code": (4, WIDE), "shift": (4,)}, typed((WIDE, "code 1")))
def autoencoder(w: Any, x: Any) -> Any:
    """A decoder that is the encoder's transpose."""
    return jnp.tanh(x @ w["code"]) @ w["code"].T + w["shift"][None]


@net(ENDS | {"mid": (WIDE, WIDE)}, typed((WIDE, "first 1, mid 0, mid 1, last 0")))
def stream(w: Any, x: Any) -> Any:
    x = x @ w["first"]
    return (x + jnp.tanh(x @ w["mid"])) @ w["last"]


@net({"first": (4, 4), "last": (4, 3)}, typed())
def added_to_the_input(w: Any, x: Any) -> Any:
    return (x + jnp.tanh(x @ w["first"])) @ w["last"]


@net({"first": (4, 3), "last": (3, 3)}, typed())
def added_to_the_output(w: Any, x: Any) -> Any:
    hidden = jnp.tanh(x @ w["first"])
    return hidden + hidden @ w["last"]


@net({"first": (4, WIDE), "last": (3, 3)}, typed((3, "first 1, last 0"), ((3, 2), "first 1")))
def maxout(w: Any, x: Any) -> Any:
    """Units of 2 pieces each: the pieces of a unit may trade places in it as well."""
    return (x @ w["first"]).reshape(len(x), 3, 2).max(-1) @ w["last"]


@net({"first": (4, WIDE), "last": (3, 3)}, typed((3, "first 1, last 0")))
def gated(w: Any, x: Any) -> Any:
    """Halves that are multiplied: unit i stands at places i and 3 + i."""
    left, right = jnp.split(x @ w["first"], 2, -1)
    return (left * jax.nn.sigmoid(right)) @ w["last"]


@net(
    {"one": (4, 3), "two": (4, 5), "last": (8, 3)},
    typed((3, "one 1, last 0"), (5, "two 1, last 0")),
)
def concatenated(w: Any, x: Any) -> Any:
    return jnp.concatenate([jnp.tanh(x @ w["one"]), jnp.sin(x @ w["two"])], -1) @ w["last"]


@net({"first": (4, WIDE), "last": (3, 3)}, typed((2, "first 1, last 0"), (3, "first 1")))
def sliced(w: Any, x: Any) -> Any:
    """Units 1 and 2 are told apart from unit 0; the other three are never looked at."""
    hidden = jnp.tanh(x @ w["first"])
    return hidden[:, :3] @ w["last"] + hidden[:, 1:3].sum(-1, keepdims=True)


@net(
    {"first": (4, 12), "last": (12, 3)},
    typed((3, "first 1, last 0"), ((3, 4), "first 1, last 0")),
)
def shuffled(w: Any, x: Any) -> Any:
    """Places laid out 4 by 3 and then 3 by 4: the threes move whole, the fours within each."""
    hidden = jnp.tanh(x @ w["first"]).reshape(len(x), 4, 3)
    return jnp.swapaxes(hidden, 1, 2).reshape(len(x), 12) @ w["last"]


@net(
    {"kernel": (5, 2, 3, 3), "shift": (5,), "scale": (5,), "last": (3, 5)},
    typed((5, "kernel 0, shift 0, scale 0, last 1")),
    x=(2, 4, 4),
)
def channels_first(w: Any, x: Any) -> Any:
    """As PyTorch lays arrays out, with a mean over the positions."""
    numbers = ("NCHW", "OIHW", "NCHW")
    x = lax.conv_general_dilated(x, w["kernel"], (1, 1), "SAME", dimension_numbers=numbers)
    x = jax.nn.relu(x * w["scale"][None, :, None, None] + w["shift"][None, :, None, None])
    return jnp.einsum("ni,oi->no", x.mean((2, 3)), w["last"])


@net(
    {"kernel": (3, 3, 2, 5), "last": (5 * 16, 3)},
    typed((5, "kernel 3, last 0")),
    x=(4, 4, 2),
)
def flattened_channels_first(w: Any, x: Any) -> Any:
    """Transposed before it is flattened: the channels are the slowest part of the axis."""
    numbers = ("NHWC", "HWIO", "NHWC")
    x = lax.conv_general_dilated(x, w["kernel"], (1, 1), "SAME", dimension_numbers=numbers)
    return jnp.tanh(x).transpose(0, 3, 1, 2).reshape(len(x), -1) @ w["last"]


@net({"table": (7, WIDE), "last": (WIDE, 3)}, typed((WIDE, "table 1, last 0")))
def looked_up(w: Any, x: Any) -> Any:
    words = jnp.abs(3 * x).astype(jnp.int32) % 7
    return jnp.tanh(w["table"][words].sum(1)) @ w["last"]


@net(ENDS | {"scale": (WIDE,)}, typed((WIDE, "first 1, scale 0, last 0")))
def normalised(w: Any, x: Any) -> Any:
    """Statistics over the units do not tell them apart."""
    x = x @ w["first"]
    x = (x - x.mean(-1, keepdims=True)) * lax.rsqrt(x.var(-1, keepdims=True) + 1e-3)
    return jnp.tanh(x * w["scale"][None]) @ w["last"]


@net(ENDS, typed())
def marked(w: Any, x: Any) -> Any:
    """A constant that tells the units apart."""
    return jnp.tanh(x @ w["first"] * jnp.arange(1.0, WIDE + 1)[None]) @ w["last"]


@net(ENDS, PLAIN)
def unmarked(w: Any, x: Any) -> Any:
    """A constant that does not."""
    return jnp.tanh(x @ w["first"] * jnp.full((1, WIDE), 0.5)) @ w["last"]


@net(ENDS, PLAIN)
def nested_calls(w: Any, x: Any) -> Any:
    """jit, remat, custom derivatives, a barrier: read through."""
    x = jax.jit(lambda x: x @ w["first"])(x)
    x = jax.checkpoint(jax.nn.gelu)(x)
    return (
        jax.jit(jax.checkpoint(lambda x: jax.nn.relu(lax.optimization_barrier(x))))(x) @ w["last"]
    )


@net(ENDS | {"mid": (WIDE, WIDE)}, typed((WIDE, "first 1, mid 0, mid 1, last 0")))
def scanned(w: Any, x: Any) -> Any:
    x, _ = lax.scan(lambda x, _: (jnp.tanh(x @ w["mid"]), None), x @ w["first"], length=2)
    return x @ w["last"]


@net(ENDS, PLAIN)
def branched(w: Any, x: Any) -> Any:
    return lax.cond(x.sum() > 0, jnp.tanh, jnp.sin, x @ w["first"]) @ w["last"]


@net(ENDS, PLAIN)
def looped(w: Any, x: Any) -> Any:
    x = lax.while_loop(lambda x: jnp.abs(x).max() > 1, lambda x: x / 2, x @ w["first"])
    return x @ w["last"]


@net(ENDS | {"free": (4, 5), "out": (5, 3)}, typed((5, "free 1, out 0")), notes="fft")
def unknown_primitive(w: Any, x: Any) -> Any:
    """One branch is not understood; the other one stays free."""
    spectrum = jnp.abs(jnp.fft.fft(x @ w["first"]))
    return spectrum @ w["last"] + jnp.tanh(x @ w["free"]) @ w["out"]


@net(ENDS, typed((WIDE, "first 1")))
def ranked(w: Any, x: Any) -> Any:
    """The largest numbers do not depend on the order of the units; their ranks are fixed."""
    return lax.top_k(x @ w["first"], WIDE)[0] @ w["last"]


@net(ENDS, typed())
def ordered(w: Any, x: Any) -> Any:
    return jnp.cumsum(x @ w["first"], -1) @ w["last"]


@net(ENDS, typed())
def numbered(w: Any, x: Any) -> Any:
    hidden = x @ w["first"]
    return (hidden * (jnp.argmax(hidden, -1)[:, None] + 1)) @ w["last"]


@net(ENDS | {"idle": (WIDE,)}, PLAIN)
def not_all_used(w: Any, x: Any) -> Any:
    return jnp.tanh(x @ w["first"]) @ w["last"]


def left_out(net: Net, spec: PermutationSpec) -> dict[str, float]:
    """By how much the outputs change where one leaf alone is not permuted, as a share."""
    w, x, run = net.variables(), net.batch(), jax.jit(net.apply)
    before = run(w, x)
    moved = spec.apply({name: jnp.roll(p, 1, -1) for name, p in spec.identity().items()}, w)
    return {
        name: float(jnp.abs(run(moved | {name: w[name]}, x) - before).max() / jnp.abs(before).max())
        for name in w
        if moved[name] is not w[name]
    }


@pytest.mark.parametrize("name", list(NETS))
def test_groups_act_where_a_person_would_say(name: str) -> None:
    net = NETS[name]
    w = net.variables()
    spec = permutation_spec(net.apply, w, net.batch())
    assert places(spec) == net.groups
    if net.notes:
        assert any(net.notes in note for note in spec.notes), spec.notes
        assert net.notes in spec.explain()
    else:
        assert not spec.notes
    assert check(spec, net.apply, w, net.batch()) < 1e-5
    needed = left_out(net, spec)
    # A leaf that alone holds all its groups may move or not.
    if len(needed) > 1:
        assert min(needed.values()) > 1e-2, needed


# -- the paper's networks --------------------------------------------------------------------------


def traced(name: str, shape: tuple[int, ...], samples: int = 2, **fields: Any) -> PermutationSpec:
    """The spec of a network of the library, from shapes alone."""
    module = networks.build(name, 10, **fields)
    x = jax.ShapeDtypeStruct((samples, *shape), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), x)
    return permutation_spec(module.apply, variables, x)


def layer(name: str, *more: str, norm: str = "", kind: str = "none") -> str:
    """What hands units out: a kernel's last axis, its bias, and its norm's parameters."""
    rank = 1 if name.startswith("Dense") else 3
    words = [f"params/{name}/kernel {rank}", *more]
    if kind != "none":
        words += [f"params/{norm}/scale 0", f"params/{norm}/bias 0"]
    if kind == "batch":
        words += [f"batch_stats/{norm}/mean 0", f"batch_stats/{norm}/var 0"]
    return ", ".join(words)


def test_mlp() -> None:
    expected = typed(
        *(
            (n, layer(f"Dense_{i}", f"params/Dense_{i}/bias 0", f"params/Dense_{i + 1}/kernel 0"))
            for i, n in enumerate((16, 16, 12))
        )
    )
    assert places(traced("mlp", (8, 8, 1), widths=(16, 16, 12))) == expected


@pytest.mark.parametrize("side", [28, 16, 12])  # flattened from 5x5, 2x2 positions and one
def test_lenet(side: int) -> None:
    spec = traced("lenet5", (side, side, 1))
    assert places(spec) == typed(
        (6, layer("Conv_0", "params/Conv_0/bias 0", "params/Conv_1/kernel 2")),
        (16, layer("Conv_1", "params/Conv_1/bias 0", "params/Dense_0/kernel 0")),
        (120, layer("Dense_0", "params/Dense_0/bias 0", "params/Dense_1/kernel 0")),
        (84, layer("Dense_1", "params/Dense_1/bias 0", "params/Dense_2/kernel 0")),
    )


@pytest.mark.parametrize("kind", ["none", "batch", "layer"])
@pytest.mark.parametrize("side", [32, 64])  # flattened from one position and from four
def test_vgg(kind: str, side: int) -> None:
    channels = (4, 8, 16, 16, 32, 32, 32, 32)
    after = [f"params/Conv_{i}/kernel 2" for i in range(1, 8)] + ["params/Dense_0/kernel 0"]
    groups = [
        (n, layer(f"Conv_{i}", f"params/Conv_{i}/bias 0", after[i], norm=f"Norm_{i}", kind=kind))
        for i, n in enumerate(channels)
    ]
    groups += [
        (n, layer(f"Dense_{i}", f"params/Dense_{i}/bias 0", f"params/Dense_{i + 1}/kernel 0"))
        for i, n in enumerate((256, 128))
    ]
    fields = {"depth": 11, "width": 1 / 16, "norm": kind, "hidden": (4096, 2048)}
    assert places(traced("vgg", (side, side, 3), **fields)) == typed(*groups)


def block(number: int, kind: str, shortcut: str) -> tuple[str, str, str]:
    """Of a stage's block: what it takes in, its hidden channels, and what it gives."""
    at = f"stage{number}_block0"
    into = f"params/{at}/conv1/kernel 2"
    inner = layer(f"{at}/conv1", f"params/{at}/conv2/kernel 2", norm=f"{at}/norm1", kind=kind)
    given = layer(f"{at}/conv2", norm=f"{at}/norm2", kind=kind)
    if number > 1 and shortcut != "pad":
        norm = f"{at}/shortcut_norm"
        into += f", params/{at}/shortcut_conv/kernel 2"
        given += ", " + layer(f"{at}/shortcut_conv", norm=norm, kind=kind)
    return into, inner, given


@pytest.mark.parametrize("kind", ["batch", "layer", "none"])
@pytest.mark.parametrize("shortcut", ["pad", "conv1", "conv3"])
def test_resnet(kind: str, shortcut: str) -> None:
    module = ResNetCifar(10, 8, kind, shortcut=shortcut)  # pyright: ignore
    x = jax.ShapeDtypeStruct((2, 16, 16, 3), jnp.float32)
    spec = permutation_spec(module.apply, jax.eval_shape(module.init, jax.random.key(0), x), x)
    first = layer("conv1", norm="norm1", kind=kind)
    into, inner, given = zip(*(block(i, kind, shortcut) for i in (1, 2, 3)), strict=True)
    dense = "params/dense/kernel 0"
    groups = list(zip((16, 32, 64), inner, strict=True))
    if shortcut == "pad":
        # What the first stage gives goes on to the end, amid what later stages add.
        groups += [
            (16, ", ".join([first, *into, *given, dense])),
            (16, ", ".join([*into[2:], *given[1:], dense])),
            (32, ", ".join([*given[2:], dense])),
        ]
    else:
        groups += [
            (16, ", ".join([first, *into[:2], given[0]])),
            (32, ", ".join([into[2], given[1]])),
            (64, ", ".join([given[2], dense])),
        ]
    assert places(spec) == typed(*groups)
    assert not spec.notes


def test_padded_channels_stand_between_those_that_pad_them() -> None:
    """Option A: 4 + 16 units, 8 zeros on either side."""
    spec = traced("resnet_cifar", (8, 8, 3))
    axes = dict(spec.leaves)["params/stage2_block1/conv1/kernel"][2]
    stream, zeros = Units("conv1", 16), Units("stage2_block0/conv2", 16)
    assert axes == Sum((zeros, stream), ((0, 8), (1, 16), (0, 8)))


def test_vit() -> None:
    spec = traced("vit", (8, 8, 3), dim=12, depth=2, heads=3, mlp_dim=14)
    stream = ["params/embed/kernel 3", "params/embed/bias 0", "params/position 2"]
    stream += ["params/norm/scale 0", "params/norm/bias 0", "params/dense/kernel 0"]
    groups = []
    for i in range(2):
        at, parts = f"params/block{i}", ("query", "key", "value")
        attention = f"{at}/attention"
        stream += [f"{at}/norm{n}/{leaf} 0" for n in (1, 2) for leaf in ("scale", "bias")]
        stream += [f"{attention}/{part}/kernel 0" for part in parts]
        stream += [f"{attention}/out/kernel 2", f"{attention}/out/bias 0"]
        stream += [f"{at}/mlp1/kernel 0", f"{at}/mlp2/kernel 1", f"{at}/mlp2/bias 0"]
        groups.append((14, f"{at}/mlp1/kernel 1, {at}/mlp1/bias 0, {at}/mlp2/kernel 0"))

        def width(*parts: str, axis: int, at: str = attention) -> list[str]:
            ends = (f"{at}/{p}/{leaf}" for p in parts for leaf in ("kernel", "bias"))
            return [f"{end} {axis - end.endswith('bias')}" for end in ends]

        heads = [*width(*parts, axis=1), f"{attention}/out/kernel 0"]
        groups.append((3, ", ".join(heads)))
        groups.append(((3, 4), ", ".join(width("query", "key", axis=2))))
        groups.append(((3, 4), ", ".join([*width("value", axis=2), f"{attention}/out/kernel 1"])))
    assert places(spec) == typed((12, ", ".join(stream)), *groups)


SMALL: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "mlp": ((4, 4, 1), {"widths": (16, 16)}),
    "lenet5": ((12, 12, 1), {}),
    "vgg": ((32, 32, 3), {"depth": 11, "width": 1 / 16, "norm": "batch"}),
    "resnet_cifar": ((8, 8, 3), {}),
    "vit": ((8, 8, 3), {"dim": 8, "depth": 1, "heads": 2, "mlp_dim": 16}),
}


@pytest.mark.parametrize("name", list(SMALL))
@pytest.mark.slow
def test_the_number_of_samples_does_not_matter(name: str) -> None:
    """Also where it is that of the units, the positions or the classes."""
    shape, fields = SMALL[name]
    expected = traced(name, shape, **fields)
    for samples in (1, 3, 10, 16):
        spec = traced(name, shape, samples, **fields)
        assert spec == expected
        assert hash(spec) == hash(expected)
        assert [site for site, _ in spec.sites] == [site for site, _ in expected.sites]


# -- the check itself ------------------------------------------------------------------------------


def corrupted(spec: PermutationSpec, path: str, axis: int, group: str) -> PermutationSpec:
    """The spec with one axis of one leaf given to another group of the same size."""
    leaves = dict(spec.leaves)
    axes = list(leaves[path])
    axes[axis] = Units(group, axes[axis].size)
    leaves[path] = tuple(axes)
    return dataclasses.replace(spec, leaves=tuple(leaves.items()))


@pytest.mark.parametrize(
    ("module", "shape", "group", "other", "tried"),
    [
        (networks.build("mlp", 10, widths=(16, 16)), (16,), "Dense_0", "Dense_1", 3),
        (networks.build("vgg", 10, **SMALL["vgg"][1]), SMALL["vgg"][0], "Conv_4", "Conv_5", 1),
        (ResNetCifar(10, 8, "batch"), (8, 8, 3), "stage1_block0/conv1", "conv1", 1),  # pyright: ignore
    ],
    ids=["mlp", "vgg", "resnet"],
)
def test_a_spec_with_one_axis_in_the_wrong_group_fails_its_check(
    module: Any, shape: tuple[int, ...], group: str, other: str, tried: int
) -> None:
    x = jax.random.normal(jax.random.key(1), (2, *shape))
    variables = drawn(jax.eval_shape(module.init, jax.random.key(0), x), 0)
    apply = module.apply
    spec = permutation_spec(apply, variables, x)
    assert check(spec, apply, variables, x) < 1e-5
    for path, axis in spec.where(group)[-tried:]:
        wrong = corrupted(spec, path, axis, other)
        with pytest.raises(MatchingError, match="the spec is wrong") as caught:
            check(wrong, apply, variables, x)
        assert "\n" not in str(caught.value)
