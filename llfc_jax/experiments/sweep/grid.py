"""All runs of a sweep, the parts that machines take, the batches that train side by side."""

import dataclasses
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from llfc_jax.errors import ConfigError
from llfc_jax.experiments.config import SEED, Config, check, identity
from llfc_jax.experiments.workdir import as_stored, filled
from llfc_jax.io import read_sealed
from llfc_jax.training import Rates

T = TypeVar("T")
ZIP = "zip"  # the group of `config.sweep` whose fields move together
FREE_GROUPS = ("match", "eval.measure_options")  # hold groups that are named by their user


@dataclasses.dataclass(frozen=True)
class Run:
    """One combination of values.

    Attributes:
        name: of its directory, from its values.
        point: field -> value, for the fields swept over.
        config: the config of this run alone.
    """

    name: str
    point: dict[str, Any]
    config: Config


class Axis(NamedTuple):
    """Fields that move together, mostly one alone, and the values that they take.

    Attributes:
        fields: with their groups: `train.learning_rate`.
        values: one tuple per step, a value per field.
    """

    fields: tuple[str, ...]
    values: tuple[tuple[Any, ...], ...]


def expand(config: Config) -> list[Run]:
    """Returns all runs of a sweep: fields by name, the last changing fastest, the seed last of all.

    Raises:
        ConfigError: no axis, an axis without values or with a value twice, fields of `zip` with
            unlike numbers of values, a field that does not exist, or a combination that is no
            valid config.
    """
    swept = sorted(axes(config.sweep), key=lambda axis: (SEED in axis.fields, axis.fields))
    if not swept:
        raise ConfigError("config.sweep is empty; map a field to its values: {'seed': (0, 1, 2)}")
    runs = []
    for steps in itertools.product(*(axis.values for axis in swept)):
        pairs = zip(swept, steps, strict=True)
        point = {f: v for axis, step in pairs for f, v in zip(axis.fields, step, strict=True)}
        fields = config.to_dict() | {"sweep": {}}
        for field, value in point.items():
            _set(fields, field, value)
        name = ",".join(f"{field.split('.')[-1]}={word(value)}" for field, value in point.items())
        runs.append(Run(name, point, check(fields)))
    return runs


def axes(sweep: Mapping[str, Any]) -> list[Axis]:
    """Returns the axes of a sweep: one per field, and one of all fields below `zip`.

    Raises:
        ConfigError: see `expand`.
    """
    zipped = sweep.get(ZIP, {})
    if not isinstance(zipped, Mapping):
        raise ConfigError(f"config.sweep.{ZIP} must be a group of fields, not {zipped!r}")
    single = dict(_fields({name: value for name, value in sweep.items() if name != ZIP}))
    joint = dict(sorted(_fields(zipped)))
    for field, values in (single | joint).items():
        if not isinstance(values, (list, tuple)) or not values:
            raise ConfigError(f"config.sweep[{field!r}] must be a tuple of values, not {values!r}")
        if field in single and field in joint:
            raise ConfigError(f"config.sweep names {field!r} twice: alone and below {ZIP!r}")
    if len({len(values) for values in joint.values()}) > 1:
        counts = ", ".join(f"{len(values)} of {field}" for field, values in joint.items())
        raise ConfigError(f"config.sweep.{ZIP}: fields need equally many values: {counts}")
    found = [Axis((field,), tuple(zip(values, strict=True))) for field, values in single.items()]
    if joint:
        found.append(Axis(tuple(joint), tuple(zip(*joint.values(), strict=True))))
    for axis in found:
        if len({repr(step) for step in axis.values}) != len(axis.values):
            where = ", ".join(axis.fields)
            raise ConfigError(f"config.sweep[{where!r}] holds a value twice: {axis.values!r}")
    return found


def _fields(group: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (field, values) of every field, with its group."""
    for name, values in group.items():
        if isinstance(values, Mapping):
            yield from _fields(values, f"{before}{name}.")
        else:
            yield f"{before}{name}", values


def _set(fields: dict[str, Any], field: str, value: Any) -> None:
    *groups, last = field.split(".")
    for i, group in enumerate(groups):
        if ".".join(groups[:i]) in FREE_GROUPS:
            fields.setdefault(group, {})
        if not isinstance(fields.get(group), dict):
            raise ConfigError(f"config.sweep: there is no group {group!r} in the config")
        fields[group] = dict(fields[group])
        fields = fields[group]
    fields[last] = value


def word(value: Any) -> str:
    """Returns a value as part of a directory's name."""
    if isinstance(value, (list, tuple)):
        return "x".join(map(word, value))
    return re.sub(r"[^A-Za-z0-9.+-]", "_", str(value))


def done(workdir: Path, run: Run) -> bool:
    """Returns whether a run has its summary, for this very config."""
    file = workdir / "runs" / run.name / "summary.json"
    if not file.exists():
        return False
    stored = filled(identity(read_sealed(file).get("config", {})), as_stored(Config().identity()))
    return stored == as_stored(run.config.identity())


def families(runs: Iterable[Run]) -> list[list[Run]]:
    """Returns runs in groups that share trunks: trained alike, but for their pairs."""
    return _grouped(runs, lambda run: repr((_shapes(run), run.config.seed, run.config.train)))


def together(families: Iterable[list[Run]], most: int) -> list[list[Run]]:
    """Returns families in batches that train side by side: one shape, `most` networks at most.

    A family stays whole, for the sake of its trunk, even if it is larger.
    """
    batches: list[list[Run]] = []
    for alike in _grouped(families, lambda family: _shapes(family[0])):
        batches.append([])
        for family in alike:
            if batches[-1] and sum(map(_networks, batches[-1] + family)) > most:
                batches.append([])
            batches[-1] += family
    return batches


def _shapes(run: Run) -> str:
    """Returns what must be equal for networks to train as one batch."""
    recipe = dataclasses.asdict(run.config.train)
    shared = {field: value for field, value in recipe.items() if field not in Rates._fields}
    return repr((run.config.data, run.config.network, run.config.finetune, shared))


def _networks(run: Run) -> int:
    return 2 * len(run.config.pairs)


def _grouped(items: Iterable[T], key: Callable[[T], str]) -> list[list[T]]:
    """Returns items of one key together, in order of first appearance."""
    groups: dict[str, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.values())


def shard(families: Sequence[T], which: str) -> list[T]:
    """Returns part i of n of the families, for which = "i/n", i from 0; "0/0" is no part.

    Parts are of one piece, since neighbours train side by side.

    Raises:
        ConfigError: `which` says no part.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", which)
    i, n = (int(match[1]), int(match[2])) if match else (-1, 0)
    if (i, n) == (0, 0):
        return []
    if not 0 <= i < n:
        raise ConfigError(f"--shard must be i/n with i from 0 to n - 1, not {which!r}")
    return list(families[len(families) * i // n : len(families) * (i + 1) // n])
