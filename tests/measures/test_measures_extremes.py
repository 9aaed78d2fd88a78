"""The measures at extreme scales, in float64 and in bfloat16, against the same oracle."""

import json
import os
import subprocess
import sys
from pathlib import Path

import deviations
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from oracle import ALPHAS, MLP

from llfc_jax import measures
from llfc_jax.tasks import classification

HERE = Path(__file__).parent


@pytest.mark.parametrize("scale", [1e-20, 1e20])
@pytest.mark.slow
def test_no_measure_overflows_or_vanishes(scale):
    found = deviations.largest(scale, [MLP])
    # Differences between losses of 1e20 are lost in float32's rounding of the losses.
    found.pop("layerwise")
    assert len(found) == 7
    assert max(found.values()) < 1e-5, found


def test_features_that_overflow_have_no_spectrum():
    a, b = (oracle.scaled(oracle.weights(MLP, seed), 1e38) for seed in (0, 1))
    x, y = oracle.data(MLP)
    found = measures.spectrum(oracle.network(MLP), a, b, oracle.split((1e3 * x, y)))
    assert np.isnan(found.feature_a).all()
    assert np.isfinite(found.weight_a).any()


def test_logits_that_are_no_numbers_predict_nothing():
    logits = jnp.array([[jnp.nan, 0, 0], [1, jnp.nan, 0], [3, 0, 0]])
    sums = classification().sums(logits, jnp.array([0, 1, 0]), jnp.ones(3))
    assert sums["accuracy"] == (1, 3)


@pytest.mark.slow
def test_float64_networks_are_measured_in_float64():
    """In a process of its own, since JAX's precision is a setting of the whole process."""
    done = subprocess.run(
        [sys.executable, str(HERE / "deviations.py"), "--network", "mlp"],
        env=os.environ | {"JAX_ENABLE_X64": "1", "PYTHONPATH": str(HERE.parent.parent)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == 8
    assert max(found.values()) < 1e-12, found


@pytest.mark.slow
def test_bfloat16_networks_are_within_their_rounding():
    """bfloat16 has 8 bits, so a feature is off by up to 2^-8 at every layer."""
    batches = oracle.split(oracle.data(MLP))
    a, b = oracle.weights(MLP, 0), oracle.weights(MLP, 1)
    apply = oracle.network(MLP)
    low = [jax.tree.map(lambda p: jnp.asarray(p, jnp.bfloat16), w) for w in (a, b)]
    coarse = [(jnp.asarray(x, jnp.bfloat16), y) for x, y in batches]
    wanted = measures.llfc(apply, a, b, batches, alphas=ALPHAS)
    found = measures.llfc(apply, *low, coarse, alphas=ALPHAS)
    assert found.distance.dtype == np.float64
    np.testing.assert_allclose(found.baseline, wanted.baseline, atol=2e-2)
    np.testing.assert_allclose(found.distance, wanted.distance, atol=2e-2)
    curves = [
        measures.lmc(apply, *w, on, alphas=ALPHAS) for w, on in ((low, coarse), ((a, b), batches))
    ]
    np.testing.assert_allclose(curves[0].loss, curves[1].loss, rtol=2e-2)
