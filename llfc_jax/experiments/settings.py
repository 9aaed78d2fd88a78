"""What is done with every pair of modes: how b is aligned, what is measured, and how.

Configs and `llfc_jax.study` fill in the same object, so each option has one name, one default and
one check.
"""

import dataclasses
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from llfc_jax import matching, measures
from llfc_jax.errors import ConfigError, LlfcError, unknown
from llfc_jax.matching import Method
from llfc_jax.measures import EvalOptions, Measure

UNALIGNED = "none"
VARIANT = re.compile(r"[A-Za-z0-9_-]+")
"""Names of variants: they stand in file names."""
EVERY_MEASURE = tuple(name for name, cls in measures.MEASURES.items() if cls.by_default)
"""The default of `measures`: every one of these that can honour the options (`choose_measures`)."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How pairs are evaluated.

    Attributes:
        measures: what is measured, by name.
        align: how b is aligned with a before it is measured: "none" and the matching methods.
        match: options of the matching methods: method -> option -> value. Under any other name,
            with `method` among the options: a variant of that method, which `align` may name.
        eval: how everything is measured.
        seed: of whatever matching draws at random.
        merge: rules by which pairs are merged, by name and options as in "ties(density=0.5)".
    """

    measures: tuple[str, ...] = EVERY_MEASURE
    align: tuple[str, ...] = (UNALIGNED,)
    match: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    eval: EvalOptions = dataclasses.field(default_factory=EvalOptions)
    seed: int = 0
    merge: tuple[Any, ...] = ()

    @property
    def left_out(self) -> dict[str, str]:
        """Why a measure is missing where the default is measured: name -> a line."""
        refused = measures.refusals(self.eval)
        every = self.measures == choose_measures(EVERY_MEASURE, self.eval)
        refused = {k: why for k, why in refused.items() if k in EVERY_MEASURE}
        return {k: f"{k} is left out: {why}" for k, why in refused.items()} if every else {}

    def build_measures(self) -> list[Measure]:
        """Returns the measures with their own options."""
        own = self.eval.measure_options
        return [measures.build(name, **own.get(name, {})) for name in self.measures]

    def build_method(self, name: str) -> Method:
        """Returns a matching method, or a variant of one, with its options."""
        options = dict(self.match.get(name, {}))
        return matching.build_method(options.pop("method", name), options)

    def check(self, prefix: str = "") -> None:
        """Checks every name and option before anything is computed.

        Args:
            prefix: stands before the names of fields in errors, as in "config.".

        Raises:
            ConfigError: one line that names the field, what is wrong, and the nearest right name.
        """
        variants = [
            name
            for name, options in self.match.items()
            if isinstance(options, Mapping) and "method" in options
        ]
        for name in variants:
            if name in (UNALIGNED, *matching.METHODS) or not VARIANT.fullmatch(name):
                raise ConfigError(
                    f"{prefix}match.{name}: a variant of a method needs a name of its own, of "
                    "letters, digits, '_' and '-'"
                )
        known = (*matching.METHODS, *variants)
        _check_names("measure", self.measures, measures.MEASURES)
        _check_names("alignment", self.align, (UNALIGNED, *known))
        _check_names(f"alignment in {prefix}match", self.match, known)
        own = self.eval.measure_options
        _check_names(f"measure in {prefix}eval.measure_options", own, measures.MEASURES)
        for field in ("measures", "align"):
            if not getattr(self, field):
                raise ConfigError(f"{prefix}{field} is empty; name at least one")
        for where, groups in (
            (f"{prefix}match", self.match),
            (f"{prefix}eval.measure_options", own),
        ):
            for name, options in groups.items():
                if not isinstance(options, Mapping):
                    raise ConfigError(f"{where}.{name} must be a group of options, not {options!r}")
        for name in self.match:
            _prefixed(f"{prefix}match.{name}", lambda name=name: self.build_method(name))
        for name, options in own.items():
            where = f"{prefix}eval.measure_options.{name}"
            _prefixed(where, lambda name=name, options=options: measures.build(name, **options))
        measures.check_request(self.build_measures(), self.eval)


def choose_measures(names: tuple[str, ...], options: EvalOptions) -> tuple[str, ...]:
    """Returns the measures that are taken: of the default, those that can honour the options.

    Measures that were chosen by name stay as they are, and `Settings.check` refuses what does not
    fit.
    """
    if names != EVERY_MEASURE:
        return names
    refused = measures.refusals(options)
    return tuple(name for name in names if name not in refused)


def _check_names(what: str, names: Collection[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            raise ConfigError(unknown(what, name, known))
    if len(set(names)) != len(names):
        raise ConfigError(f"the same {what} is named twice: {', '.join(map(str, names))}")


def _prefixed(where: str, build: Callable[[], object]) -> None:
    """Builds something; an error says where in the settings it stands."""
    try:
        build()
    except LlfcError as error:
        raise ConfigError(f"{where}: {error}") from error
