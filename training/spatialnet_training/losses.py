"""The multi-task loss: an image without a label for a task does not count in that task's loss."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

UNLABELLED = -1
"""Marks a missing label: in class indices as is, in multilabel rows in every column."""


def task_loss(logits: Tensor, target: Tensor, smoothing: float) -> Tensor:
    """Sum of one task's loss over the labelled images, divided by the batch size, so that every image weighs the same.

    Args:
        logits: `[N, labels]`.
        target: int64 `[N]` of class indices (cross-entropy with label smoothing), or float `[N, labels]` of 0 and 1
            (mean binary cross-entropy over the labels); `UNLABELLED` where there is none.
        smoothing: label smoothing for class indices (Szegedy et al. 2015).
    """
    if target.ndim == 1:
        total = F.cross_entropy(logits, target, ignore_index=UNLABELLED, label_smoothing=smoothing, reduction="sum")
    else:
        labelled = (target[:, :1] != UNLABELLED).to(logits.dtype)
        each = F.binary_cross_entropy_with_logits(logits, target.clamp(min=0), reduction="none")
        total = (each.mean(dim=1, keepdim=True) * labelled).sum()
    return total / logits.shape[0]


def multi_task_loss(
    logits: Mapping[str, Tensor], targets: Mapping[str, Tensor], weights: Mapping[str, float], smoothing: float
) -> Tensor:
    """Weighted sum of the tasks' losses."""
    losses = [weights[task] * task_loss(logits[task], targets[task], smoothing) for task in weights]
    return sum(losses[1:], losses[0])
