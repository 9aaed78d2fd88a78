"""The compilation cache: one folder per kind of machine, used by the next process."""

import os
import subprocess
import sys
from pathlib import Path

from llfc_jax.parallel import compile_cache

PROGRAM = """
import sys, jax, jax.numpy as jnp
from llfc_jax.parallel import compile_cache
compile_cache.MIN_SECONDS = 0.0
print(compile_cache.enable(sys.argv[1]))
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name))
x = jax.jit(lambda x: jnp.sin(x) @ jnp.cos(x).T)(jnp.ones((7, 5)))
print(sum(name.endswith("/cache_hits") for name in hits))
print(float(x[0, 0]).hex())
"""


def run(folder):
    env = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    env |= {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)], capture_output=True, text=True, env=env
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_second_process_compiles_nothing_and_computes_the_same(tmp_path):
    place, hits, value = run(tmp_path)
    assert Path(place).parent == tmp_path
    assert hits == "0"
    assert any(Path(place).iterdir())
    again, hits_again, value_again = run(tmp_path)
    assert int(hits_again) > 0
    assert (again, value_again) == (place, value)


def test_the_folder_is_the_users_and_differs_between_machines(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert compile_cache.default_folder() == tmp_path / "llfc_jax" / "compiled"
    here = compile_cache.machine_features()
    assert here == compile_cache.machine_features()
    monkeypatch.setattr(compile_cache.platform, "machine", lambda: "another")
    assert compile_cache.machine_features() != here


def test_a_folder_that_the_environment_names_is_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    assert compile_cache.enable() == tmp_path
