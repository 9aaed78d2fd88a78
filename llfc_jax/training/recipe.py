"""A training recipe: everything that decides how a network is trained, but for the data.

The defaults are the recipe of rows S3 to S5 of the paper: SGD 0.1 with momentum 0.9, weight decay
1e-4, batches of 128, 160 epochs, the rate divided by 10 at epochs 80 and 120.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from llfc_jax import fields
from llfc_jax.errors import ConfigError, unknown
from llfc_jax.training.augmentations import check_strengths
from llfc_jax.training.optimizers import OPTIMIZERS, SCHEDULES, Rate

if TYPE_CHECKING:
    import optax

MAX_EPOCHS = 1_000_000  # the history of every replica has an entry for each


class Rates(NamedTuple):
    """Peak learning rate and weight decay: in these, networks trained side by side may differ.

    They are data of each replica (float32 []), not of the program: one program serves them all.
    """

    learning_rate: Rate
    weight_decay: Rate


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is trained. Checked when made, so a wrong value never starts a run.

    An epoch is a pass over the train split in random order, in batches of exactly `batch_size`;
    what is left over after the last full batch is dropped (another remainder in every epoch).

    Attributes:
        epochs: passes over the train split.
        batch_size: samples per step.
        optimizer: a name of `llfc_jax.training.optimizers`: "sgd", "adam" or "adamw".
        learning_rate: peak rate.
        momentum: of SGD (0 for none); Adam has its usual 0.9 and 0.999.
        nesterov: Nesterov's form of the momentum.
        weight_decay: for sgd and adam added to the gradient (L2, as in PyTorch), for adamw
            decoupled from it.
        decay: which parameters decay: "all", or "kernels" (no biases, no norm parameters).
        clip_norm: the gradient is scaled down to this global norm before the decay; 0 for never.
        schedule: a name of the same: "constant", "cosine" (to 0), "warmup_cosine" or "step".
        warmup_epochs: epochs of linear warm-up from 0, for warmup_cosine.
        boundaries: epochs at which the rate is multiplied by `factor`, for step.
        factor: see `boundaries`.
        label_smoothing: share of the target spread evenly over all classes.
        augment: name -> strength of each augmentation
            (`llfc_jax.training.augmentations`).
        compute_dtype: "float32" or "bfloat16"; parameters are always float32.
    """

    epochs: int = 160
    batch_size: int = 128
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    decay: Literal["all", "kernels"] = "all"
    clip_norm: float = 0.0
    schedule: str = "step"
    warmup_epochs: float = 0.0
    boundaries: tuple[float, ...] = (80, 120)
    factor: float = 0.1
    label_smoothing: float = 0.0
    augment: Any = ()
    compute_dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        """Checks every value; keeps `augment` as sorted pairs, so that recipes can be hashed."""
        for name, hint in fields.hints(type(self)).items():
            value = fields.convert(getattr(self, name), hint, f"train.{name}")
            object.__setattr__(self, name, value)
        self._check_numbers()
        for what, name, known in (
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("schedule", self.schedule, SCHEDULES),
        ):
            if name not in known:
                raise ConfigError(unknown(what, name, known))
        try:
            strengths = dict(self.augment)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"train.augment must map names to strengths, such as {{'crop': 4}}, "
                f"not {self.augment!r}"
            ) from error
        check_strengths(strengths)
        object.__setattr__(self, "augment", tuple(sorted(strengths.items())))

    def _check_numbers(self) -> None:
        """Checks the ranges of the numbers."""
        positive = ("epochs", "batch_size", "learning_rate", "factor")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                continue
            if not math.isfinite(value) or value < 0 or (field.name in positive and value == 0):
                kind = "above 0" if field.name in positive else "0 or more"
                raise ConfigError(f"train.{field.name} must be finite and {kind}, not {value!r}")
        if self.epochs > MAX_EPOCHS:
            raise ConfigError(f"train.epochs must be at most {MAX_EPOCHS:,}, not {self.epochs}")
        for name in ("momentum", "label_smoothing"):
            if getattr(self, name) >= 1:
                raise ConfigError(f"train.{name} must be below 1, not {getattr(self, name)!r}")
        if self.warmup_epochs > self.epochs:
            raise ConfigError(
                f"train.warmup_epochs must be at most the {self.epochs} epochs, "
                f"not {self.warmup_epochs!r}"
            )
        edges = self.boundaries
        if any(edge <= 0 for edge in edges) or list(edges) != sorted(set(edges)):
            raise ConfigError(f"train.boundaries must be rising epochs above 0, not {edges!r}")

    @property
    def rates(self) -> Rates:
        """Peak rate and decay of this recipe."""
        return Rates(self.learning_rate, self.weight_decay)

    def is_same_program(self, other: Recipe) -> bool:
        """Says whether both differ at most in `rates`, so that one program serves both."""
        return dataclasses.replace(self, **other.rates._asdict()) == other

    def learning_rates(self, steps_per_epoch: int, rates: Rates | None = None) -> optax.Schedule:
        """Returns the learning rate as a function of the step (0, 1, ...)."""
        peak = (rates or self.rates).learning_rate
        return SCHEDULES[self.schedule](self, peak, steps_per_epoch)

    def transformation(
        self, steps_per_epoch: int, rates: Rates | None = None
    ) -> optax.GradientTransformation:
        """Returns the optimiser: clipping, weight decay and the update, in this order.

        Args:
            steps_per_epoch: for the schedule.
            rates: peak rate and decay, traced ones too; the recipe's own if None.
        """
        import optax

        clip = optax.clip_by_global_norm(self.clip_norm) if self.clip_norm else optax.identity()
        schedule = self.learning_rates(steps_per_epoch, rates)
        decay = (rates or self.rates).weight_decay
        return optax.chain(clip, OPTIMIZERS[self.optimizer](self, schedule, decay))
