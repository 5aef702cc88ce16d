"""The best weights of a run by held-out loss, kept on disk while training goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from spatialnet_edge.core.spec import Head, Regression
from spatialnet_training.data.samples import Samples
from spatialnet_training.losses.class_balance import balanced_cross_entropy
from spatialnet_training.losses.multitask import head_loss, labelled_rows
from spatialnet_training.losses.temperature_scaling import fit_temperature
from spatialnet_training.networks.checkpoint_file import load_checkpoint, save_checkpoint

BEST = "best.ckpt"

LINEAR_HEAD = 0
"""The epoch of weights whose backbone was not trained."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One set of weights that the run could end with.

    Attributes:
        epoch: after which; 0 for the linear head on frozen features.
        loss: on held-out training images.
    """

    epoch: int
    loss: float


class BestEpoch:
    """Keeps the weights with the lowest held-out loss in a file.

    Args:
        path: of the file.
        fresh: forget what it holds, which is another run's.
        writes: whether this process writes it; of several, one does.

    Attributes:
        balanced_heads: those whose logits the run adjusts; kept with the weights.
    """

    def __init__(self, path: Path, fresh: bool = False, writes: bool = True) -> None:
        self.path, self.writes = path, writes
        state = None if fresh else load_checkpoint(path)
        self.best = None if state is None else Candidate(state["epoch"], state["loss"])
        self.balanced_heads: tuple[str, ...] = () if state is None else tuple(state["balanced_heads"])

    def offer(self, candidate: Candidate, network: nn.Module) -> bool:
        """Keep these weights if their loss is the lowest so far; whether it was."""
        if self.best is not None and not candidate.loss < self.best.loss:
            return False
        self.best = candidate
        if self.writes:
            state = {"epoch": candidate.epoch, "loss": candidate.loss, "balanced_heads": list(self.balanced_heads)}
            save_checkpoint(self.path, {**state, "weights": network.state_dict()})
        return True

    def weights(self) -> dict[str, Tensor]:
        """The best weights; there must be some."""
        state = load_checkpoint(self.path)
        assert state is not None
        return state["weights"]

    def epochs_without_gain(self, epoch: int) -> int:
        """How many epochs ago the best weights were found."""
        return epoch - (self.best.epoch if self.best else 0)


def held_out_loss(heads: Sequence[Head], logits: Mapping[str, Tensor], samples: Samples, balanced: bool = False) -> float:
    """Mean over the heads of the log-loss at the temperature that fits these images best; infinity where it is no number.

    It tells weights apart whose accuracies are alike, and does not punish those that are merely too sure.

    Args:
        balanced: of a categorical head, average over the classes rather than over the images.
    """
    losses: list[float] = []
    for head in heads:
        target = torch.from_numpy(samples.targets[head.name])
        if not labelled_rows(target).any():
            continue
        best = 1.0 if isinstance(head, Regression) else fit_temperature(logits[head.name], target, cautious=False)
        scaled = logits[head.name] / best
        if balanced and target.ndim == 1:
            losses.append(balanced_cross_entropy(scaled, target))
        else:
            losses.append(float(head_loss(scaled, target, 0.0)))
    found = float(np.mean(losses)) if losses else 0.0
    return found if np.isfinite(found) else float("inf")
