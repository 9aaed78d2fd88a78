"""What is asked of a pair of modes, and how: the settings that experiments and studies share."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from llfc_jax.errors import ConfigError, MatchingError, ModeError, unknown
from llfc_jax.matching import METHODS, check_options
from llfc_jax.measures import MEASURES
from llfc_jax.measures.evaluator import ALPHAS, check_alphas
from llfc_jax.measures.renormalise import CHOICES

SPLITS = ("train", "test")
UNALIGNED = "none"


@dataclasses.dataclass(frozen=True)
class Questions:
    """What is asked of every pair.

    Attributes:
        measures: what is measured, by name.
        align: how b is permuted towards a before measuring: "none" and the matching methods.
        match: options of the matching methods: method -> option -> value.
        alphas: points on the line; α multiplies a.
        splits: "train", "test" or both; None lets each measure choose its own.
        sites: kinds ("linear", "relu", "module", "all") or name patterns of the layers shown.
        over: how the loop over α runs; chosen by network and backend if None.
        renormalise: "none", "reset" (BatchNorm's statistics anew) or "repair".
        outside: allows α outside [0, 1].
        seed: for what matching draws.
    """

    measures: tuple[str, ...] = tuple(MEASURES)
    align: tuple[str, ...] = (UNALIGNED,)
    match: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    alphas: tuple[float, ...] = ALPHAS
    splits: tuple[str, ...] | None = None
    sites: tuple[str, ...] = ("linear", "relu")
    over: Literal["vmap", "map", "unroll"] | None = None
    renormalise: str = "none"
    outside: bool = False
    seed: int = 0

    def check(self, prefix: str = "") -> None:
        """See that every name and number is one that there is.

        Args:
            prefix: stands before the names of fields in errors, as in "config.".

        Raises:
            ConfigError: one line that names the field, what is wrong, and the nearest right name.
        """
        for what, names, known in (
            ("measure", self.measures, MEASURES),
            ("alignment", self.align, (UNALIGNED, *METHODS)),
            ("split", self.splits or (), SPLITS),
            (f"alignment in {prefix}match", tuple(self.match), METHODS),
            ("renormalisation", (self.renormalise,), CHOICES),
        ):
            for name in names:
                if name not in known:
                    raise ConfigError(unknown(what, name, known))
            if len(set(names)) != len(names):
                said = ", ".join(map(str, names))
                raise ConfigError(f"the same {what} is named twice: {said}")
        for field in ("measures", "align"):
            if not getattr(self, field):
                raise ConfigError(f"{prefix}{field} is empty; name at least one")
        for method, options in self.match.items():
            if not isinstance(options, Mapping):
                raise ConfigError(
                    f"{prefix}match.{method} must be a group of options, not {options!r}"
                )
            try:
                check_options(method, options)
            except MatchingError as error:
                raise ConfigError(f"{prefix}match.{method}: {error}") from error
        try:
            check_alphas(self.alphas, outside=self.outside)
        except ModeError as error:
            raise ConfigError(f"{prefix}alphas: {error}") from error
