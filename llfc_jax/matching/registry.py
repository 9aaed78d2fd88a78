"""Matching methods by name: the one place where they are listed and built."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar, runtime_checkable

import jax

from llfc_jax import fields
from llfc_jax.errors import ConfigError, MatchingError, unknown
from llfc_jax.matching.problem import Problem
from llfc_jax.matching.result import Match
from llfc_jax.types import ProgressFn


@runtime_checkable
class Method(Protocol):
    """A matching method: a frozen dataclass of its options, that can be called."""

    def __call__(
        self, key: jax.Array, problem: Problem, progress: ProgressFn | None = None
    ) -> Match:
        """Permutes the problem's b towards its a."""
        ...


METHODS: dict[str, type[Method]] = {}
"""Name -> class; the first line of its docstring describes it in lists."""
M = TypeVar("M", bound=type[Method])


def matching_method(name: str) -> Callable[[M], M]:
    """Class decorator that lists a method under a name."""

    def register(cls: M) -> M:
        METHODS[name] = cls
        return cls

    return register


def build_method(name: str, options: Mapping[str, Any] | None = None) -> Method:
    """Returns a method by name, with every name, type and range of its options checked.

    Args:
        name: one of `METHODS`.
        options: the fields of its class; lists pass as tuples.

    Raises:
        MatchingError: an unknown method or option, or a value of the wrong type or out of range.

    Examples:
        >>> build_method("weight", {"restarts": 8}).restarts
        8
    """
    if name not in METHODS:
        raise MatchingError(unknown("matching method", name, METHODS))
    try:
        return fields.make(METHODS[name], f"{name} matching", options or {})
    except ConfigError as error:
        raise MatchingError(str(error)) from None
