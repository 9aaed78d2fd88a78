"""Checked construction of the dataclasses that a config fills in (networks, recipes).

A field is known by its name, its type hint and its default; from these come one-line errors for
a misspelt name, a missing value or a value of the wrong type, before anything long starts.
"""

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

from llfc_jax.errors import ConfigError, unknown

T = TypeVar("T")


def hints(cls: type) -> dict[str, Any]:
    """Returns the type of every field of a dataclass that a caller may set, by name.

    Flax's own fields (`parent`, `name`) are not among them.
    """
    types_ = typing.get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls) if f.init]
    if "parent" in names:
        names = [name for name in names if name not in ("parent", "name")]
    return {name: types_[name] for name in names}


def to_dict(value: object) -> Any:
    """Returns dataclasses as plain nested dictionaries; a task as its name and options."""
    described = getattr(value, "described", None)
    if described is not None:
        return described
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_dict(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {name: to_dict(part) for name, part in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(to_dict, value))
    if isinstance(value, (tuple, list)):
        return type(value)(map(to_dict, value))
    return value


def make(cls: Callable[..., T], what: str, values: Mapping[str, object]) -> T:
    """Returns `cls(**values)`, after checking every name and type.

    Lists become tuples and whole floats stay floats, as config files and command lines give them.

    Args:
        cls: a dataclass.
        what: the word for it in errors, such as "network 'mlp'".
        values: field name -> value.

    Raises:
        ConfigError: for an unknown field, a value of the wrong type or a field left out.
    """
    known = hints(typing.cast(type, cls))
    for name in values:
        if name not in known:
            raise ConfigError(unknown(f"field of {what}", name, known))
    for field in dataclasses.fields(typing.cast(Any, cls)):
        required = field.default is field.default_factory is dataclasses.MISSING
        if field.name in known and required and field.name not in values:
            raise ConfigError(f"{what} needs a value for {field.name!r}; give one")
    return cls(**{k: convert(v, known[k], f"{what}: {k}") for k, v in values.items()})


def convert(value: object, hint: object, what: str) -> Any:
    """Converts a value to its type hint: ints pass as floats, lists as tuples.

    Raises:
        ConfigError: if the value does not fit the hint.
    """
    fitted = _fit(value, hint)
    if fitted is _MISFIT:
        words = getattr(hint, "__name__", None) if isinstance(hint, type) else None
        raise ConfigError(f"{what} must be {words or _words(hint)}, not {value!r}")
    return fitted


_MISFIT = object()


def _fit(value: object, hint: object) -> Any:
    """Returns the converted value, or `_MISFIT`."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        options = (_fit(value, option) for option in args)
        return next((fitted for fitted in options if fitted is not _MISFIT), _MISFIT)
    if origin is Literal:
        return value if value in args else _MISFIT
    if origin is tuple or hint in (bool, int, float):
        value = _as_python(value)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            return _MISFIT
        if args[-1:] != (Ellipsis,):
            if len(value) != len(args):
                return _MISFIT
            parts = [_fit(v, a) for v, a in zip(value, args, strict=True)]
        else:
            parts = [_fit(v, args[0]) for v in value]
        return _MISFIT if any(part is _MISFIT for part in parts) else tuple(parts)
    if isinstance(hint, type):
        if isinstance(value, bool) and hint is not bool:
            return _MISFIT
        if hint is float and isinstance(value, int):
            return float(value)
        return value if isinstance(value, hint) else _MISFIT
    if origin is not None and isinstance(origin, type):
        return value if isinstance(value, origin) else _MISFIT
    return value


def _as_python(value: object) -> Any:
    """Returns Python's own numbers in place of NumPy's or JAX's."""
    return typing.cast(Any, value).tolist() if hasattr(value, "dtype") else value


def _words(hint: object) -> str:
    """Returns a type hint in words."""
    if typing.get_origin(hint) is Callable:
        return "a function"
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(hint)))
    return str(hint).replace("typing.", "").replace("NoneType", "None")
