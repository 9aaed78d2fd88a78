"""What the documentation says works: examples in docstrings, code on pages, links."""

import dataclasses
import doctest
import importlib
import re
import shutil
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import llfc_jax
from llfc_jax.data.registry import DATASETS
from llfc_jax.experiments import study as studies
from llfc_jax.experiments import verdicts
from llfc_jax.experiments.sweep import show
from llfc_jax.matching import METHODS
from llfc_jax.measures import MEASURES
from llfc_jax.measures.llfc import SAME
from llfc_jax.merging import RULES
from llfc_jax.networks import NETWORKS
from llfc_jax.report import history, stored
from llfc_jax.report.page import Report
from llfc_jax.training import PAIR_KINDS

ROOT = Path(__file__).parent.parent
CODE = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
MODULES = sorted(p for p in (ROOT / "llfc_jax").rglob("*.py") if ">>> " in p.read_text("utf-8"))
PAGES = [*sorted(ROOT.glob("[A-Z]*.md")), *sorted((ROOT / "docs").glob("*.md"))]
CODED = [page for page in PAGES if CODE.search(page.read_text("utf-8"))]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_examples_in_docstrings_give_what_they_say(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    module = importlib.import_module(".".join(parts).removesuffix(".__init__"))
    with jax.numpy_rank_promotion("allow"):  # as a reader's JAX is set
        found = doctest.testmod(module)
    assert found.attempted
    assert not found.failed


def test_examples_have_the_heading_under_which_the_documentation_shows_code():
    wrong = [path.name for path in MODULES if re.search(r"^ *Example:$", path.read_text(), re.M)]
    assert not wrong, "write Examples:"


class Net(nn.Module):
    """A network of a reader's: small, with BatchNorm or without."""

    normalised: bool = True

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(8)(x)
        if self.normalised:
            x = nn.BatchNorm(use_running_average=True)(x)
        return nn.Dense(3)(nn.relu(x))


class Layer(nn.Module):
    """One of those that are scanned."""

    @nn.compact
    def __call__(self, x, _):
        return nn.relu(nn.Dense(8)(x)), None


class LanguageModel(nn.Module):
    """Logits of every token."""

    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(6, 8)(tokens)
        layers = nn.scan(Layer, variable_axes={"params": 0}, split_rngs={"params": True}, length=2)
        return nn.Dense(6)(layers(name="layers")(x, None)[0])


def as_pytorch(variables):
    """The same weights as PyTorch would have them: layers by number, kernels transposed."""
    dense, out = (variables["params"][name] for name in ("Dense_0", "Dense_1"))
    norm, running = variables["params"]["BatchNorm_0"], variables["batch_stats"]["BatchNorm_0"]
    return {
        "0.weight": dense["kernel"].T,
        "0.bias": dense["bias"],
        "1.weight": norm["scale"],
        "1.bias": norm["bias"],
        "1.running_mean": running["mean"],
        "1.running_var": running["var"],
        "3.weight": out["kernel"].T,
        "3.bias": out["bias"],
    }


@pytest.fixture
def registries():
    """Takes out again what a page's code registers."""
    tables = [MEASURES, METHODS, NETWORKS, DATASETS, PAIR_KINDS, RULES]
    before = [dict(table) for table in tables]
    yield
    for table, entries in zip(tables, before, strict=True):
        table.clear()
        table.update(entries)


def names():
    """What the pages take as given."""
    network, plain = Net(), Net(normalised=False)
    x = jax.random.normal(jax.random.key(0), (60, 4))
    a, b, c, d = (network.init(jax.random.key(i), x) for i in range(4))
    p, q = (plain.init(jax.random.key(i), x) for i in range(2))
    lm, tokens = LanguageModel(), jnp.zeros((7, 5), "i4")
    logits = network.apply(a, x)
    y = jnp.argmax(jnp.asarray(logits), -1)
    return {
        "llfc_jax": llfc_jax,
        "network": network,
        "module": network,
        "plain": plain,
        "p": p,
        "q": q,
        "apply": network.apply,
        **dict(zip("abcd", (a, b, c, d), strict=True)),
        "variables": a,
        "x": x,
        "y": y,
        "key": jax.random.key(0),
        "lm": lm,
        "weights": lm.init(jax.random.key(0), tokens),
        "weights_b": lm.init(jax.random.key(1), tokens),
        "tokens": tokens,
        "labels": tokens + 1,
        "others": jnp.zeros((60, 8)),
        "logits_of_pytorch": logits,
        **{name: [(x, y)] for name in ("data", "train", "test")},
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The directories that pages read: a study of all measures, and a sweep."""
    path = tmp_path_factory.mktemp("runs")
    given = names()
    plain, p, q = (given[name] for name in ("plain", "p", "q"))
    found = llfc_jax.study(plain, p, q, (given["x"], given["y"]), alphas=(0, 0.5, 1))
    rows = [{"pair": "pair", "run": "a", "epoch": i, "loss": 1.0, "accuracy": 0.5} for i in (1, 2)]
    dataclasses.replace(found, history=rows).write(path / "out" / "quickstart")
    tuned = llfc_jax.study(
        plain, p, q, (given["x"], given["y"]), alphas=(0, 0.5, 1), measures=["ctl"], base=p
    )
    tuned.write(path / "out" / "finetune")
    row = {"seed": 0, "pair": "p", "align": "none", "llfc_ratio": 9.0, "llfc_ratio_half": 0.0}
    means = [row | {"k": k} for k in (0, 1)]
    of_sweep = show.sections(means, means, ["seed"])
    stored.write(Report("Sweep", "", [], [], of_sweep), path / "out" / "sweep")
    return path


@pytest.mark.usefixtures("registries")
@pytest.mark.parametrize(
    "path",
    [p if p.name in ("README.md", "tutorial.md") else pytest.param(p, marks=pytest.mark.slow)
     for p in CODED],
    ids=lambda path: path.name,
)  # fmt: skip
def test_code_on_pages_runs_from_top_to_bottom(path, tmp_path, monkeypatch, request):
    if 'out/quickstart")' in path.read_text("utf-8"):
        shutil.copytree(request.getfixturevalue("runs"), tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(studies.study.__kwdefaults__, "measures", ("lmc",))  # quicker than all
    given = names()
    llfc_jax.save("a.safetensors", jax.tree.map(np.asarray, as_pytorch(given["a"])))
    for block in CODE.findall(path.read_text("utf-8")):
        exec(compile(block, path.name, "exec"), given)
    images = re.findall(r"\(images/gallery/(\S+)\)", path.read_text("utf-8"))
    if path.name == "gallery.md":  # each image is one that the code above it wrote
        assert images
        images = [image for image in images if image != "landscape.svg"]  # of the page landscape
    if path.name in ("gallery.md", "landscape.md"):
        assert not [image for image in images if not (tmp_path / image).is_file()]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_to_files_that_are_there(path):
    links = [link for link in LINK.findall(path.read_text("utf-8")) if "://" not in link]
    assert not [link for link in links if not (path.parent / link).exists()]


def test_every_chart_is_listed_by_its_name():
    table = (ROOT / "docs" / "measures.md").read_text("utf-8").partition("## Charts")[2]
    listed = {
        measure: re.findall(r"`(\w+)`", charts)
        for measure, charts in re.findall(r"^\| `(\w+)` \| (.*) \|$", table, re.MULTILINE)
    }
    assert listed == {name: [c.name for c in m.section.charts] for name, m in MEASURES.items()}


def test_the_gallery_shows_every_chart():
    text = (ROOT / "docs" / "gallery.md").read_text("utf-8")
    charts = [c.name for m in MEASURES.values() for c in m.section.charts]
    charts += [c.name for c in history.SECTION.charts]
    found = set(re.findall(r"\w+\.plot\(\"(\w+)\"\), \"\1\.svg\"", text))
    assert found - {"sweep_llfc_ratio"} == {*charts}
    assert {f"{name}.svg" for name in charts} <= {*re.findall(r"images/gallery/(\S+)\)", text)}


def test_the_thresholds_of_verdicts_are_those_of_the_code():
    text = (ROOT / "docs" / "verdicts.md").read_text("utf-8")
    points = [int(p) for p in re.findall(r"at most (\d+) (?:percentage )?points?", text)]
    assert points == [round(100 * limit) for limit in verdicts.BARRIER]
    linearity = re.findall(r"at most ([\d.]+), and at least (\d+) times below", text)
    assert [(float(d), float(r)) for d, r in linearity] == list(verdicts.LINEARITY)
    assert f"below {SAME:.4f}" in text


def test_every_page_is_in_the_table_of_contents():
    nav = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)
    pages = (ROOT / "docs").rglob("*.md")
    assert sorted(nav) == sorted(str(p.relative_to(ROOT / "docs")) for p in pages)
