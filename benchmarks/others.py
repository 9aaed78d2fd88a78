"""A family of networks that others trained, pair by pair: what `others_*.py` share.

Their training data are not at hand, so that a pair is judged by the family: by the squared error
against the mean logit of all the other members. A middle below both ends is therefore no wonder:
means of members are nearer to means of others than single members are.
"""

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from summaries import MEASURED, Summary, layer_medians, shorten_environment, store

import llfc_jax
from llfc_jax import Study

Arrays = dict[str, np.ndarray]
MEASURES = ("lmc", "llfc", "commutativity")


def load(
    path: Path, inputs: Sequence[str], samples: int | None
) -> tuple[Arrays, list[Arrays], Arrays]:
    """Returns inputs, the members' weights, and the other arrays of a file.

    The weights of a member are the arrays `fold0/NAME`, those of the next `fold1/NAME`, and so on.
    """
    with np.load(path) as file:
        arrays = dict(file)
    members: dict[str, Arrays] = {}
    for name, array in arrays.items():
        member, _, of_weights = name.partition("/")
        if of_weights:
            members.setdefault(member, {})[of_weights] = array
    rest = {name: array[:samples] for name, array in arrays.items() if "/" not in name}
    return {name: rest.pop(name) for name in inputs}, list(members.values()), rest


def evaluate(apply: Any, folds: Sequence[Arrays], x: Any, batch_size: int) -> np.ndarray:
    """Returns the members' logits [members, n, ...]."""
    run = jax.jit(apply)
    n = len(jax.tree.leaves(x)[0])
    cut = [jax.tree.map(lambda v, i=i: v[i : i + batch_size], x) for i in range(0, n, batch_size)]
    return np.stack([np.concatenate([run(fold, part) for part in cut]) for fold in folds])


def check(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Raises unless our networks say what the package's say, to 1e-4."""
    apart = np.abs(ours - theirs).reshape(len(ours), -1).max(1)
    print("outputs of the members, ours and the package's, are apart by at most", apart.max())
    assert apart.max() < 1e-4, "not the same networks"


def keep(directories: Mapping[str, Path], name: str, network: str, data: str, pair: str) -> None:
    """Keeps what was measured of all pairs in benchmarks/measured.

    Args:
        directories: how members were turned, in front of the alignment's name -> what
            `study_pairs` wrote into.
        name: of the file.
        network: what the networks are.
        data: what they were measured on.
        pair: how two members are related.
    """
    rows, environment = [], {}
    for turned, directory in directories.items():
        content = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
        environment = shorten_environment(content)
        medians = layer_medians(directory)
        pairs = list(dict.fromkeys(row["pair"] for row in content["summary"]))
        for row in content["summary"]:
            kept = {column: value for column, value in row.items() if column != "verdict"}
            kept |= medians.get((row["pair"], row["align"]), {})
            kept |= {"pair": pair, "align": f"{turned}{row['align']}", "k": math.nan}
            rows.append({"seed": pairs.index(row["pair"])} | kept)
    config = {"network": {"name": network}, "data": {"name": data}, "train": {}}
    store(Summary(config, [], environment, "runs", rows), MEASURED / f"{name}.json")


def study_pairs(
    apply: Any,
    folds: Sequence[Arrays],
    x: Any,
    logits: np.ndarray,
    workdir: Path,
    *,
    only: str = "",
    turn: Callable[[Arrays, Arrays], Arrays] | None = None,
    **options: Any,
) -> Study:
    """Measures all pairs of members into one directory each, and all together into `workdir`.

    Args:
        apply: the network.
        folds: the members' weights.
        x: its inputs.
        logits: what the members say.
        workdir: where the pages go.
        only: the name of one pair; all of them by default.
        turn: (a, b) -> b in another form that is the same function.
        **options: of `llfc_jax.study`.
    """
    found: Study | None = None
    for a, b in itertools.combinations(range(len(folds)), 2):
        name = f"fold{a}-fold{b}"
        if only not in ("", name):
            continue
        others = [fold for fold in range(len(folds)) if fold not in (a, b)]
        data = (x, logits[others].mean(0))
        settings: Mapping[str, Any] = {"task": "regression", "measures": MEASURES} | options
        first, second = folds[a], folds[b]
        if turn is not None:
            second = turn(first, second)
            kept = evaluate(apply, [second], x, len(logits[b]))[0]
            assert np.abs(kept - logits[b]).max() < 1e-3, "turning changed the function"
        pair = llfc_jax.study(
            apply, first, second, data, name=name, workdir=workdir / name, **settings
        )
        print(pair, flush=True)
        found = pair if found is None else found + pair
    assert found is not None, f"there is no pair {only}"
    found.write(workdir)
    return found
