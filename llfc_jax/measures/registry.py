"""Measures by name: the one place where they are listed, built and checked against options."""

import dataclasses
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from llfc_jax import fields
from llfc_jax.errors import ConfigError, unknown
from llfc_jax.measures.measure import Measure
from llfc_jax.measures.options import EvalOptions

MEASURES: dict[str, type[Measure]] = {}
M = TypeVar("M", bound=type[Measure])
ALWAYS = ("batch_size", "measure_options", "task")  # they say what is measured on
OF_EVERY_REQUEST = ("splits", *ALWAYS)


def measure(name: str) -> Callable[[M], M]:
    """Class decorator that lists a measure under a name; the report follows this order."""

    def register(cls: M) -> M:
        cls.name = name
        cls.result_type = typing.get_type_hints(cls.finish)["return"]
        cls.result_type.charts = cls.section.charts
        MEASURES[name] = cls
        return cls

    return register


def build(name: str, /, **own_options: object) -> Measure:
    """Returns a measure by name.

    Args:
        name: one of `MEASURES`.
        **own_options: the measure's own fields, such as `top=3` for the spectrum.

    Raises:
        ConfigError: an unknown name or field, or a value of the wrong type.

    Examples:
        >>> from llfc_jax import measures
        >>> measures.build("spectrum", top=3).top
        3
    """
    if name not in MEASURES:
        raise ConfigError(unknown("measure", name, MEASURES))
    return fields.make(MEASURES[name], f"measure {name!r}", own_options)


def build_all(names: Iterable[str], options: EvalOptions) -> tuple[Measure, ...]:
    """Returns measures by name, each with its own options from `options.measure_options`.

    Raises:
        ConfigError: see `build` and `check_options`.
    """
    own = options.measure_options
    measures = tuple(build(name, **own.get(name, {})) for name in names)
    check_options(measures, options)
    return measures


def check_options(measures: Sequence[Measure], options: EvalOptions) -> None:
    """Checks that every measure can do what the options say.

    Raises:
        ConfigError: a measure named twice; an option that a measure cannot honour; own options of
            a measure that there is not, or that the measure does not have.
    """
    for name, own in options.measure_options.items():
        if not isinstance(own, Mapping):
            raise ConfigError(f"measure_options.{name} must be a group of options, not {own!r}")
        build(name, **own)
    seen: set[str] = set()
    refused = refusals(options)
    for one in measures:
        if one.name in seen:
            raise ConfigError(f"the measure {one.name!r} is named twice; name it once")
        seen.add(one.name)
        if one.name in refused:
            raise ConfigError(refused[one.name])


def check_request(measures: Sequence[Measure], options: EvalOptions) -> None:
    """Checks that every option that was set bears on one of all measures of a request at least.

    Raises:
        ConfigError: one that none of them uses; it would be dropped without a word.
    """
    check_options(measures, options)
    used = frozenset().union(*(one.uses for one in measures))
    for field in changed_options(options):
        if field not in used and field not in OF_EVERY_REQUEST:
            names = ", ".join(one.name for one in measures)
            raise ConfigError(f"`{field}` was set, but {names} has no such option; leave it out")


def changed_options(options: EvalOptions) -> list[str]:
    """Returns the fields that differ from their defaults."""
    default = EvalOptions()
    return [name for name in fields.hints(EvalOptions)
            if getattr(options, name) != getattr(default, name)]  # fmt: skip


def refusals(options: EvalOptions) -> dict[str, str]:
    """Returns the measures that cannot honour the options: name -> a line that says why."""
    changed = changed_options(options)
    return {
        name: f"{name} has no `{field}`: {reason}"
        for name, cls in MEASURES.items()
        for field, reason in cls.refuses.items()
        if field in changed
    }


def configure(
    name: str, options: EvalOptions | None, changes: Mapping[str, Any]
) -> tuple[Measure, EvalOptions]:
    """Returns a measure and the options of its evaluation, after changes by name.

    Args:
        name: one of `MEASURES`.
        options: the options that are changed; the defaults if None.
        changes: fields of the measure itself, or those of `EvalOptions` that it uses.

    Raises:
        ConfigError: a name that is neither, or a value that the field does not take.
    """
    options = EvalOptions() if options is None else options
    if not isinstance(options, EvalOptions):
        raise ConfigError(f"options must be an EvalOptions, not a {type(options).__name__}")
    cls = MEASURES[name]
    own_fields = fields.hints(cls)
    shared_fields = fields.hints(EvalOptions)
    for field in (*changes, *changed_options(options)):
        if field in own_fields or field in cls.uses or field in ALWAYS:
            continue
        if field in cls.refuses:
            raise ConfigError(f"{name} has no `{field}`: {cls.refuses[field]}")
        known = sorted({*own_fields, *cls.uses})
        if field in shared_fields:
            raise ConfigError(f"{name} has no `{field}`; it takes {', '.join(known)}")
        raise ConfigError(unknown(f"option of {name}", field, known))
    own = {k: v for k, v in changes.items() if k in own_fields}
    shared = {k: v for k, v in changes.items() if k not in own_fields}
    made = build(name, **{**options.measure_options.get(name, {}), **own})
    options = dataclasses.replace(options, **shared)
    check_options([made], options)
    return made, options
