"""Configs of the sweeps that ask which condition of LLFC breaks first, for `findings.py`.

    llfc-jax sweep benchmarks/conditions.py:mlp_k --workdir out/mlp_k

`NETWORK_AXIS`: `mlp` or `lenet`; along `k`, the shared epochs; along `rate`, the learning rate of
pairs that share one epoch; along `width` (`mlp` only), that of independent networks before and
after matching. 6,000 images of Fashion-MNIST, three seeds.
Costs: `mlp` 2 to 5 CPU minutes, `lenet` about 10.
Shows: both ratios, of weak additivity and of commutativity, along one axis.
"""

from ml_collections import ConfigDict

from llfc_jax.experiments.config import base

WIDTHS = (8, 16, 32, 64, 128, 256)
RATES = (0.001, 0.003, 0.01, 0.03)
SHARED = (0, 1, 2, 4)


def get_config(which: str = "mlp_k") -> ConfigDict:
    """Returns the config of a sweep."""
    network, _, axis = which.partition("_")
    config = base()
    config.data.update(name="fashion_mnist", train_size=6_000, test_size=2_000)
    if network == "mlp":
        config.data.size = 14
        config.network = {"name": "mlp", "widths": (128, 128, 128)}
    else:
        config.network = {"name": "lenet5"}
    config.train.update(epochs=12 if network == "mlp" else 6, batch_size=100)
    config.train.update(optimizer="adam", learning_rate=0.003)
    config.train.update(schedule="constant", weight_decay=0.0)
    config.measures = ("lmc", "llfc", "weak_additivity", "commutativity")
    config.eval.splits = ("test",)
    config.eval.alphas = (0.0, 0.25, 0.5, 0.75, 1.0)
    config.pairs = ("spawn_k1",)
    config.sweep.seed = (0, 1, 2)
    if axis == "k":
        config.pairs = tuple(f"spawn_k{k}" for k in SHARED)
    elif axis == "rate":
        config.sweep.train = {"learning_rate": RATES}
    else:
        config.pairs, config.align = ("independent",), ("none", "weight", "activation")
        config.sweep.network = {"widths": tuple((width,) * 3 for width in WIDTHS)}
    return config
