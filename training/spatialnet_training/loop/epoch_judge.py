"""Evaluation after each epoch, on held-out training images and on a user's own validation images."""

from __future__ import annotations

import numpy as np
from torch import nn

from spatialnet_edge.core.spec import BandGroup
from spatialnet_training.config import TrainConfig
from spatialnet_training.data.datasets import TrainingData
from spatialnet_training.data.samples import Samples
from spatialnet_training.loop.best_epoch import LINEAR_HEAD, held_out_loss
from spatialnet_training.loop.prediction import accuracies, predict

MOST_EVERY_EPOCH = 1000
"""Number of a user's validation images evaluated after each epoch; at the end, all are."""


class EpochJudge:
    """Evaluates weights after an epoch, on held-out training images and on a user's own validation images."""

    def __init__(self, config: TrainConfig, data: TrainingData, groups: tuple[BandGroup, ...]) -> None:
        self.config, self.data, self.groups = config, data, groups
        self.val = spread(data.val, MOST_EVERY_EPOCH) if data.val is not None else None

    def figures(self, network: nn.Module, epoch: int) -> dict[str, float]:
        """Accuracies by `holdout/HEAD` and `val/HEAD`, and the held-out loss if weights are selected by it.

        Args:
            epoch: counted from 1; 0: the linear head.
        """
        size = self.config.size if epoch == LINEAR_HEAD else self.config.stage_at(epoch - 1).size
        logits = predict(network, self.data.holdout, size, self.groups)
        found = {f"holdout/{head}": value for head, value in accuracies(logits, self.data.holdout).items()}
        if self.config.keep_best:
            found["holdout_loss"] = held_out_loss(
                self.data.heads, logits, self.data.holdout, balanced=self.config.class_balance != "none"
            )
        return found | self.on_val(network, size)

    def on_val(self, network: nn.Module, size: int) -> dict[str, float]:
        """Accuracies on the user's validation images by `val/HEAD`; empty without such images."""
        if self.val is None:
            return {}
        reached = accuracies(predict(network, self.val, size, self.groups), self.val)
        return {f"val/{head}": value for head, value in reached.items()}


def spread(samples: Samples, most: int) -> Samples:
    """A limited number of evenly chosen images."""
    rows = np.unique(np.linspace(0, len(samples) - 1, min(most, len(samples))).astype(int))
    return samples.subset(rows.tolist())
