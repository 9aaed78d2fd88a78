"""The pipeline: data, pairs, alignment, measures, report. Everything in it is data.

Whatever was finished before (checkpoints, measured rows) is used again, so a run that was stopped
goes on, and one that was finished is shown anew in seconds.
"""

import dataclasses
import datetime
import importlib.metadata
import platform
from collections.abc import Mapping
from typing import Any

import jax

from llfc_jax import data, matching, networks, training
from llfc_jax.config import UNALIGNED, Config
from llfc_jax.errors import TrainingError
from llfc_jax.graph import trace
from llfc_jax.measures import MEASURES, Setup
from llfc_jax.measures import renormalise as renorm
from llfc_jax.progress import Reporter
from llfc_jax.report import figures
from llfc_jax.report.page import write_page
from llfc_jax.results import Row, write_csv, write_json
from llfc_jax.summary import verdicts, words
from llfc_jax.workdir import Workdir

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scipy")
MATCHING_STREAM = 7  # folded into the seed's key for whatever randomness a matching method needs


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What an experiment found.

    Attributes:
        summary: one row per pair and alignment.
        columns: column of these rows -> heading.
        rows: measure -> its rows, of all pairs, alignments and splits.
    """

    summary: list[Row]
    columns: dict[str, str]
    rows: dict[str, list[Row]]


def run(config: Config, workdir: Workdir, reporter: Reporter) -> Outcome:
    """Run an experiment and write its results and report into the working directory.

    Raises:
        LlfcError: any of its kinds, each with one line; before long work starts where the
            config, the data or the network is at fault.
    """
    dataset = data.load(**dataclasses.asdict(config.data))
    module, apply = _network(config, dataset)
    pairs = training.train_pairs(
        module,
        dataset,
        config.train,
        config.pairs,
        config.seed,
        workdir=workdir.path,
        checkpoint_every=config.checkpoint_every,
        progress=reporter.task("training"),
    )
    batches = {
        name: data.Batches(split, dataset, config.measure.batch_size)
        for name, split in (("train", dataset.train), ("test", dataset.test))
    }
    rows: dict[str, list[Row]] = {name: [] for name in config.measures}
    summary: list[Row] = []
    for pair in pairs.values():
        _write_history(pair, workdir)
        for method in config.align:
            row: Row = {"pair": pair.name, "align": method, "diverged": pair.diverged or ""}
            if not pair.diverged:
                row |= _measure(config, workdir, reporter, apply, pair, method, batches, rows)
            summary.append(row | {"verdict": words(row)})
    outcome = Outcome(summary, _columns(config), rows)
    write(config, workdir, outcome, dataset.fingerprint)
    if all(pair.diverged for pair in pairs.values()):
        raise TrainingError(
            "every pair diverged: " + "; ".join(str(p.diverged) for p in pairs.values())
        )
    return outcome


def _network(config: Config, dataset: data.Dataset) -> tuple[Any, Any]:
    """The network, after a look at whether its sites are what the config asks for."""
    fields = {k: v for k, v in config.network.items() if k != "name"}
    module = networks.build(config.network["name"], dataset.classes, **fields)
    x = jax.ShapeDtypeStruct((2, *dataset.shape), "float32")
    variables = jax.eval_shape(lambda key: networks.init(module, key, x), jax.random.key(0))
    graph = trace(module.apply, variables, x)
    graph.select(config.measure.sites)
    renorm.check(graph, config.measure.renormalise)
    return module, module.apply


def _write_history(pair: training.Pair, workdir: Workdir) -> None:
    pair.history.save(workdir.path / "history" / f"{pair.name}.csv")


def _measure(
    config: Config,
    workdir: Workdir,
    reporter: Reporter,
    apply: Any,
    pair: training.Pair,
    method: str,
    batches: Mapping[str, data.Batches],
    rows: dict[str, list[Row]],
) -> Row:
    """Take every measure of one pair under one alignment; returns the summary's numbers."""
    label = pair.name if method == UNALIGNED else f"{pair.name}, {method}"
    aligned: list[Any] = []

    def b() -> Any:  # permuted only when something has still to be measured
        if not aligned:
            train = batches["train"]
            aligned.append(_align(config, workdir, reporter, apply, pair, method, train))
        return aligned[0]

    headline: Row = {}
    for name in config.measures:
        measure = MEASURES[name]
        for split in config.measure.splits or measure.splits:

            def make(measure: Any = measure, split: str = split) -> list[Row]:
                setup = Setup(
                    apply,
                    pair.a,
                    b(),
                    batches[split],
                    train_batches=batches["train"],
                    alphas=config.alphas,
                    outside=config.measure.outside,
                    sites=config.measure.sites,
                    over=config.measure.over,
                    renormalise=config.measure.renormalise,
                    progress=reporter.task(f"{label}, {split}"),
                )
                result = measure.run(setup)
                head = {"headline": dict(measure.headline(result))}
                found = [
                    {"pair": pair.name, "align": method, "split": split} | row
                    for row in result.records()
                ]
                return [head, *found]

            head, *found = workdir.measured(f"{pair.name}-{method}-{name}-{split}", make)
            rows[name] += found
            if split == (config.measure.splits or measure.splits)[-1]:
                headline |= {
                    k: float("nan") if v is None else v for k, v in head["headline"].items()
                }
    return headline


def _align(
    config: Config,
    workdir: Workdir,
    reporter: Reporter,
    apply: Any,
    pair: training.Pair,
    method: str,
    batches: data.Batches,
) -> Any:
    """b, permuted towards a; the permutation is kept, and used again by a run that goes on."""
    if method == UNALIGNED:
        return pair.b
    file = workdir.path / "permutations" / f"{pair.name}-{method}.npz"
    if file.exists():
        spec, permutation = matching.load(file)
        return spec.apply(permutation, pair.b)
    x, _ = next(iter(batches))
    spec = matching.permutation_spec(apply, pair.a, x)
    reporter.say(f"matching {pair.name} by {method}")
    key = jax.random.fold_in(jax.random.key(config.seed), MATCHING_STREAM)
    options = config.match.get(method, {})
    found = matching.align(method, key, apply, spec, pair.a, pair.b, batches, **options)
    spec.save(file, found.permutation)
    return spec.apply(found.permutation, pair.b)


def _columns(config: Config) -> dict[str, str]:
    columns = {"pair": "pair", "align": "aligned"}
    for name in config.measures:
        columns |= MEASURES[name].columns
    return {**columns, "verdict": "in words"}


def environment() -> dict[str, Any]:
    """Versions and device: what a number depends on besides its config."""
    return {
        "llfc_jax": importlib.import_module("llfc_jax").__version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
        "device": jax.devices()[0].device_kind,
        "backend": jax.default_backend(),
        "devices": jax.device_count(),
        "platform": platform.platform(),
    }


def write(config: Config, workdir: Workdir, outcome: Outcome, fingerprint: str) -> None:
    """Write tables, figures, summary and page."""
    path = workdir.path
    sections = []
    for name, rows in outcome.rows.items():
        section = MEASURES[name].section
        write_csv(path / f"{name}.csv", rows)
        write_json(path / f"{name}.json", rows)
        sections.append((section, rows, figures.save_all(section, rows, path / "figures")))
    details = {
        "config": config.to_dict(),
        "data fingerprint": fingerprint,
        "environment": environment(),
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    found = verdicts(outcome.summary)
    write_json(
        path / "summary.json",
        {"summary": outcome.summary, "verdicts": [v.text for v in found], **details},
    )
    write_page(
        path / "report.html",
        title=f"{config.network['name']} on {config.data.name}",
        lead=lead(config),
        summary_rows=outcome.summary,
        summary_columns=outcome.columns,
        verdicts=found,
        sections=sections,
        details=details,
    )


def lead(config: Config) -> str:
    """What the experiment was, in two sentences."""
    made = []
    for pair in config.pairs:
        fork = training.parse_pair(pair, config.train.epochs)
        if fork is None:
            made.append(f"`{pair}`: two networks trained from different random weights")
        else:
            made.append(
                f"`{pair}`: two networks that share the first {fork} of "
                f"{config.train.epochs} epochs and then see the data in different orders"
            )
    return (
        "Are two trained networks connected by a straight line between their weights, and do "
        f"their features add up along it, layer by layer? Pairs measured here: {'; '.join(made)}."
    )
