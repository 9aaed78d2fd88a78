"""Configs: their fields with defaults, and a check of every name and value.

A config file is Python with a function `get_config()` that returns an `ml_collections.ConfigDict`;
it starts from `base()` and changes what differs. Being Python, it runs when it is read: open only
config files that you trust. `check` turns it into a `Config`, every name and type looked at, before
anything else happens.
"""

import dataclasses
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from llfc_jax import fields
from llfc_jax.errors import ConfigError, MergeError, ModeError, unknown
from llfc_jax.experiments import trackers
from llfc_jax.experiments.merges import check_rules
from llfc_jax.experiments.settings import (
    EVERY_MEASURE,
    UNALIGNED,
    Settings,
    choose_measures,
)
from llfc_jax.matching import METHODS
from llfc_jax.measures import MEASURES, EvalOptions
from llfc_jax.networks import NETWORKS
from llfc_jax.training import FineTuning, Recipe, TrainingRun, list_runs, parse_pair_name
from llfc_jax.training.finetuning import BY_THEMSELVES, build_finetuning
from llfc_jax.training.pair_kinds.finetune import FineTune

# Fields on which results do not depend.
NO_RESULTS = ("mesh", "together", "resident_mb", "trackers")


@dataclasses.dataclass(frozen=True)
class Data:
    """Which data set, and how it is cut to size; the arguments of `llfc_jax.data.load`.

    Attributes:
        name: "digits" or "text" (embedded), "npz" (the user's arrays), or a data set of TFDS.
        path: the .npz file, or a text of one's own.
        data_dir: where TFDS keeps prepared data sets; its own default if None.
        train_size: number of training samples kept; all if None.
        test_size: number of test samples kept; all if None.
        length: tokens in a sample, of text; 64 if None.
        size: images are scaled to this height and width.
        pad_to: images are padded with zeros to this height and width, after `size`.
        channels: images of one channel are copied to this many.
        resident_mb: a split of more megabytes is streamed instead of lying on the device; a
            quarter of the device's memory if None.
    """

    name: str = "digits"
    path: str | None = None
    data_dir: str | None = None
    train_size: int | None = None
    test_size: int | None = None
    length: int | None = None
    size: int | None = None
    pad_to: int | None = None
    channels: int | None = None
    resident_mb: int | None = None


@dataclasses.dataclass(frozen=True)
class Devices:
    """How the devices are laid out, where there are several (`llfc_jax.parallel.sharding`).

    Attributes:
        replica: devices over which networks that train side by side are spread; 0 takes what
            `data` leaves.
        data: devices over which each batch of a training step is spread.
    """

    replica: int = 0
    data: int = 1


@dataclasses.dataclass(frozen=True)
class Config:
    """One experiment, checked.

    Attributes:
        seed: all randomness derives from it.
        data: the data set.
        task: how outputs are judged: a name of `llfc_jax.tasks.TASKS`, or `name` and the fields of
            that task.
        network: `name`, and the fields of that network.
        train: the recipe.
        pairs: how pairs are made: "spawn_k<epoch>", "independent", "finetune_k<epoch>".
        finetune: what fine-tuned pairs start from, and on what each network is trained then.
        checkpoints: pairs that are read, not trained: name -> the paths of "a" and "b", and of
            the "base" that both were fine-tuned from, if there is one.
        align: how b is permuted towards a before measuring: "none" and the matching methods.
        match: options of the matching methods: method -> option -> value.
        measures: what is measured; by default all that can honour the options of `eval`.
        eval: how it is measured: the points on the line (`eval.alphas = grid(21)` for 21 of
            them, evenly spaced), layers, splits, and what else `EvalOptions` has.
        merge: rules by which every pair is merged (`llfc_jax.merging.RULES`), with their options
            if need be: "mean", "ties(density=0.5)".
        checkpoint_every: epochs between checkpoints.
        mesh: how several devices are laid out.
        trackers: where results are logged as well: "wandb", "tensorboard", "mlflow"; none by
            default (`llfc_jax.experiments.trackers`).
        together: networks of a sweep that train side by side, at most.
        sweep: fields, in groups as here, -> the values they take; all combinations are run
            (`llfc_jax.experiments.sweep`). Fields below `sweep.zip` move together. An empty
            `seed` is no sweep over seeds.
    """

    seed: int = 0
    data: Data = dataclasses.field(default_factory=Data)
    task: Any = "classification"
    network: Mapping[str, Any] = dataclasses.field(default_factory=lambda: {"name": "mlp"})
    train: Recipe = dataclasses.field(default_factory=Recipe)
    pairs: tuple[str, ...] = ("spawn_k1", "independent")
    finetune: FineTuning = dataclasses.field(default_factory=FineTuning)
    checkpoints: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    align: tuple[str, ...] = (UNALIGNED,)
    match: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    measures: tuple[str, ...] = EVERY_MEASURE
    eval: EvalOptions = dataclasses.field(default_factory=EvalOptions)
    merge: tuple[str, ...] = ()
    checkpoint_every: int = 1
    mesh: Devices = dataclasses.field(default_factory=Devices)
    trackers: tuple[str, ...] = ()
    together: int = 64
    sweep: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        """How every pair is evaluated."""
        return Settings(self.measures, self.align, self.match, self.eval, self.seed, self.merge)

    @property
    def pair_names(self) -> tuple[str, ...]:
        """The names of all pairs, trained and read."""
        return (*self.pairs, *self.checkpoints)

    def list_runs(self) -> list[TrainingRun]:
        """Returns the training runs that the pairs need."""
        if not self.pairs:
            return []
        epochs = self.train.epochs
        return list_runs(self.pairs, self.seed, epochs, finetuning=self.finetune)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain nested dictionaries, for JSON."""
        values = fields.to_dict(self)
        del values["eval"]["task"]  # it stands at the top
        return values

    def identity(self) -> dict[str, Any]:
        """Returns the fields on which results depend, as plain nested dictionaries."""
        return identity(self.to_dict())


def identity(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of a config on which results depend."""
    return {
        name: identity(value) if name == "data" else value
        for name, value in fields.items()
        if name not in NO_RESULTS
    }


SEED = "seed"
NESTED: dict[str, Any] = {"data": Data, "eval": EvalOptions, "mesh": Devices}
WITH_GAPS = NESTED | {"finetune": FineTuning}


def base() -> Any:
    """Returns the defaults, a ConfigDict to change; assigning to an unknown field raises."""
    defaults = Config().to_dict()
    defaults["train"]["augment"] = {}
    for name, cls in WITH_GAPS.items():
        for field, hint in fields.hints(cls).items():
            if defaults[name].get(field, "") is None:  # a typed gap, so that a flag can fill it
                kind = next(t for t in typing.get_args(hint) if t is not type(None))
                kind = (
                    str if typing.get_origin(kind) is Literal else typing.get_origin(kind) or kind
                )
                defaults[name][field] = placeholder(kind)
    defaults["match"] = _defaults_of(METHODS)
    defaults["eval"]["measure_options"] = _defaults_of(MEASURES)
    defaults["sweep"] = {SEED: ()}  # so that a flag can fill it, whatever the config
    config: Any = ConfigDict(defaults, type_safe=False).lock()
    # What these hold is not fields but names that the user chooses.
    free_groups = (
        config.network,
        config.checkpoints,
        config.finetune.pretrain,
        config.match,
        config.train.augment,
        config.eval.measure_options,
        config.sweep,
    )
    for free in free_groups:
        free.unlock()
    return config


def _defaults_of(registry: Mapping[str, type]) -> dict[str, dict[str, Any]]:
    """Returns name -> option -> default, of options that a flag can set: numbers, words, tuples."""
    found: dict[str, dict[str, Any]] = {}
    for name, cls in registry.items():
        options = {f.name: f.default for f in dataclasses.fields(cls) if f.init}
        plain = {k: v for k, v in options.items() if isinstance(v, (bool, int, float, str, tuple))}
        if plain:
            found[name] = plain
    return found


def _without_defaults(
    given: Mapping[str, Any], defaults: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Returns the options that were changed, so that a config records no others."""
    changed: dict[str, Any] = {}
    for name, options in given.items():
        if not isinstance(options, Mapping):
            changed[name] = options  # an error, which the check names
            continue
        known = defaults.get(name, {})
        own = {k: v for k, v in options.items() if k not in known or v != known[k]}
        if own or name not in defaults:
            changed[name] = own
    return changed


def grid(points: int) -> tuple[float, ...]:
    """Returns evenly spaced alphas from 0 to 1.

    Examples:
        >>> grid(3)
        (0.0, 0.5, 1.0)
    """
    return tuple(i / (points - 1) for i in range(points))


def check(given: ConfigDict | Mapping[str, Any]) -> Config:
    """Returns a config after a check of every name and value.

    Raises:
        ConfigError: one line that names the field, what is wrong, and the nearest right name.
    """
    values = given.to_dict() if isinstance(given, ConfigDict) else dict(given)
    known = [f.name for f in dataclasses.fields(Config)]
    for name in values:
        if name not in known:
            raise ConfigError(unknown("config field", name, known))
    groups = (
        "data",
        "network",
        "train",
        "finetune",
        "checkpoints",
        "match",
        "eval",
        "mesh",
        "sweep",
    )
    for name in groups:
        if name in values and not isinstance(values[name], Mapping):
            raise ConfigError(f"config.{name} must be a group of fields, not {values[name]!r}")
    if not values.get("sweep", {}).get(SEED, True):
        values["sweep"] = {k: v for k, v in values["sweep"].items() if k != SEED}
    _drop_default_options(values)
    for name, cls in NESTED.items():
        if name in values:
            values[name] = _make(cls, f"config.{name}", values[name])
    values["eval"] = _judged_by(values.get("eval", EvalOptions()), values.get("task"))
    if "finetune" in values:
        values["finetune"] = build_finetuning(values["finetune"], "config.finetune")
    if "train" in values:
        values["train"] = fields.make(Recipe, "config.train", values["train"])
    if "network" in values:  # its fields are checked by the network; JSON's lists are tuples here
        values["network"] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values["network"].items()
        }
    config = fields.make(Config, "the config", values)
    measures = choose_measures(config.measures, config.eval)
    config = dataclasses.replace(config, measures=measures)
    try:
        config.settings.check("config.")
    except ModeError as error:
        raise ConfigError(str(error)) from error
    trackers.check(config.trackers)
    _check_names(config)
    _check_ranges(config)
    return config


def _drop_default_options(values: dict[str, Any]) -> None:
    """Reduces the options of methods and measures, in place, to those that were changed."""
    if "match" in values:
        values["match"] = _without_defaults(values["match"], _defaults_of(METHODS))
    own = values.get("eval", {}).get("measure_options")
    if isinstance(own, Mapping):
        changed = _without_defaults(own, _defaults_of(MEASURES))
        values["eval"] = {**values["eval"], "measure_options": changed}


def _make(cls: type, where: str, values: Mapping[str, Any]) -> Any:
    """Returns a group of fields, checked; every error names the group."""
    try:
        return fields.make(cls, where, values)
    except ModeError as error:  # of the grid of alphas
        line = str(error).replace("extrapolate=True", f"{where}.extrapolate=True")
        raise ConfigError(f"{where}.alphas: {line}") from error
    except ConfigError as error:
        line, names = str(error), [field.name for field in dataclasses.fields(cls)]
        between = "." if line.startswith(tuple(names)) else ": "
        raise ConfigError(line if where in line else f"{where}{between}{line}") from error


def _judged_by(options: EvalOptions, task: object) -> EvalOptions:
    """Returns the options with the config's task."""
    try:
        return options if task is None else dataclasses.replace(options, task=task)
    except ConfigError as error:
        raise ConfigError(f"config.task: {error}") from error


def _check_names(config: Config) -> None:
    name = config.network.get("name")
    if name not in tuple(NETWORKS):  # it may be anything, and not hashable
        raise ConfigError(unknown("network", name, NETWORKS))
    if not config.pairs and not config.checkpoints:
        raise ConfigError("config.pairs is empty; name at least one")
    kinds = [parse_pair_name(pair, config.train.epochs) for pair in config.pairs]
    if len(set(config.pairs)) != len(config.pairs):
        raise ConfigError(f"config.pairs names a pair twice: {', '.join(config.pairs)}")
    config.list_runs()  # names the tasks that there are not
    if len({isinstance(kind, FineTune) for kind in kinds}) > 1:
        raise ConfigError(BY_THEMSELVES)
    _check_checkpoints(config)
    with_base = {n: isinstance(kind, FineTune) for n, kind in zip(config.pairs, kinds, strict=True)}
    with_base |= {name: "base" in of for name, of in config.checkpoints.items()}
    try:
        check_rules(config.merge, with_base)
    except MergeError as error:
        raise ConfigError(f"config.merge: {error}") from error


def _check_checkpoints(config: Config) -> None:
    for name, paths in config.checkpoints.items():
        where = f"config.checkpoints.{name}"
        if name in config.pairs or not re.fullmatch(r"[A-Za-z0-9_.+]+", name):
            raise ConfigError(
                f"{where}: name the pair by letters, digits, _, . and +, and otherwise than those "
                "that are trained"
            )
        if not isinstance(paths, Mapping) or not {"a", "b"} <= set(paths) <= {"a", "b", "base"}:
            raise ConfigError(f"{where} must be a group of the paths a and b, and base if there is "
                              f"one, not {paths!r}")  # fmt: skip
        for mode, path in paths.items():
            if not isinstance(path, str) or not Path(path).expanduser().exists():
                raise ConfigError(f"{where}.{mode}: there is no {path}")


def _check_ranges(config: Config) -> None:
    if config.seed < 0 or config.seed >= 2**32:
        raise ConfigError(f"config.seed must lie in 0 to 2**32 - 1, not {config.seed}")
    for name, value in (
        ("checkpoint_every", config.checkpoint_every),
        ("together", config.together),
        ("mesh.data", config.mesh.data),
        ("data.train_size", config.data.train_size),
        ("data.test_size", config.data.test_size),
    ):
        if value is not None and value < 1:
            raise ConfigError(f"config.{name} must be 1 or more, not {value}")
    if config.mesh.replica < 0:
        raise ConfigError(f"config.mesh.replica must be 0 or more, not {config.mesh.replica}")
