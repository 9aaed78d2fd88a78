"""CONTRIBUTING.md's examples: one file and one registration each, and they show up everywhere."""

import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import llfc_jax
from llfc_jax.data.registry import DATASETS
from llfc_jax.experiments import listing
from llfc_jax.experiments.trackers import TRACKERS
from llfc_jax.matching import METHODS
from llfc_jax.measures import MEASURES
from llfc_jax.networks import NETWORKS
from llfc_jax.tasks import TASKS
from llfc_jax.training.pair_kinds import PAIR_KINDS

ROOT = Path(__file__).parent.parent
EXAMPLE = re.compile(r"<!-- file: (\S+) -->\n```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
REGISTRIES = (NETWORKS, DATASETS, PAIR_KINDS, METHODS, MEASURES, TASKS, TRACKERS)
ADDED = {
    "networks": "two_layers",
    "data sets": "stripes",
    "pairs": "late<epochs>",
    "alignments": "random",
    "measures": "agreement",
}


@pytest.fixture(scope="module")
def added(tmp_path_factory):
    """The examples as files of a user's, imported once; what they register goes afterwards."""
    before = [dict(registry) for registry in REGISTRIES]
    folder = tmp_path_factory.mktemp("mine")
    sys.path.insert(0, str(folder))
    for where, code in EXAMPLE.findall((ROOT / "CONTRIBUTING.md").read_text("utf-8")):
        name = f"mine_{where.replace('/', '_')}"
        (folder / f"{name}.py").write_text(code, encoding="utf-8")
        importlib.import_module(name)
    yield
    sys.path.remove(str(folder))
    for registry, entries in zip(REGISTRIES, before, strict=True):
        registry.clear()
        registry.update(entries)


def test_source_and_registries_name_the_same():
    found = listing.choices(ROOT / "configs")
    for heading, registry in zip(listing.KINDS, REGISTRIES, strict=True):
        kind = listing.KINDS[heading]
        extra = {end[0] for end in (kind.before, kind.after) if end}
        assert dict(listing._registered_in_source(kind)).keys() == registry.keys()
        assert found[heading].keys() == registry.keys() | extra
        assert all(found[heading].values())


def test_what_a_file_adds_is_listed(added):
    found = listing.choices()
    for heading, name in ADDED.items():
        assert name in found[heading]
        assert found[heading][name]


@pytest.mark.slow
def test_what_files_add_is_run_by_a_config_and_stands_on_the_page(added, tmp_path):
    import io

    from rich.console import Console

    from llfc_jax.experiments import run
    from llfc_jax.experiments.config import base, check
    from llfc_jax.experiments.workdir import claim
    from llfc_jax.progress import Reporter

    config = base()
    config.network = {"name": "two_layers", "width": 8}
    config.data.name = "stripes"
    config.train.update(epochs=3, batch_size=50, optimizer="adam", learning_rate=1e-2)
    config.train.update(schedule="constant", weight_decay=0.0)
    config.pairs = ("late1",)
    config.align = ("none", "random")
    config.match = {"random": {"stay": True}}
    config.measures = ("lmc", "agreement")
    config.eval.alphas = (0.0, 0.5, 1.0)
    checked = check(config)
    with (
        claim(tmp_path, checked.identity()) as held,
        Reporter(Console(file=io.StringIO())) as reporter,
    ):
        study = run.run(checked, held, reporter)
    assert [row["align"] for row in study.summary] == ["none", "random"]
    assert study.summary[0]["agreement"] == study.summary[1]["agreement"]  # stay=True
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "Agreement with network a" in page
    assert "all but the last 1 of 3 epochs" in page


def test_what_a_file_adds_is_measured_and_aligned_in_a_study(added):
    def apply(w, x):
        return np.tanh(1.0) * (x @ w["in"]).clip(0) @ w["out"]

    random = np.random.default_rng(0)
    a, b = (
        {"in": random.normal(size=(4, 6)).astype("f4"),
         "out": random.normal(size=(6, 3)).astype("f4")} for _ in "ab"
    )  # fmt: skip
    x = random.normal(size=(40, 4)).astype("f4")
    y = np.asarray(apply(a, x)).argmax(-1)
    study = llfc_jax.study(
        apply, a, b, (x, y), measures=["agreement"], align=["none", "random"], alphas=(0.0, 1.0)
    )
    found = {(r["align"], r["alpha"]): r["agreement"] for r in study.rows["agreement"]}
    wrong = (np.asarray(apply(b, x)).argmax(-1) == y).mean()
    assert found["none", 1.0] == 1
    assert found["none", 0.0] == pytest.approx(wrong)
    assert found["random", 0.0] == pytest.approx(wrong)  # a permutation changes no prediction
