"""Which matching method gives the lowest barrier? MLPs of many widths, several pairs each.

    python benchmarks/matching_study.py --widths 64 --pairs 2          # minutes
    python benchmarks/matching_study.py --out study.csv                # all: hours on two cores
    python benchmarks/matching_study.py --starts                       # the starts of weight
                                                # matching on digits: minutes

Pairs of independently trained three-layer MLPs on Fashion-MNIST (or another data set by name),
20,000 train images, 12 epochs of Adam. Every method sees train data alone; barriers are on the
test split: the loss (and error) at the midpoint less the mean of the ends'. One row per pair and
method goes to the CSV as it is done; a study that was cut off goes on where it stopped. At the
end a table: the mean over pairs, and in how many pairs each method was best.
"""

import argparse
import csv
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from llfc_jax import data, networks
from llfc_jax.matching import align
from llfc_jax.pair import interpolate
from llfc_jax.report import figures
from llfc_jax.report.charts import Chart
from llfc_jax.symmetry import permutation_spec

# Row -> (method, options).
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "none": ("none", {}),
    "weight": ("weight", {}),
    "weight, relaxed": ("weight", {"start": "relaxed"}),
    "weight, anchored": ("weight", {"start": "anchored"}),
    "published": ("weight", {"start": "identity"}),
    "published, 8 starts": ("weight", {"start": "identity", "restarts": 8}),
    "activation, uncentred": ("activation", {"kind": "uncentred"}),
    "activation, centred": ("activation", {"kind": "centred"}),
    "activation, pearson": ("activation", {"kind": "pearson"}),
    "ste": ("ste", {}),
    "commutativity(weight)": ("commutativity", {"start": "weight"}),
    "commutativity(activation)": ("commutativity", {"start": "activation"}),
    "output(identity)": ("output", {"start": "identity"}),
    "output": ("output", {}),
    "learned, loss": ("learned", {"symmetry": "permutation", "objective": "loss"}),
    "learned, linearity": ("learned", {"symmetry": "permutation", "objective": "linearity"}),
    "learned, both": ("learned", {"symmetry": "permutation", "objective": "both"}),
    "learned, commutativity": (
        "learned",
        {"symmetry": "permutation", "objective": "commutativity"},
    ),
    "learned, output": ("learned", {"symmetry": "permutation", "objective": "output"}),
}
STARTS = (
    "none",
    "published",
    "published, 8 starts",
    "weight",
    "weight, anchored",
    "weight, relaxed",
)
FIELDS = (
    "data",
    "width",
    "pair",
    "method",
    "barrier_loss",
    "barrier_error",
    "objective",
    "seconds",
)


def batches(split: Any, dataset: Any, size: int) -> list[tuple[jax.Array, jax.Array]]:
    """The split as a list of normalised batches."""
    x = data.normalise(split.images, dataset.mean, dataset.std)
    x, y = jnp.asarray(x).reshape(len(x), -1), jnp.asarray(split.labels)
    return [(x[i : i + size], y[i : i + size]) for i in range(0, len(x), size)]


def trained(module: Any, key: jax.Array, train: list[Any], epochs: int, size: int = 128) -> Any:
    """One mode: Adam at 1e-3."""
    x, y = (jnp.concatenate([batch[i] for batch in train]) for i in range(2))
    optimizer, steps = optax.adam(1e-3), len(x) // size

    def loss(v: Any, rows: jax.Array) -> jax.Array:
        logits = module.apply(v, x[rows])
        return optax.softmax_cross_entropy_with_integer_labels(logits, y[rows]).mean()

    def step(state: Any, rows: jax.Array) -> tuple[Any, None]:
        v, memory = state
        updates, memory = optimizer.update(jax.grad(loss)(v, rows), memory)
        return (optax.apply_updates(v, updates), memory), None

    @jax.jit
    def run(key: jax.Array) -> Any:
        v = module.init(key, x[:2])
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(epochs))
        order = jax.vmap(lambda k: jax.random.permutation(k, len(x))[: steps * size])(keys)
        state = (v, optimizer.init(v))
        return jax.lax.scan(step, state, order.reshape(-1, size))[0][0]

    return run(key)


def loss_and_error(module: Any, v: Any, test: list[Any]) -> np.ndarray:
    """Mean cross entropy and error rate."""
    total, samples = np.zeros(2), 0
    for x, y in test:
        logits = module.apply(v, x)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, y).sum()
        total += [float(loss), float((logits.argmax(-1) != y).sum())]
        samples += len(y)
    return total / samples


def study(arguments: argparse.Namespace, done: set[tuple[str, ...]]) -> Iterator[dict[str, Any]]:
    """Rows that are not done yet."""
    size = {} if arguments.data == "digits" else {"train_size": arguments.train_size}
    dataset = data.load(arguments.data, **size)
    train = batches(dataset.train, dataset, 2000)
    test = batches(dataset.test, dataset, 5000)
    for width in arguments.widths:
        module = networks.build("mlp", dataset.classes, widths=(width,) * 3)
        for pair in range(arguments.first, arguments.first + arguments.pairs):
            todo = [
                m for m in arguments.methods
                if (arguments.data, str(width), str(pair), m) not in done
            ]  # fmt: skip
            if not todo:
                continue
            keys = [jax.random.key(1000 * width + 2 * pair + i) for i in range(2)]
            a, b = (trained(module, key, train, arguments.epochs) for key in keys)
            ends = (loss_and_error(module, a, test) + loss_and_error(module, b, test)) / 2
            spec = permutation_spec(module.apply, a, train[0][0][:2])
            for name in todo:
                method, options = ROWS[name]
                start, moved, objective = time.perf_counter(), b, float("nan")
                if method != "none":
                    found = align(method, keys[0], module, a, b, train, spec=spec, **options)
                    moved = spec.apply(found.permutation, b)
                    objective = float(found.objective)
                seconds = time.perf_counter() - start
                middle = loss_and_error(module, interpolate(a, moved, 0.5), test) - ends
                values = (arguments.data, width, pair, name, *middle, objective, seconds)
                yield dict(zip(FIELDS, values, strict=True))


def table(rows: list[dict[str, str]], column: str = "barrier_loss") -> str:
    """Mean of a column over the pairs, per width and method, and in how many it is best."""
    best_of = max if column == "objective" else min
    found: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        found[row["width"]][row["method"]][row["pair"]] = float(row[column])
    widths = sorted(found, key=int)
    methods = [name for name in ROWS if any(name in found[w] for w in widths)]
    lines = [f"{column:<28}" + "".join(f"{w:>14}" for w in widths)]
    for name in methods:
        cells = []
        for width in widths:
            values = found[width].get(name, {})
            best = sum(
                value == best_of(other[pair] for other in found[width].values() if pair in other)
                for pair, value in values.items()
            )
            mean = np.mean(list(values.values())) if values else np.nan
            cells.append(f"{mean:>9.4f} ({best})" if values else f"{'':>13}")
        lines.append(f"{name:<28}" + "".join(f"{cell:>14}" for cell in cells))
    return "\n".join(lines)


def figure(rows: list[dict[str, str]], path: Path) -> None:
    """Mean loss barrier against width, a line per method."""
    drawn = ("published", "activation, pearson", "ste", "commutativity(weight)", "output",
             "learned, both")  # fmt: skip
    cells: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows:
        cells[row["method"], row["width"]].append(float(row["barrier_loss"]))
    means: list[dict[str, Any]] = [
        {"method": name, "width": width, "barrier": np.mean(found)}
        for name in drawn
        for (method, width), found in sorted(cells.items(), key=lambda cell: int(cell[0][1]))
        if method == name
    ]
    chart = Chart(
        name=path.stem,
        title="Loss barrier of permuted MLPs, by width",
        caption="",
        x="width",
        y={"barrier": "loss barrier at the midpoint, mean over pairs"},
        x_label="hidden units a layer",
        y_label="loss barrier",
        lines="method",
        panels=(),
    )
    figures.save(figures.draw(chart, means), path)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", default="fashion_mnist")
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 32, 64, 128, 256, 512])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="number of the first pair")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--train-size", type=int, default=20_000)
    parser.add_argument("--methods", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--out", type=Path, default=Path("matching_study.csv"))
    parser.add_argument("--figure", type=Path, help="draw it: a file .svg, .png or .pdf")
    parser.add_argument(
        "--starts", action="store_true", help="compare the starts of weight matching on digits"
    )
    arguments = parser.parse_args()
    if arguments.starts:
        arguments.data, arguments.epochs, arguments.methods = "digits", 30, list(STARTS)
        arguments.widths = [w for w in arguments.widths if w <= 256]
    rows: list[dict[str, str]] = []
    if arguments.out.exists():
        with arguments.out.open() as file:
            rows = list(csv.DictReader(file))
    done = {tuple(row[field] for field in FIELDS[:4]) for row in rows}
    with arguments.out.open("a", newline="") as file:
        writer: csv.DictWriter[str] = csv.DictWriter(file, FIELDS, lineterminator="\n")
        if not rows:
            writer.writeheader()
        for row in study(arguments, done):
            writer.writerow(row)
            file.flush()
            rows.append({field: str(value) for field, value in row.items()})
            print(
                " ".join(
                    f"{row[f]:.4f}" if isinstance(row[f], float) else str(row[f]) for f in FIELDS
                )
            )
    for column in ("barrier_loss", "barrier_error", "objective", "seconds"):
        print(table(rows, column))
    if arguments.figure:
        figure(rows, arguments.figure)


if __name__ == "__main__":
    main()
