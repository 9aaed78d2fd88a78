"""What each part of a network's symmetry connects, and what the control says about it.

    python benchmarks/symmetry.py configs/vit_digits_symmetry.py:small --seeds 0 1 2 --out vit.jsonl
    python benchmarks/symmetry.py configs/gpt_text_symmetry.py:small --network norm=layer mlp=swiglu
    python benchmarks/symmetry.py configs/vit_digits_symmetry.py:small --train weight_decay=0.05
    python benchmarks/symmetry.py configs/vgg16plain_cifar10_spawn.py:small --permutations

Each row: a pair of independent networks of one seed, B aligned with A in one way, by train data.
Measured on the test split: the loss at the ends and along the line, LLFC, Dist_com, stitching.
Beside the trained B stand controls, aligned in the same way with the same data: B before its
training, and B with the entries of each weight shuffled. What a control's middle reaches was not in
B: the symmetry's own parameters were trained into it. A study that was cut off goes on where it
stopped. `symmetry_tables.py` makes tables and a figure of what is found.
"""

import argparse
import dataclasses
import importlib.util
import json
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from llfc_jax import data, measures, networks
from llfc_jax.experiments import config as configs
from llfc_jax.experiments.run import build_network, train
from llfc_jax.frameworks import Network
from llfc_jax.matching import align
from llfc_jax.matching.methods.learned import shuffled
from llfc_jax.measures import PairEvaluator
from llfc_jax.progress import Reporter
from llfc_jax.symmetry import permutation_spec, symmetry_spec
from llfc_jax.tasks import read_batch

Options = dict[str, Any]
LEARNED: Options = {"method": "learned", "objective": "both"}
# Row -> (options of the alignment, whether controls are aligned too).
ROWS: dict[str, tuple[Options, bool]] = {
    "none": ({}, False),
    "weight, permutations": ({"method": "weight"}, False),
    "weight, + heads": ({"method": "weight", "symmetry": "heads"}, False),
    "weight, + heads + stream": ({"method": "weight", "symmetry": "heads+stream"}, False),
    "weight, full": ({"method": "weight", "symmetry": "full"}, True),
    "activation, permutations": ({"method": "activation"}, False),
    "activation, + heads": ({"method": "activation", "symmetry": "heads"}, False),
    "activation, + heads + stream": (
        {"method": "activation", "symmetry": "heads+stream"},
        False,
    ),
    "activation, full": ({"method": "activation", "symmetry": "full"}, True),
    "commutativity, permutations": ({"method": "commutativity"}, False),
    "output, permutations": ({"method": "output"}, False),
    "ste, permutations": ({"method": "ste"}, False),
    "learned, permutations": ({**LEARNED, "symmetry": "permutation"}, True),
    "learned, permutations, on the loss alone": (
        {**LEARNED, "symmetry": "permutation", "objective": "loss"},
        True,
    ),
    "learned, permutations, without labels": (
        {**LEARNED, "symmetry": "permutation", "objective": "linearity"},
        True,
    ),
    "learned, permutations, on commutativity": (
        {**LEARNED, "symmetry": "permutation", "objective": "commutativity"},
        True,
    ),
    "learned, permutations, on outputs": (
        {**LEARNED, "symmetry": "permutation", "objective": "output"},
        True,
    ),
    "learned, + heads": ({**LEARNED, "symmetry": "heads"}, True),
    "learned, + stream": ({**LEARNED, "symmetry": "stream"}, False),
    "learned, + heads + stream": ({**LEARNED, "symmetry": "heads+stream"}, False),
    "learned, orthogonal": ({**LEARNED, "symmetry": "orthogonal"}, True),
    "learned, full": ({**LEARNED, "symmetry": "full"}, True),
    "learned, full, long": ({**LEARNED, "symmetry": "full"}, True),
    "learned on the loss alone": ({**LEARNED, "symmetry": "full", "objective": "loss"}, True),
    "learned without labels": ({**LEARNED, "symmetry": "full", "objective": "linearity"}, True),
    "learned on commutativity": (
        {**LEARNED, "symmetry": "full", "objective": "commutativity"},
        True,
    ),
    "learned on outputs": ({**LEARNED, "symmetry": "full", "objective": "output"}, True),
}
LONG = 4  # times the steps, in the long row
WIDTHS = ("dim", "mlp_dim", "width")
CONTROLS = ("trained", "untrained", "shuffled")
# What tells most, for networks that are too large for all rows.
BRIEF = (
    "none",
    "weight, permutations",
    "weight, full",
    "activation, permutations",
    "activation, full",
    "learned, permutations",
    "learned, orthogonal",
    "learned, full",
    "learned without labels",
    "learned on outputs",
    "learned on commutativity",
)


# For networks that have no other symmetry than permutations: every method.
PERMUTATIONS = ("none", *(row for row in ROWS if ", permutations" in row))


def read_config(name: str) -> configs.Config:
    """Returns the config `FILE.py` or `FILE.py:scale`."""
    file, _, scale = name.partition(":")
    spec = importlib.util.spec_from_file_location("config", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return configs.check(module.get_config(scale) if scale else module.get_config())


@dataclasses.dataclass(frozen=True)
class Pair:
    """What one seed gives: a network, its modes, data."""

    network: Network
    a: Any
    b: dict[str, Any]
    train: Any
    test: Any
    options: Any


def make_pair(config: configs.Config, workdir: Path) -> Pair:
    """Trains a pair and makes its controls."""
    dataset = data.load(**dataclasses.asdict(config.data))
    module = build_network(config, dataset)
    (pairs,) = train([config], workdir, Reporter(Console(), quiet=True), dataset)
    pair = pairs["independent"]
    key = jax.random.key(config.seed + 1_000)
    b = {
        "trained": pair.b,
        "untrained": networks.init(module, key, dataset.inputs(2)),
        "shuffled": shuffled(pair.b, key),
    }
    batches = {
        name: data.Batches(split, dataset, config.eval.batch_size)
        for name, split in (("train", dataset.train), ("test", dataset.test))
    }
    return Pair(Network.of(module), pair.a, b, batches["train"], batches["test"], config.eval)


def measure(pair: Pair, row: str, control: str, steps: int, seed: int) -> Options:
    """Aligns and measures one row."""
    options, _ = ROWS[row]
    options = dict(options)
    started, b = time.perf_counter(), pair.b[control]
    if options:
        if options["method"] == "learned":
            options["steps"] = steps * (LONG if row.endswith("long") else 1)
        task = pair.options.task
        key = jax.random.key(seed)
        match = align(options.pop("method"), key, pair.network, pair.a, b, pair.train, task=task,
                      **options)  # fmt: skip
        if match.transport is not None:
            b = match.transport.apply(b)
        else:
            x = read_batch(next(iter(pair.train))).x
            b = permutation_spec(pair.network, pair.a, x).apply(match.permutation, b)
    seconds = time.perf_counter() - started
    chosen = [measures.build(name) for name in ("lmc", "llfc", "commutativity", "stitching")]
    results = PairEvaluator(pair.network, pair.a, b, pair.test, pair.options).measure(
        chosen, pair.test
    )
    found: Options = {"seconds": round(seconds, 1)}
    for one in chosen:
        found |= one.summary_metrics(results[one.name])
    lines = results["lmc"].records()
    losses = {line["alpha"]: line["loss"] for line in lines}
    found["line"] = list(losses.items())
    found["loss_a"], found["loss_b"] = losses[1.0], losses[0.0]
    found["loss_middle"] = losses[0.5]
    stitched = [row["loss"] for row in results["stitching"].records()]
    found["stitched"] = [min(stitched), max(stitched)]
    found["barrier_middle"] = losses[0.5] - (losses[0.0] + losses[1.0]) / 2
    return found


@dataclasses.dataclass(frozen=True)
class Study:
    """What is measured: a config with some fields changed, seeds, rows.

    Attributes:
        config: FILE.py or FILE.py:scale; its pair is an independent one, whatever pairs it has.
        data: fields of the data that are changed.
        network: fields of the network that are changed.
        train: fields of the training that are changed.
        seeds: one pair each.
        rows: of `ROWS`.
        controls: which of `CONTROLS` are aligned, where a row has controls.
        steps: of learned matching.
    """

    config: str
    data: Options
    network: Options
    train: Options
    seeds: Sequence[int]
    rows: Sequence[str]
    controls: Sequence[str]
    steps: int

    @property
    def name(self) -> str:
        """The config's name, with the fields that are changed but the width."""
        fields = self.data | self.network | self.train
        changed = [f"{k}={v}" for k, v in fields.items() if k not in WIDTHS]
        return ", ".join([self.config, *changed])

    def read(self, seed: int) -> configs.Config:
        """Returns the config of one seed."""
        config = read_config(self.config)
        return dataclasses.replace(
            config,
            seed=seed,
            pairs=("independent",),
            data=dataclasses.replace(config.data, **self.data),
            network={**config.network, **self.network},
            train=dataclasses.replace(config.train, **self.train),
        )

    def run(self, out: Path) -> None:
        """Measures all rows of all seeds that a file does not have yet, and adds them to it."""
        done = {(r["config"], r["seed"], r["width"], r["row"], r["control"])
                for r in read_rows([out])}  # fmt: skip
        for seed in self.seeds:
            config = self.read(seed)
            own = {"config": self.name, "seed": seed, "width": width_of(config.network)}
            wanted = [
                (row, control)
                for row in self.rows
                for control in (self.controls if ROWS[row][1] else CONTROLS[:1])
                if (*own.values(), row, control) not in done
            ]
            if not wanted:
                continue
            folder = "-".join(re.sub(r"[^\w.=]+", "_", str(value)) for value in own.values())
            pair = make_pair(config, out.with_suffix("") / folder)
            spec = symmetry_spec(pair.network, pair.a, read_batch(next(iter(pair.test))).x)
            sizes = {
                "parameters": int(sum(np.size(leaf) for leaf in jax.tree.leaves(pair.a))),
                "degrees": spec.degrees,
            }
            for row, control in wanted:
                found = measure(pair, row, control, self.steps, seed)
                line = {**own, "row": row, "control": control, "steps": self.steps}
                with out.open("a") as file:
                    file.write(json.dumps({**line, **sizes, **found}, default=float) + "\n")
                print(line, {k: found[k] for k in ("loss_middle", "barrier_middle")}, flush=True)


def width_of(network: Mapping[str, Any]) -> float:
    """Returns the width of a network by its fields; 1 where it has none."""
    return network.get("dim", network.get("width", 1))


def with_width(config: str, width: float) -> Options:
    """Returns the fields of a config's network for a width."""
    if "dim" not in read_config(config).network:
        return {"width": width}
    return {"dim": int(width), "mlp_dim": 4 * int(width)}


def read_rows(files: Sequence[Path]) -> list[Options]:
    """Returns the rows of files, of those that exist."""
    return [
        json.loads(line)
        for file in files
        if file.exists()
        for line in file.read_text().splitlines()
    ]


def _field(text: str) -> tuple[str, Any]:
    """FIELD=VALUE as a pair; numbers are read as such."""
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def main() -> None:
    """Runs the study."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("config", help="FILE.py or FILE.py:scale")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--width", type=float, help="instead of the config's")
    for part in ("data", "network", "train"):
        parser.add_argument(f"--{part}", nargs="+", default=[], metavar="FIELD=VALUE", type=_field,
                            help=f"fields of config.{part} that are changed")  # fmt: skip
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW")
    parser.add_argument("--brief", action="store_true", help="the rows that tell most")
    parser.add_argument("--permutations", action="store_true", help="the rows that permute only")
    parser.add_argument("--controls", nargs="*", choices=CONTROLS[1:], default=CONTROLS[1:],
                        help="which are aligned; none where none is named")  # fmt: skip
    parser.add_argument("--steps", type=int, default=400, help="of learned matching")
    parser.add_argument("--out", type=Path, default=Path("symmetry.jsonl"))
    options = parser.parse_args()
    network: Options = dict(options.network)
    if options.width is not None:
        network |= with_width(options.config, options.width)
    rows = BRIEF if options.brief else PERMUTATIONS if options.permutations else options.rows
    Study(
        options.config,
        dict(options.data),
        network,
        dict(options.train),
        options.seeds,
        rows,
        (CONTROLS[0], *options.controls),
        options.steps,
    ).run(options.out)


if __name__ == "__main__":
    main()
