"""Four devices, and two processes of two each, find what one device finds, and go on from it."""

import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from meshed import NETWORKS, PAIR, found
from tiny import RECIPE, make_dataset

from llfc_jax.errors import ConfigError
from llfc_jax.parallel import sharding
from llfc_jax.training import train_pairs

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent


def start(devices, *arguments):
    """meshed.py in a process of its own, on so many virtual devices."""
    environment = os.environ | {
        "PYTHONPATH": str(HERE.parent.parent),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    command = [sys.executable, str(HERE / "meshed.py"), *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def start_two(out, workdir, *more):
    """Two such processes as one job on loopback, two devices each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{free.getsockname()[1]}"
    return [start(2, out, workdir, 2, 2, "--processes", where, 2, index, *more) for index in (0, 1)]


def compare(made, expected):
    for name, parts in expected.items():
        for what, leaves in parts.items():
            for ours, theirs in zip(made[name][what], leaves, strict=True):
                told = f"{name}, {what}"
                np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5, err_msg=told)


@pytest.fixture(scope="module")
def alone():
    return {name: found(name) for name in NETWORKS}


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Two processes, of which the second is killed in epoch 3: workdir, and how the first ends."""
    workdir = tmp_path_factory.mktemp("killed")
    first, second = start_two(workdir / "out", workdir, "--kill", 1)
    _, said = first.communicate(timeout=120)
    assert second.wait(timeout=120) == -signal.SIGKILL
    second.stderr.close()
    return workdir, first.returncode, said


@pytest.mark.slow
def test_four_devices_find_what_one_finds_and_go_on_from_it(alone, tmp_path):
    """The MLP is stopped on one device and goes on on four; the other network is theirs alone."""

    class Stop(Exception):
        pass

    def stop(done, total, words):
        if words.startswith("epoch 3 "):
            raise Stop

    with pytest.raises(Stop):
        train_pairs(
            NETWORKS["mlp"], make_dataset(), RECIPE, (PAIR,),
            workdir=tmp_path / "mlp", progress=stop,
        )  # fmt: skip
    running = start(4, tmp_path / "out", tmp_path, 2, 2)
    _, said = running.communicate(timeout=120)
    assert running.returncode == 0, said
    made = pickle.loads((tmp_path / "out").read_bytes())
    compare(made, alone)
    assert made["talk"] == {"apart": [], "across": ["all-reduce"]}  # gradients, and nothing else


def test_a_killed_process_stops_the_others_with_one_line(killed):
    _, status, said = killed
    assert status == 3, said
    (line,) = [line for line in said.splitlines() if "another process" in line]
    assert line.startswith("process 0 stops")
    assert "Traceback" not in said


def test_one_device_goes_on_from_what_two_processes_saved(killed, alone, tmp_path):
    shutil.copytree(killed[0] / "mlp", tmp_path, dirs_exist_ok=True)
    saved = {path.name for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()}
    assert saved == {"6", "12"}
    made = found("mlp", workdir=tmp_path)
    compare(alone | {"mlp": made}, alone)


@pytest.mark.slow
def test_two_processes_go_on_and_find_what_one_finds(killed, alone):
    """From here on they stream the data, each the samples of its own networks."""
    workdir, _, _ = killed
    running = start_two(workdir / "out", workdir, "--stream")
    for process in running:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    compare(pickle.loads((workdir / "out").read_bytes()), alone)


def test_a_mesh_that_cannot_be_is_refused():
    assert sharding.make() is None or jax.device_count() > 1
    with pytest.raises(ConfigError, match="mesh wants 64 x 2 devices"):
        sharding.make(64, 2)
