"""The registry of kinds of pairs, and how a pair's name is read."""

import dataclasses
import re
from collections.abc import Callable
from typing import Protocol, TypeVar

from llfc_jax.errors import ConfigError
from llfc_jax.training.finetuning import FineTuning
from llfc_jax.training.recipe import Rates
from llfc_jax.training.schedule import TrainingRun


@dataclasses.dataclass(frozen=True)
class PairOrigin:
    """What the runs of a pair start from.

    Attributes:
        root: first part of the names of all runs of this seed (and these rates).
        seed: the seed.
        epochs: length of the training.
        rates: peak rate and decay of its runs without a trunk; the recipe's own if None.
        finetuning: what fine-tuned pairs are made of.
    """

    root: str
    seed: int
    epochs: int
    rates: Rates | None = None
    finetuning: FineTuning = dataclasses.field(default_factory=FineTuning)


class PairKind(Protocol):
    """A kind of pair: a frozen dataclass whose fields are the numbers in the pair's name."""

    def check(self, epochs: int) -> None:
        """Raises ConfigError if the numbers do not fit a training of so many epochs."""
        ...

    def make_runs(self, name: str, origin: PairOrigin) -> list[TrainingRun]:
        """Returns all runs that the pair needs.

        The last two are its modes a and b, which end with the training. A run that several pairs
        share, such as a trunk, has the same name and stream in each of them and is trained once,
        until the latest of its ends.
        """
        ...

    def describe(self, epochs: int) -> str:
        """Returns what the two networks have in common, as half a sentence for the report."""
        ...

    @property
    def shared_epochs(self) -> int | None:
        """Epochs of training that both networks share; None if not even their first weights."""
        ...


K = TypeVar("K", bound=type)
PAIR_KINDS: dict[str, type[PairKind]] = {}
"""Name, with each number written as <field>, -> kind."""


def pair_kind(template: str) -> Callable[[K], K]:
    """Registers a frozen dataclass as the kind of all pairs whose names match a template.

    Args:
        template: the name, each number in it written as <field>, such as `spawn_k<epoch>`.
    """

    def register(cls: K) -> K:
        PAIR_KINDS[template] = cls
        return cls

    return register


def parse_pair_name(name: str, epochs: int) -> PairKind:
    """Returns the kind of a pair, with the numbers in its name.

    Args:
        name: such as `spawn_k0`, `spawn_k1` or `independent`.
        epochs: length of the training.

    Raises:
        ConfigError: no kind has such names, or the numbers do not fit the training.

    Examples:
        >>> parse_pair_name("spawn_k5", epochs=20)
        Spawn(epoch=5)
    """
    for template, cls in PAIR_KINDS.items():
        literals, fields = re.split(r"<\w+>", template), re.findall(r"<(\w+)>", template)
        pattern = "(0|[1-9][0-9]*)".join(map(re.escape, literals))
        match = re.fullmatch(pattern, name) if isinstance(name, str) else None
        if match is not None:
            kind = cls(**dict(zip(fields, map(int, match.groups()), strict=True)))
            kind.check(epochs)
            return kind
    raise ConfigError(f"unknown pair {name!r}; write {' or '.join(map(repr, PAIR_KINDS))}")
