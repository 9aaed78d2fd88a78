"""Networks: published parameter counts, independent forward passes, options, and bad input."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from llfc_jax import networks
from llfc_jax.errors import ConfigError, DataError

KEY = jax.random.key(0)
HERE = Path(__file__).parent
# Smallest useful variant of each network and an input that fits it.
SMALL = {
    "mlp": ({"widths": (8, 8)}, (6, 6, 1)),
    "lenet5": ({}, (12, 12, 1)),
    "vgg": ({"depth": 11, "width": 0.03, "norm": "batch"}, (32, 32, 1)),
    "resnet_cifar": ({"width": 0.25}, (8, 8, 1)),
    "resnet_imagenet": ({"depth": 18, "width": 0.05, "stem": 32}, (8, 8, 1)),
    "vit": ({"dim": 8, "depth": 1, "heads": 2, "mlp_dim": 16, "dropout": 0.5}, (8, 8, 1)),
}


def parameters(name, shape, classes=10, **values):
    module = networks.build(name, classes, **values)
    return networks.count(jax.eval_shape(module.init, KEY, jnp.zeros((1, *shape))))


@pytest.mark.parametrize(
    ("name", "shape", "classes", "values", "count"),
    [
        ("mlp", (28, 28, 1), 10, {}, 785 * 512 + 2 * 513 * 512 + 513 * 10),
        ("lenet5", (28, 28, 1), 10, {}, 61_706),
        ("vgg", (224, 224, 3), 1000, {"depth": 11}, 132_863_336),
        ("vgg", (224, 224, 3), 1000, {"depth": 13}, 133_047_848),
        ("vgg", (224, 224, 3), 1000, {"depth": 16}, 138_357_544),
        ("vgg", (224, 224, 3), 1000, {"depth": 19, "norm": "batch"}, 143_678_248),
        ("vgg", (32, 32, 3), 10, {"depth": 16, "norm": "batch"}, 33_646_666),
        ("resnet_cifar", (32, 32, 3), 10, {"depth": 20}, 269_722),
        ("resnet_cifar", (32, 32, 3), 10, {"depth": 32}, 464_154),
        ("resnet_cifar", (32, 32, 3), 10, {"depth": 44}, 658_586),
        ("resnet_cifar", (32, 32, 3), 10, {"depth": 56}, 853_018),
        ("resnet_cifar", (32, 32, 3), 10, {"depth": 110}, 1_727_962),
        ("resnet_imagenet", (224, 224, 3), 1000, {"depth": 18}, 11_689_512),
        ("resnet_imagenet", (224, 224, 3), 1000, {"depth": 34}, 21_797_672),
        ("resnet_imagenet", (224, 224, 3), 1000, {"depth": 50}, 25_557_032),
        # Its 7x7 stem is 3x3 here, and there are 200 classes.
        (
            "resnet_imagenet",
            (64, 64, 3),
            200,
            {"stem": 64},
            25_557_032 - (49 - 9) * 3 * 64 - 800 * 2049,
        ),
        # DeiT-Ti without the class token and its position.
        (
            "vit",
            (224, 224, 3),
            1000,
            {"patch": 16, "dim": 192, "depth": 12, "heads": 3, "mlp_dim": 768},
            5_717_416 - 2 * 192,
        ),
    ],
)
def test_parameters_are_as_many_as_published(name, shape, classes, values, count):
    assert parameters(name, shape, classes, **values) == count


def test_the_widest_network_of_the_paper_has_as_many_parameters_as_its_layers():
    c = 32 * np.array([16, 32, 64])
    kernels = (
        27 * c[0] + 54 * c[0] ** 2 + sum(18 * c[i] * c[i + 1] + 45 * c[i + 1] ** 2 for i in (0, 1))
    )
    expected = kernels + 14 * c.sum() + 10 * (c[2] + 1)
    values = {"norm": "layer", "shortcut": "conv3", "width": 32.0}
    assert parameters("resnet_cifar", (32, 32, 3), **values) == expected


def test_width_multiplies_channels():
    one, four = (parameters("resnet_cifar", (8, 8, 3), width=w) for w in (1, 4))
    assert 15 < four / one < 16
    assert parameters("resnet_cifar", (8, 8, 3), width=0.125) < one / 50


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*networks.NETWORKS} - {"gpt", "unet", "towers"}))
def test_each_network_initialises_evaluates_and_trains(name):
    values, shape = SMALL[name]
    module = networks.build(name, 3, **values)
    x = jax.random.normal(KEY, (4, *shape))
    variables = networks.init(module, KEY, x)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}

    @jax.jit
    def both(variables, key):
        rngs = {"dropout": key}
        return module.apply(variables, x), module.apply(variables, x, True, rngs=rngs, mutable=True)

    logits, (first, after) = both(variables, jax.random.key(1))
    again, (second, _) = both(variables, jax.random.key(2))
    assert logits.shape == (4, 3)
    assert np.isfinite(logits).all()
    np.testing.assert_array_equal(logits, again)
    dropped = getattr(module, "dropout", 0) > 0
    assert np.array_equal(first, second) != dropped
    for path, before in jax.tree_util.tree_leaves_with_path(variables.get("batch_stats", {})):
        now = after["batch_stats"]
        for key in path:
            now = now[key.key]
        assert not np.array_equal(before, now)


@pytest.mark.parametrize("name", ["mlp", "lenet5", "vit"])
def test_bfloat16_computes_near_float32_with_float32_parameters(name):
    values, shape = SMALL[name]
    x = jax.random.normal(KEY, (4, *shape))
    exact, rough = (networks.build(name, 3, dtype=d, **values) for d in (None, jnp.bfloat16))
    variables = networks.init(rough, KEY, x)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}
    logits, expected = jax.jit(lambda v: (rough.apply(v, x), exact.apply(v, x)))(variables)
    assert logits.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(logits, np.float32), expected, atol=0.15)


def conv(x, kernel, bias=0.0, pad=0, stride=1):
    """Convolution by its definition, float64."""
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    k = kernel.shape[0]
    windows = np.lib.stride_tricks.sliding_window_view(x, (k, k), (1, 2))[:, ::stride, ::stride]
    return np.einsum("nhwcij,ijco->nhwo", windows, kernel) + bias


def layer_norm(x, scale, bias):
    deviation = np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return (x - x.mean(-1, keepdims=True)) / deviation * scale + bias


def drawn(module, *arguments):
    """Variables at random, in float64: scales and biases count as much as kernels."""
    shapes = jax.eval_shape(lambda: module.init(KEY, *arguments))
    random = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: random.normal(0.1, 0.5, leaf.shape), shapes)


def as_float32(tree):
    return jax.tree.map(np.float32, tree)


def pool(x):
    n, h, w, c = x.shape
    x = x[:, : h // 2 * 2, : w // 2 * 2]
    return x.reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))


def test_lenet_and_mlp_compute_what_they_say():
    x = np.asarray(jax.random.normal(KEY, (3, 15, 13, 2)))
    module = networks.build("lenet5", 10)
    variables = networks.init(module, KEY, x)
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])
    y = pool(np.maximum(conv(x, **p["Conv_0"], pad=2), 0))
    y = pool(np.maximum(conv(y, **p["Conv_1"], pad=0), 0)).reshape(3, -1)
    for i in range(3):
        y = np.maximum(y, 0) @ p[f"Dense_{i}"]["kernel"] + p[f"Dense_{i}"]["bias"]
    np.testing.assert_allclose(jax.jit(module.apply)(variables, x), y, atol=1e-5)

    module = networks.build("mlp", 4, widths=[5, 6])
    variables = networks.init(module, KEY, x)
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])
    y = x.reshape(3, -1)
    for i in range(3):
        y = (np.maximum(y, 0) if i else y) @ p[f"Dense_{i}"]["kernel"] + p[f"Dense_{i}"]["bias"]
    np.testing.assert_allclose(jax.jit(module.apply)(variables, x), y, atol=1e-5)


def test_a_bottleneck_computes_what_it_says():
    from llfc_jax.networks.resnet_imagenet import Block

    block = Block(3, 2, True, "layer", None)
    x = np.asarray(jax.random.normal(KEY, (2, 6, 6, 4)), np.float64)
    variables = drawn(block, np.float32(x), False)
    p = variables["params"]
    y = x
    for i, (pad, stride) in enumerate([(0, 1), (1, 2), (0, 1)], 1):
        y = layer_norm(conv(y, p[f"conv{i}"]["kernel"], pad=pad, stride=stride), **p[f"norm{i}"])
        y = np.maximum(y, 0) if i < 3 else y
    shortcut = conv(x, p["shortcut_conv"]["kernel"], stride=2)
    expected = np.maximum(y + layer_norm(shortcut, **p["shortcut_norm"]), 0)
    found = jax.jit(block.apply, static_argnums=2)(as_float32(variables), np.float32(x), False)
    assert found.shape == (2, 3, 3, 12)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_transformer_computes_what_it_says():
    module = networks.build(
        "vit", 3, patch=2, dim=8, depth=1, heads=2, mlp_dim=6, activation="relu"
    )
    x = np.asarray(jax.random.normal(KEY, (2, 4, 6, 1)), np.float64)
    variables = drawn(module, np.float32(x))
    p = variables["params"]
    b = p["block0"]
    patches = x.reshape(2, 2, 2, 3, 2, 1).swapaxes(2, 3).reshape(2, 6, 4)
    t = patches @ p["embed"]["kernel"].reshape(4, 8) + p["embed"]["bias"] + p["position"]
    y, attention = layer_norm(t, **b["norm1"]), b["attention"]
    q, k, v = (
        np.einsum("ntd,dhe->nhte", y, attention[n]["kernel"]) + attention[n]["bias"][:, None]
        for n in ("query", "key", "value")
    )
    weights = np.exp(q @ k.swapaxes(-1, -2) / 2)  # the root of 4, a head's width
    mixed = weights / weights.sum(-1, keepdims=True) @ v
    t = t + np.einsum("nhte,hed->ntd", mixed, attention["out"]["kernel"]) + attention["out"]["bias"]
    y = layer_norm(t, **b["norm2"]) @ b["mlp1"]["kernel"] + b["mlp1"]["bias"]
    t = t + np.maximum(y, 0) @ b["mlp2"]["kernel"] + b["mlp2"]["bias"]
    t = layer_norm(t, **p["norm"]).mean(1)
    expected = t @ p["dense"]["kernel"] + p["dense"]["bias"]
    found = jax.jit(module.apply)(as_float32(variables), np.float32(x))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_padded_shortcut_subsamples_and_adds_zero_channels_on_both_sides():
    from llfc_jax.networks.resnet_cifar import Block

    block = Block(6, 2, "layer", "pad", "both", None)
    x = np.abs(np.asarray(jax.random.normal(KEY, (2, 6, 6, 4))))
    variables = jax.jit(block.init, static_argnums=2)(KEY, x, False)
    # With the branch's last scale at 0 only the shortcut is left, and x is positive.
    variables["params"]["norm2"]["scale"] = jnp.zeros(6)
    expected = np.zeros((2, 3, 3, 6), np.float32)
    expected[..., 1:5] = x[:, ::2, ::2]
    np.testing.assert_array_equal(
        jax.jit(block.apply, static_argnums=2)(variables, x, False), expected
    )


def from_git_re_basin(stored, end):
    """Git Re-Basin's parameters of one end, in its own file, under our names."""
    names = {"shortcut/layers_0": "shortcut_conv", "shortcut/layers_1": "shortcut_norm"}
    names |= {f"blockgroups_{s}/blocks_{i}": f"stage{s + 1}_block{i}" for s, i in np.ndindex(3, 3)}
    params = {}
    for key in (key for key in stored if key.startswith(f"{end}:")):
        path = key[2:]
        for theirs, ours in {**names, "LayerNorm_": "Norm_"}.items():
            path = path.replace(theirs, ours)
        layer, leaf = path.rsplit("/", 1)
        params[(*layer.split("/"), leaf)] = stored[key]
    return {"params": unflatten_dict(params)}


@pytest.mark.parametrize(
    ("file", "name", "values"),
    [
        ("resnet20_w1", "resnet_cifar", {"shortcut": "conv3", "padding": "same"}),
        ("vgg16_m8", "vgg", {"width": 1 / 8, "hidden": (512, 512), "dropout": 0.0}),
    ],
)
def test_git_re_basin_networks_give_the_same_output(file, name, values):
    """Its weights (of both ends) and its log-probabilities of four inputs, from its own code."""
    module = networks.build(name, 10, norm="layer", **values)
    with np.load(HERE / "git_re_basin_outputs.npz") as outputs:
        x, expected = outputs[f"{file}:x"], {end: outputs[f"{file}:{end}"] for end in "AB"}
    with np.load(HERE.parent / "matching" / "golden" / f"{file}.npz") as stored:
        weights = {end: from_git_re_basin(stored, end) for end in "AB"}
    shapes = jax.eval_shape(module.init, KEY, x)
    apply = jax.jit(module.apply)
    for end, variables in weights.items():
        assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, shapes)
        outputs = jax.nn.log_softmax(apply(variables, x))
        np.testing.assert_allclose(outputs, expected[end], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("mpl", {}, "did you mean 'mlp'"),
        ("mlp", {"width": (4,)}, "did you mean 'widths'"),
        ("mlp", {"widths": 512}, "widths must be tuple[int, ...], not 512"),
        ("mlp", {"widths": (4, "5")}, "widths must be"),
        ("mlp", {"classes": 7}, "leave the field 'classes' out"),
        ("vgg", {"depth": 12}, "depth must be one of 11, 13, 16, 19, not 12"),
        ("vgg", {"norm": "batchnorm"}, "norm must be one of 'none', 'batch', 'layer'"),
        ("vgg", {"width": "wide"}, "width must be float"),
        ("resnet_cifar", {"parent": None}, "unknown field"),
    ],
)
def test_bad_fields_give_one_line(name, values, words):
    with pytest.raises(ConfigError) as caught:
        networks.build(name, 10, **values)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "shape", "error"),
    [
        ("lenet5", (8, 8, 1), DataError),
        ("lenet5", (64,), DataError),
        ("vgg", (28, 28, 1), DataError),
        ("resnet_cifar", (64,), DataError),
        ("resnet_imagenet", (64,), DataError),
        ("vit", (30, 30, 1), DataError),
    ],
)
def test_inputs_that_do_not_fit_give_one_line(name, shape, error):
    with pytest.raises(error) as caught:
        networks.init(networks.build(name, 10), KEY, jax.ShapeDtypeStruct((2, *shape), "float32"))
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_module_that_fails_on_its_input_gives_one_line():
    module = networks.build("vit", 10, dim=10, heads=4)
    with pytest.raises(ConfigError, match="multiple of heads"):
        networks.init(module, KEY, jnp.zeros((1, 8, 8, 1)))
    with pytest.raises(ConfigError, match="ViT cannot take inputs of shape"):
        networks.init(networks.build("vit", 10, patch=0), KEY, jnp.zeros((1, 8, 8, 1)))
