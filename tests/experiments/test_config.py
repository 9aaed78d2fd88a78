"""Configs: what they may say, and one clear line for what they may not."""

import importlib.util
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llfc_jax.errors import ConfigError
from llfc_jax.experiments.config import Config, base, check, grid

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("[!_]*.py"))


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def changed(**paths):
    config = base().unlock()
    for path, value in paths.items():
        *groups, field = path.split("__")
        group = config
        for name in groups:
            group = group[name]
        group[field] = value
    return config


def test_the_defaults_are_a_valid_config():
    assert check(base()) == Config()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_file_is_valid_and_opens_with_what_it_costs_and_shows(path):
    module = load(path)
    check(module.get_config())
    assert "Costs:" in module.__doc__
    assert re.search(r"^Shows( \(.+\))?:", module.__doc__, re.MULTILINE)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sed": 1}, ["'sed'", "'seed'"]),
        ({"train__epoch": 1}, ["'epoch'", "'epochs'"]),
        ({"data__nam": "x"}, ["'nam'", "'name'"]),
        ({"eval__site": ()}, ["'site'", "'sites'"]),
        ({"seed": "one"}, ["seed", "int"]),
        ({"seed": True}, ["seed", "int"]),
        ({"seed": -1}, ["seed", "-1"]),
        ({"data": 3}, ["config.data", "group"]),
        ({"network": {"name": "mpl"}}, ["'mpl'", "'mlp'"]),
        ({"train__optimizer": "adm"}, ["'adm'", "'adam'"]),
        ({"train__schedule": "cosin"}, ["'cosin'", "'cosine'"]),
        ({"train__epochs": 0}, ["epochs"]),
        ({"train__learning_rate": float("nan")}, ["learning_rate", "finite"]),
        ({"measures": ("lcm",)}, ["'lcm'", "'lmc'"]),
        ({"measures": ()}, ["measures", "empty"]),
        ({"measures": ("lmc", "lmc")}, ["measure", "twice"]),
        ({"align": ("wieght",)}, ["'wieght'", "'weight'"]),
        ({"match": {"weight": {"restart": 3}}}, ["'restart'", "'restarts'"]),
        ({"pairs": ("spawn",)}, ["'spawn'", "spawn_k"]),
        ({"pairs": ("spawn_k161",)}, ["spawn_k161", "160"]),
        ({"pairs": ()}, ["pairs", "empty"]),
        ({"eval__alphas": ()}, ["config.eval.alphas", "empty"]),
        ({"eval__alphas": (0.0, 1.5)}, ["[0, 1]", "config.eval.extrapolate=True"]),
        ({"eval__alphas": (0.0, float("nan"))}, ["alphas", "finite"]),
        ({"eval__alpha_loop": "loop"}, ["alpha_loop", "'map'"]),
        ({"eval__renormalise": "rest"}, ["'rest'", "'reset'"]),
        ({"eval__splits": ("valid",)}, ["'valid'"]),
        ({"eval__batch_size": 0}, ["config.eval.batch_size"]),
        ({"data__train_size": 0}, ["data.train_size"]),
        ({"checkpoint_every": 0}, ["checkpoint_every"]),
    ],
    ids=lambda x: "-".join(map(str, x)) if isinstance(x, dict) else "",
)
def test_a_mistake_is_one_line_that_names_it(change, words):
    with pytest.raises(ConfigError) as caught:
        check(changed(**change))
    line = str(caught.value)
    assert "\n" not in line
    for word in words:
        assert word in line


def test_alphas_outside_are_taken_where_the_config_says_so():
    config = check(changed(eval__alphas=(-0.5, 0.5, 1.5), eval__extrapolate=True))
    assert config.eval.alphas == (-0.5, 0.5, 1.5)


def test_grid():
    assert grid(3) == (0.0, 0.5, 1.0)
    assert len(grid(30)) == 30


NAMES = st.sampled_from(["seed", "data", "network", "train", "pairs", "align", "eval"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "epochs", "x"]), inner, max_size=2)
    ),
    max_leaves=4,
)


@settings(max_examples=500, deadline=None)
@given(st.dictionaries(NAMES | st.text(max_size=6), VALUES, max_size=3))
@pytest.mark.slow
def test_any_config_is_taken_or_refused_with_one_line(values):
    refused = ""
    try:
        assert isinstance(check(values), Config)
    except ConfigError as error:
        refused = str(error)
    assert "\n" not in refused


def test_a_config_measures_by_default_what_its_options_allow():
    config = check(changed(eval__renormalise="reset"))
    assert "layerwise" not in config.measures
    assert "lmc" in config.measures
    assert check(config.to_dict()) == config
    with pytest.raises(ConfigError, match="layerwise has no `renormalise`"):
        check(changed(eval__renormalise="reset", measures=("lmc", "layerwise")))
