"""Which leaves are merged, and what happens where the models do not have the same ones."""

import dataclasses
from typing import Literal

from llfc_jax import fields
from llfc_jax.errors import ConfigError, MergeError


@dataclasses.dataclass(frozen=True)
class MergeOptions:
    """Which leaves are merged; the result always has the leaves and shapes of the first model.

    Attributes:
        skip: paths of leaves that are not merged, or of what holds them; `*` matches anything:
            "params/head", "*.bias". They are the base's where it has them in that shape and type,
            else the first model's.
        missing: a leaf that some model or the base lacks: "error" refuses; "first" leaves the
            first model's as it is; "present" merges it over the models that have it (and leaves it
            as it is where the rule needs a base and that has none). Leaves that only others have
            are then left out.
        sizes: leaves that differ along one axis, as embeddings of 32,000 and 32,002 rows do:
            "error" refuses; "common" merges what they have in common, from the start of the axis,
            and leaves the rest of the first model's as it is.
    """

    skip: tuple[str, ...] = ()
    missing: Literal["error", "first", "present"] = "error"
    sizes: Literal["error", "common"] = "error"

    def __post_init__(self) -> None:
        """Checks the type of every field.

        Raises:
            MergeError: one that is of another type, or none of the words.
        """
        for name, hint in fields.hints(type(self)).items():
            try:
                value = fields.convert(getattr(self, name), hint, f"merge options: {name}")
            except ConfigError as error:
                raise MergeError(str(error)) from None
            object.__setattr__(self, name, value)
