"""How training went, as a result that the report can show and save."""

from collections.abc import Mapping

import numpy as np

from llfc_jax.results import Result, axes, labels, result
from llfc_jax.training.state import State


@result
class History(Result):
    """How training went.

    Attributes:
        run: names of the networks.
        epoch: 1, 2, ...
        loss: mean training loss over the epoch, while the weights moved; NaN from the epoch of
            divergence on.
        accuracy: share of training samples that were classified rightly when they were seen.
        diverged: epoch in which loss or gradient stopped being finite, 0 if never; the network
            is as it was before that step.
    """

    run: tuple[str, ...] = labels("run")
    epoch: tuple[int, ...] = labels("epoch")
    loss: np.ndarray = axes("run", "epoch")
    accuracy: np.ndarray = axes("run", "epoch")
    diverged: np.ndarray = axes("run")


def history(states: Mapping[str, State], steps_per_epoch: int, batch_size: int) -> History:
    """The histories of trained networks, by name."""

    def gather(name: str) -> np.ndarray:
        return np.stack([np.asarray(getattr(state, name)) for state in states.values()])

    loss = gather("loss") / steps_per_epoch
    accuracy = gather("correct") / (steps_per_epoch * batch_size)
    epochs = np.arange(1, loss.shape[1] + 1)
    diverged = np.where(gather("alive"), 0, gather("step") // steps_per_epoch + 1)
    gone = (diverged[:, None] > 0) & (epochs >= diverged[:, None])
    return History(
        run=tuple(states),
        epoch=tuple(epochs.tolist()),
        loss=np.where(gone, np.nan, loss),
        accuracy=np.where(gone, np.nan, accuracy),
        diverged=diverged,
    )
