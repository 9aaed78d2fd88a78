"""Tables and the figure of what `symmetry.py` measured.

python benchmarks/symmetry_tables.py vit.jsonl gpt.jsonl                 # a table per network
python benchmarks/symmetry_tables.py vit.jsonl gpt.jsonl --summary       # a line per network
python benchmarks/symmetry_tables.py vit.jsonl --figure symmetry.svg     # the lines drawn
python benchmarks/symmetry_tables.py --write                             # the pages in docs, anew

Rows of several files that have one network and width are rows of one table. The pages are made of
the rows kept in benchmarks/measured.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pages import write_table
from symmetry import CONTROLS, ROWS, Options, read_rows

from llfc_jax.report import figures
from llfc_jax.report.charts import Chart

# What a row moves, in the order of the figure's legend.
SETS = ("as trained", "permutations", "+ heads", "+ stream", "+ heads + stream", "orthogonal",
        "full")  # fmt: skip
# Panel of the figure -> its method, and which B is aligned.
PANELS = {
    "weight": ("weight", "trained"),
    "activation": ("activation", "trained"),
    "learned": ("learned", "trained"),
    "learned, b shuffled": ("learned", "shuffled"),
    "learned without labels": ("learned without labels", "trained"),
    "learned on commutativity": ("learned on commutativity", "trained"),
}
CHART = Chart(
    name="symmetry",
    title="Loss along the line, by what may be moved to align the networks",
    caption="Test loss of α a + (1 - α) b, a panel for each matching method and a line for each "
    "set of symmetries; median over seeds, and each seed as a dot.",
    x="alpha",
    y={"median": "loss"},
    x_label="α (0: b, 1: a)",
    y_label="loss",
    lines="aligned over",
    panels=("network", "method"),
    dots={"median": "loss"},
)


# Columns of the summary, and fields whose values name a network there.
SUMMARY = (
    "learned, permutations",
    "weight, full",
    "activation, full",
    "learned, full",
    "learned on outputs",
    "learned on commutativity",
    "learned without labels",
)
MEASURED, DOCS = (Path(__file__).parents[1] / part for part in ("benchmarks/measured", "docs"))
# The sections of the page with all tables, each with its rows in benchmarks/measured.
SECTIONS = {
    "Vision transformers": "symmetry_vit.jsonl",
    "Language models": "symmetry_gpt.jsonl",
    "Vision transformers, trained with little decay": "symmetry_vit_little_decay.jsonl",
    "Language models, trained with little decay": "symmetry_gpt_little_decay.jsonl",
    "Convolutional networks, permutations": "symmetry_convolutions.jsonl",
}
PAGES = {"tables": "beyond_permutations_tables.md", "summary": "beyond_permutations.md"}
DRAWN = ("Vision transformers", "Language models")
TOLD = ("name", "norm", "positions", "mlp", "activation")


def tables(rows: Sequence[Options]) -> Iterator[str]:
    """Yields tables in Markdown: one for each config and width."""
    for config, width in dict.fromkeys((r["config"], r["width"]) for r in rows):
        own = [r for r in rows if (r["config"], r["width"]) == (config, width)]
        first, seeds = own[0], sorted({r["seed"] for r in own})
        plain = {r["seed"]: r["barrier_middle"] for r in own if r["row"] == "none"}
        yield (
            f"{config}, width {width}: {first['parameters']:,} parameters, the symmetry has "
            f"{first['degrees']:,}; {len(seeds)} seed{'s' * (len(seeds) > 1)}\n"
        )
        yield (
            "| row | barrier at ½ | left of it | largest | Δ error, points | 1 - cos, median | "
            "ends', over it | Dist_com, share | stitched, highest loss | middle's loss | "
            "untrained B | shuffled B |"
        )
        yield "|---|" + "---|" * 11
        for row in ROWS:
            held = [r for r in own if r["row"] == row]
            if not held:
                continue
            trained = [r for r in held if r["control"] == "trained"]
            left = [r["barrier_middle"] / plain[r["seed"]] for r in trained if r["seed"] in plain]
            cells = [
                _spread([r["barrier_middle"] for r in trained]),
                _spread([100 * x for x in left], "%", digits=3),
                _spread([r["loss_barrier"] for r in trained]),
                _spread([100 * r["midpoint_barrier"] for r in trained if "error_a" in r], digits=3),
                _spread([r["llfc_median"] for r in trained]),
                _spread([r["llfc_ratio"] for r in trained]),
                _spread([r["com_ratio"] for r in trained if "com_ratio" in r]),
                _spread([r["stitched"][1] for r in trained if "stitched" in r]),
                *(
                    _spread([r["loss_middle"] for r in held if r["control"] == control])
                    for control in CONTROLS
                ),
            ]
            yield f"| {row} | {' | '.join(cells)} |"
        ends = [r["loss_a"] for r in own if r["row"] == "none"]
        yield f"\nLoss of A: {_spread(ends)}.\n"


def lines(rows: Sequence[Options]) -> list[Options]:
    """Returns a row per network, method, set of symmetries, α and seed, for `CHART`.

    The line as trained stands beside those of every panel. Rows whose line was not kept are left
    out, and networks that were not permuted alone.
    """
    found: list[Options] = []
    permuted = {(r["config"], r["width"]) for r in rows if ", permutations" in r["row"]}
    for network in dict.fromkeys((r["config"], r["width"]) for r in rows):
        if network not in permuted:
            continue
        own = [r for r in rows if (r["config"], r["width"]) == network and "line" in r]
        for title, (method, control) in PANELS.items():
            aligned = [(r, moved(r["row"], method)) for r in own if r["control"] == control]
            aligned = [(r, name) for r, name in aligned if name in SETS]
            plain = [(r, SETS[0]) for r in own if r["row"] == "none"]
            found += [
                {"network": short_name(*network), "method": title,
                 "aligned over": name, "alpha": alpha, "seed": r["seed"], "loss": loss}
                for r, name in (*plain, *aligned)
                for alpha, loss in r["line"]
                if aligned
            ]  # fmt: skip
    groups: dict[tuple[Any, ...], list[float]] = {}
    keys = ("network", "method", "aligned over", "alpha")
    for row in found:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row["loss"])
    for row in found:
        row["median"] = float(np.median(groups[tuple(row[key] for key in keys)]))
    return sorted(found, key=lambda row: SETS.index(row["aligned over"]))


def moved(row: str, method: str) -> str | None:
    """Returns the set of symmetries that a row of a method is over; None for other methods."""
    name, _, rest = row.partition(f"{method}, ")
    return "full" if row == method else rest if not name else None


def short_name(config: str, width: float) -> str:
    """Returns the name of a network for people: data and network, what was changed, width."""
    file, *changed = config.split(", ")
    fields = dict(field.split("=") for field in changed)
    words = [Path(file).stem.split("_")[0], *(v for k, v in fields.items() if k in TOLD)]
    if "weight_decay" in fields:
        words.append(f"decay {fields['weight_decay']}")
    return f"{' '.join(words)}, width {width:g}"


def summary(rows: Sequence[Options]) -> Iterator[str]:
    """Yields a table with a line per network: what is left of the barrier, medians over seeds.

    Networks that were only permuted are left out.
    """
    yield (
        f"| network | pairs | loss of A | barrier | {' | '.join(SUMMARY)} | "
        "middle's loss then | of a shuffled B |"
    )
    yield "|---|" + "---|" * (len(SUMMARY) + 5)
    for network in dict.fromkeys((r["config"], r["width"]) for r in rows):
        own = [r for r in rows if (r["config"], r["width"]) == network]
        if not any(r["row"] == "activation, full" for r in own):
            continue
        plain = {r["seed"]: r for r in own if r["row"] == "none"}
        found = {name: {r["seed"]: r for r in own if (r["row"], r["control"]) == (name, "trained")}
                 for name in SUMMARY}  # fmt: skip
        last = [r for r in own if r["row"] == SUMMARY[-1]]
        cells = [
            _median([r["loss_a"] for r in plain.values()]),
            _median([r["barrier_middle"] for r in plain.values()]),
            *(
                _median([100 * r["barrier_middle"] / plain[seed]["barrier_middle"]
                         for seed, r in found[name].items() if seed in plain], " %")
                for name in SUMMARY
            ),
            *(
                _median([r["loss_middle"] for r in last if r["control"] == control])
                for control in ("trained", "shuffled")
            ),
        ]  # fmt: skip
        yield f"| {short_name(*network)} | {len(plain)} | {' | '.join(cells)} |"


def page_texts(rows: Mapping[str, Sequence[Options]]) -> dict[str, str]:
    """Returns all tables and the summary, by the marks that they stand under."""
    sections = [f"## {title}\n\n" + "\n".join(tables(own)) for title, own in rows.items()]
    everything = [row for own in rows.values() for row in own]
    return {"tables": "\n".join(sections), "summary": "\n".join(summary(everything))}


def write_pages() -> None:
    """Writes the tables, the summary and the figure in docs."""
    rows = kept()
    for mark, text in page_texts(rows).items():
        write_table(DOCS / PAGES[mark], mark, text)
    drawn = lines([row for title in DRAWN for row in rows[title]])
    figures.save(figures.draw(CHART, drawn), DOCS / "images" / "symmetry.svg")


def kept() -> dict[str, list[Options]]:
    """Returns the rows in benchmarks/measured, by section.

    Raises:
        SystemExit: rows of one seed are of several pairs.
    """
    rows = {title: read_rows([MEASURED / file]) for title, file in SECTIONS.items()}
    for title, own in rows.items():
        ends: dict[tuple[Any, ...], list[tuple[float, float]]] = {}
        for r in own:
            if r["control"] == "trained":
                ends.setdefault((r["config"], r["width"], r["seed"]), []).append(
                    (r["loss_a"], r["loss_b"])
                )
        for pair, losses in ends.items():
            if not np.allclose(losses, losses[0], rtol=1e-3):
                sys.exit(f"{SECTIONS[title]}: rows of several pairs under {pair}")
    return rows


def _median(values: Sequence[float], unit: str = "") -> str:
    if not len(values):
        return "–"
    median = float(np.median(values))
    return f"{median:.0f}{unit}" if abs(median) >= 10 else f"{median:.2g}{unit}"


def _spread(values: Sequence[float], unit: str = "", digits: int = 2) -> str:
    """The median, and the least and largest of several."""
    values = [v for v in values if np.isfinite(v)]
    if not values:
        return "–"
    words = [f"{v:.{digits}g}" if abs(v) < 100 else f"{v:.0f}"
             for v in (np.median(values), min(values), max(values))]  # fmt: skip
    tail = f" ({words[1]} to {words[2]})" if len(values) > 1 else ""
    return words[0] + (f" {unit}" if unit else "") + tail


def main() -> None:
    """Prints tables, draws the figure, or writes the pages."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", type=Path, nargs="*")
    parser.add_argument("--summary", action="store_true", help="a line per network")
    parser.add_argument("--figure", type=Path, help="draw the lines, as SVG or PDF")
    parser.add_argument("--write", action="store_true", help="write the pages in docs anew")
    options = parser.parse_args()
    if options.write == bool(options.files or options.summary or options.figure):
        parser.error("give files, with --summary or --figure if you like; or --write alone")
    if options.write:
        write_pages()
        return
    rows = read_rows(options.files)
    if not options.figure:
        print("\n".join(summary(rows) if options.summary else tables(rows)))
        return
    drawn = lines(rows)
    if not drawn:
        parser.error("no row of these files has its line, or none of its network permutes alone")
    figures.save(figures.draw(CHART, drawn), options.figure)


if __name__ == "__main__":
    main()
