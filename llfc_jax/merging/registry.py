"""Merge rules by name: the one place where they are listed and built."""

from collections.abc import Callable
from typing import TypeVar

from llfc_jax import fields
from llfc_jax.errors import ConfigError, MergeError, unknown
from llfc_jax.merging.rule import Rule

RULES: dict[str, type[Rule]] = {}
"""Name -> class; the first line of its docstring describes it in lists."""
R = TypeVar("R", bound=type[Rule])


def merge_rule(name: str) -> Callable[[R], R]:
    """Class decorator that lists a rule under a name."""

    def register(cls: R) -> R:
        cls.name = name
        RULES[name] = cls
        return cls

    return register


def build_rule(rule: str | Rule, /, **options: object) -> Rule:
    """Returns a rule by name, with name, type and range of every option checked.

    Args:
        rule: one of `RULES`, or a rule that is built already.
        **options: the fields of its class.

    Raises:
        MergeError: an unknown rule or option, or a value of the wrong type or out of range.

    Examples:
        >>> from llfc_jax import merging
        >>> merging.build_rule("ties", density=0.3).density
        0.3
    """
    if isinstance(rule, Rule):
        if options:
            raise MergeError("a rule that is built already takes no further options")
        return rule
    if not isinstance(rule, str) or rule not in RULES:
        raise MergeError(unknown("merge rule", rule, RULES))
    try:
        return fields.make(RULES[rule], f"merge rule {rule!r}", options)
    except ConfigError as error:
        raise MergeError(str(error)) from None
