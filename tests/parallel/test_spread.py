"""Modes spread over eight devices: the numbers of one device, and no device ever holds a mode."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow

DEVICES = 8
LEAF = 128 * 256 * 4  # bytes of the largest leaf of `spread.Net`


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("spread") / "out.pkl"
    flags = f"--xla_force_host_platform_device_count={DEVICES} --xla_backend_optimization_level=0"
    env = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(Path(__file__).parent / "spread.py"), str(out)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return pickle.loads(out.read_bytes())


def test_numbers_are_those_of_one_device(made):
    for name, rows in made["one"]["rows"].items():
        for row, other in zip(rows, made["spread"]["rows"][name], strict=True):
            assert row.keys() == other.keys()
            for key, value in row.items():
                if isinstance(value, float):
                    np.testing.assert_allclose(other[key], value, rtol=1e-4, atol=1e-6)
                else:
                    assert other[key] == value
    expected = [row["loss"] for row in made["one"]["rows"]["lmc"] if row["align"] == "none"]
    np.testing.assert_allclose(made["on_mesh"], expected, rtol=1e-5)


def test_weight_matching_finds_the_same_permutation(made):
    one, other = made["one"]["permutation"], made["spread"]["permutation"]
    assert one.keys() == other.keys()
    for group, index in one.items():
        np.testing.assert_array_equal(other[group], index)


def test_points_and_permuted_modes_stay_spread(made):
    mode, *held = made["held"]
    assert max(held) < 1.1 * mode / DEVICES


def test_no_program_gathers_a_mode(made):
    """One and a half times three modes' parts at most, and activations; or a leaf, and scores."""
    mode, peaks = made["held"][0], made["spread"]["peaks"]
    activations = made["spread_estimate"]["features"]
    assert activations < 2 * mode / DEVICES
    limit = 1.5 * 3 * mode / DEVICES
    assert peaks["jit_measure_batch"] < limit + activations
    for name, need in peaks.items():
        assert need < max(limit, 5 * LEAF), name
    # Were one mode gathered, it would show.
    assert peaks["jit_measure_batch"] + mode * (1 - 1 / DEVICES) > limit + activations


def test_the_estimate_covers_what_is_needed(made):
    for where in ("one", "spread"):
        need = made[where]["peaks"]["jit_measure_batch"]
        estimate = sum(made[f"{where}_estimate"].values())
        assert need < estimate < 2.5 * need
