"""How far every measure is from its definition in float64 NumPy: the largest deviation of each.

    python tests/measures/deviations.py                     # networks in float32
    python tests/measures/deviations.py --scale 1e20        # all features 1e20 times as large
    JAX_ENABLE_X64=1 python tests/measures/deviations.py    # networks in float64

Runs the comparisons of test_measures_oracle.py. A deviation is |found - wanted|, divided by
|wanted| where that is above 1; a number where there should be none, or none where there should be
one, is infinitely far.
"""

import argparse
import inspect
import itertools
import json
from unittest import mock

import jax
import numpy as np
import oracle
import test_measures_oracle as comparisons

FORMS = {"form": ("mixture", "sum"), "base": ("a", "b")}


def deviation(found, wanted) -> float:
    found, wanted = np.broadcast_arrays(np.asarray(found, float), np.asarray(wanted, float))
    gap = np.abs(found - wanted) / np.maximum(np.abs(wanted), 1)
    gap = np.where(np.isnan(found) & np.isnan(wanted), 0, gap)
    return float(np.where(np.isnan(gap), np.inf, gap).max(initial=0))


def largest(scale: float, networks=(oracle.MLP, oracle.CONVOLUTIONAL)) -> dict[str, float]:
    """Measure -> largest deviation over these networks."""
    found: dict[str, float] = {}
    weights, data = oracle.weights, oracle.data
    kind = np.float64 if jax.numpy.result_type(float) == "float64" else np.float32

    def close(ours, wanted, **_):
        found[name] = max(found.get(name, 0.0), deviation(ours, wanted))

    def scaled(kinds, seed):
        w = oracle.scaled(weights(kinds, seed), scale)
        return [tuple(part.astype(kind) for part in layer) for layer in w]

    with (
        mock.patch.object(oracle, "weights", scaled),
        mock.patch.object(oracle, "data", lambda k: (data(k)[0].astype(kind), data(k)[1])),
        mock.patch.object(comparisons, "close", close),
    ):
        for key, compare in vars(comparisons).items():
            parameters = inspect.signature(compare).parameters if key[:5] == "test_" else {}
            if "kinds" not in parameters:
                continue
            name = key.removeprefix("test_")
            asked = {p: FORMS[p] for p in parameters if p in FORMS}
            for kinds in networks:
                for values in itertools.product(*asked.values()):
                    compare(kinds, **dict(zip(asked, values, strict=True)))
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--scale", type=float, default=1.0, help="of all features")
    parser.add_argument("--network", choices=("mlp", "conv"), help="one of the two")
    given = parser.parse_args()
    chosen = {"mlp": [oracle.MLP], "conv": [oracle.CONVOLUTIONAL]}.get(given.network)
    print(json.dumps(largest(given.scale, *([chosen] if chosen else [])), indent=2))
