"""Class balance: keeps a network from predicting only the common classes.

Logit adjustment (Menon et al. 2021, arXiv 2007.07314): during training only, the logarithm of each class's share is added to
its logit, so that the network's own logits correspond to equally frequent classes. Balanced sampling instead draws each class
equally often.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from spatialnet_training.losses.multitask import UNLABELLED


def log_shares(target: Tensor, classes: int) -> Tensor:
    """The logarithm of each class's share of the labelled images: float32 `[classes]`.

    Args:
        target: int64 `[N]` of class indices; `UNLABELLED` without a label.
    """
    counts = torch.bincount(target[target != UNLABELLED], minlength=classes).float().clamp(min=0.5)
    return (counts / counts.sum()).log()


def adjusted(logits: Mapping[str, Tensor], shares: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add the logarithms of the shares to the logits of heads that have them."""
    return {name: value + shares[name].to(value.device) if name in shares else value for name, value in logits.items()}


def balanced_cross_entropy(logits: Tensor, target: Tensor) -> float:
    """The mean cross-entropy per class, averaged over the classes.

    Args:
        logits: float `[N, classes]`; `target`: int64 `[N]`, `UNLABELLED` without a label.
    """
    known = target != UNLABELLED
    each = F.cross_entropy(logits[known], target[known], reduction="none")
    return float(torch.stack([each[target[known] == kind].mean() for kind in target[known].unique()]).mean())


def draw_balanced(target: NDArray[np.int64], count: int, rng: Generator) -> NDArray[np.int64]:
    """Draw `count` rows with equally frequent classes; within a class, without replacement until all are drawn.

    Images without a label keep their natural share.
    """
    kinds = [np.flatnonzero(target == kind) for kind in np.unique(target)]
    unlabelled = int((target == UNLABELLED).sum())
    labelled = len(kinds) - bool(unlabelled)
    drawn: list[NDArray[np.int64]] = []
    for rows in kinds:
        natural = target[rows[0]] == UNLABELLED
        share = unlabelled / len(target) if natural else (1 - unlabelled / len(target)) / labelled
        wanted = int(np.ceil(count * share))
        while wanted > 0:
            drawn.append(rng.permutation(rows)[:wanted])
            wanted -= len(drawn[-1])
    return rng.permutation(np.concatenate(drawn))[:count]
