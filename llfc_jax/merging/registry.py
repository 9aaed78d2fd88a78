"""Merge rules by name: the one place where they are listed and built."""

import ast
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
        rule: one of `RULES`, with options in words if need be, as in "ties(density=0.5)"; or a
            rule that is built already.
        **options: the fields of its class.

    Raises:
        MergeError: an unknown rule or option, or a value of the wrong type or out of range.

    Examples:
        >>> from llfc_jax import merging
        >>> merging.build_rule("ties", density=0.3).density
        0.3
    """
    if isinstance(rule, type) and issubclass(rule, Rule):
        raise MergeError(f"pass a rule or its name, not its class: {rule.__name__}(...)")
    if isinstance(rule, Rule):
        if options:
            raise MergeError("a rule that is built already takes no further options")
        return rule
    name, in_words = read_rule(rule)
    try:
        return fields.make(RULES[name], f"merge rule {name!r}", {**in_words, **options})
    except ConfigError as error:
        raise MergeError(str(error)) from None


def read_rule(words: str) -> tuple[str, dict[str, object]]:
    """Returns the name and the options of a rule that is written in words.

    Raises:
        MergeError: an unknown rule, or something else than a name and options.

    Examples:
        >>> read_rule("ties(density=0.5)")
        ('ties', {'density': 0.5})
    """
    name, options = words, {}
    try:
        match ast.parse(words, mode="eval").body:
            case ast.Call(ast.Name(name), [], keywords):
                options = {word.arg or "**": ast.literal_eval(word.value) for word in keywords}
    except (SyntaxError, ValueError, TypeError):
        pass  # then it is none of the names either
    if not isinstance(name, str) or name not in RULES:
        raise MergeError(unknown("merge rule", words, RULES))
    return name, options
