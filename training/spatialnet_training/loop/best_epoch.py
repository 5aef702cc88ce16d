"""Best epoch: the weights with the lowest held-out loss, kept on disk during training."""

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
"""Epoch number of weights without fine-tuning."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Candidate weights for the result of a run.

    Attributes:
        epoch: number of completed epochs; 0: the linear head on frozen features.
        loss: on held-out training images.
    """

    epoch: int
    loss: float


class BestEpoch:
    """Keeps the weights with the lowest held-out loss in a file.

    Args:
        path: of the file.
        fresh: delete an existing file of another run.
        writes: whether this process writes the file; only one of several does.

    Attributes:
        balanced_heads: heads with adjusted logits; kept with the weights.
    """

    def __init__(self, path: Path, fresh: bool = False, writes: bool = True) -> None:
        self.path, self.writes = path, writes
        state = None if fresh else load_checkpoint(path)
        self.best = None if state is None else Candidate(state["epoch"], state["loss"])
        self.balanced_heads: tuple[str, ...] = () if state is None else tuple(state["balanced_heads"])

    def offer(self, candidate: Candidate, network: nn.Module) -> bool:
        """Keep these weights if their loss is the lowest so far; returns whether it is."""
        if self.best is not None and not candidate.loss < self.best.loss:
            return False
        self.best = candidate
        if self.writes:
            state = {"epoch": candidate.epoch, "loss": candidate.loss, "balanced_heads": list(self.balanced_heads)}
            save_checkpoint(self.path, {**state, "weights": network.state_dict()})
        return True

    def weights(self) -> dict[str, Tensor]:
        """The best weights; there must be a candidate."""
        state = load_checkpoint(self.path)
        assert state is not None
        return state["weights"]

    def epochs_without_gain(self, epoch: int) -> int:
        """Number of epochs since the best one."""
        return epoch - (self.best.epoch if self.best else 0)


def held_out_loss(heads: Sequence[Head], logits: Mapping[str, Tensor], samples: Samples, balanced: bool = False) -> float:
    """Mean over the heads of the log-loss at the best temperature for these images; infinity if it is not a number.

    It distinguishes weights of similar accuracy, and does not penalise overconfidence.

    Args:
        balanced: average categorical heads over the classes instead of the images.
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
