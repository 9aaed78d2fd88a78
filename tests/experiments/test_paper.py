"""Each row of the paper, at its tiny scale, from its config file to its report."""

import importlib.util
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from llfc_jax.errors import ConfigError
from llfc_jax.experiments import run as experiment
from llfc_jax.experiments.config import check
from llfc_jax.experiments.paper import SCALES
from llfc_jax.experiments.workdir import claim
from llfc_jax.progress import Reporter

CONFIGS = Path(__file__).parents[2] / "configs"
ROWS = sorted(p.stem for p in CONFIGS.glob("*.py") if "recipes.row" in p.read_text())
# Compiling is what costs, so deep networks are asked less; the measures' own tests ask the rest.
FEW = ("lmc", "llfc")
MEASURES = {"mlp": (*FEW, "weak_additivity", "commutativity", "stitching")}


def config_at(row, scale):
    spec = importlib.util.spec_from_file_location(row, CONFIGS / f"{row}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(scale)


@pytest.mark.parametrize("row", ROWS)
def test_every_row_is_a_valid_config_at_every_scale(row):
    has_middle = "middle=" in (CONFIGS / f"{row}.py").read_text()
    for scale in SCALES:
        if scale == "middle" and not has_middle:
            with pytest.raises(ConfigError, match="known: full, small, tiny"):
                config_at(row, scale)
        else:
            check(config_at(row, scale))
    with pytest.raises(ConfigError, match="did you mean 'small'"):
        config_at(row, "smal")


@pytest.mark.slow
@pytest.mark.parametrize("row", [row for row in ROWS if not row.startswith("sweep")])
def test_every_row_runs_from_end_to_end(row, tmp_path):
    given = config_at(row, "tiny")
    given.measures = measures = MEASURES.get(given.network.name, FEW)
    config = check(given)
    with (
        claim(tmp_path, config.to_dict()) as workdir,
        Reporter(Console(file=io.StringIO())) as reporter,
    ):
        experiment.run(config, workdir, reporter)
    summary = json.loads((tmp_path / "summary.json").read_text())["summary"]
    wanted = {(pair, align) for pair in config.pairs for align in config.align}
    assert {(found["pair"], found["align"]) for found in summary} == wanted
    assert all((tmp_path / f"{name}.csv").stat().st_size > 0 for name in measures)
    assert (tmp_path / "report.html").exists()
