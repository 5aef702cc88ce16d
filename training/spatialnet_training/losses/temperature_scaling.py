"""Temperature scaling: one temperature per head, fitted on held-out training images (Guo et al. 2017, arXiv 1706.04599).

The abstention threshold of a multiclass head is fitted on the same images.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from spatialnet_training.losses.multitask import labelled_rows

ANSWERED_ACCURACY = 0.95
"""Wanted accuracy of the labels that are given, on the held-out images."""

LEAST_CONFIDENCE = 0.5
"""Lower limit of the threshold: such a prediction is more likely wrong than right, and scenes unlike the training data have
such confidences."""

MAX_ABSTENTION = 0.6
"""Upper limit of the threshold: a weak head stays usable, and its probabilities show the weakness."""


def fit_temperature(logits: Tensor, target: Tensor, cautious: bool = True) -> float:
    """The temperature that minimises the negative log-likelihood on held-out images; 1 if there are none.

    With few images, all of them correct, the temperature would go to zero. So half a wrong image is added (Krichevsky and
    Trofimov 1981; Platt 1999 adds one). The effect is large for 8 images and negligible for 800.

    Args:
        logits: float32 `[N, labels]`.
        target: int64 `[N]`, or float `[N, labels]` of 0 and 1; `UNLABELLED` rows are ignored.
        cautious: False: without the added image, to compare networks.
    """
    known = labelled_rows(target)
    logits, target = logits[known].detach().clone(), target[known]
    if len(logits) == 0:
        return 1.0
    doubt = 0.5 / (len(logits) + 1) if cautious else 0.0
    log_temperature = torch.zeros(1, requires_grad=True)
    optimiser = torch.optim.LBFGS([log_temperature], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        scaled = logits / log_temperature.exp()
        if target.ndim == 1:
            loss = F.cross_entropy(scaled, target, label_smoothing=doubt)
        else:
            loss = F.binary_cross_entropy_with_logits(scaled, target * (1 - doubt) + (1 - target) * doubt)
        loss.backward()
        return loss

    optimiser.step(closure)
    return round(float(log_temperature.detach().exp().clamp(0.05, 20)), 4)


def abstention(probabilities: Tensor, target: Tensor) -> float:
    """The lowest threshold at which the given labels reach `ANSWERED_ACCURACY` on held-out images.

    Args:
        probabilities: float32 `[N, labels]`, calibrated.
        target: int64 `[N]`.
    """
    known = labelled_rows(target)
    confidence, answers = probabilities[known].max(dim=1)
    right = (answers == target[known]).numpy()
    for threshold in np.arange(LEAST_CONFIDENCE, MAX_ABSTENTION, 0.02):
        answered = confidence.numpy() >= threshold
        if answered.any() and right[answered].mean() >= ANSWERED_ACCURACY:
            return round(float(threshold), 2)
    return MAX_ABSTENTION
