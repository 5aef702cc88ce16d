"""Evaluation of a network on held-out training images, for model selection."""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec
import numpy as np
import torch
from torch import Tensor

from spatialnet_edge.core.spec import Head, ModelSpec, Regression
from spatialnet_training.data.samples import Samples
from spatialnet_training.loop.prediction import accuracies, predict
from spatialnet_training.loop.run_result import calibrated
from spatialnet_training.losses.multitask import head_loss
from spatialnet_training.losses.temperature_scaling import fit_temperature
from spatialnet_training.networks.model import SpatialNet


@dataclass(frozen=True, slots=True)
class Judgement:
    """Evaluation result of one network at one input size.

    Attributes:
        spec: with temperatures and abstention from these images.
        loss: mean over the heads of the log-loss at the best temperatures for these images. It distinguishes networks of
            similar accuracy. A head's loss is summed over its labelled images and divided by the number of all images, so that
            every image has the same weight. EuroSAT, with three in four images, has the most influence.
        figures: head to accuracy, 0 to 1; see `prediction.accuracies`.
    """

    spec: ModelSpec
    loss: float
    figures: dict[str, float]


def judge(network: SpatialNet, spec: ModelSpec, holdout: Samples) -> Judgement:
    """Evaluate a network on all held-out images at the input size of `spec`, for the heads with labels."""
    logits = predict(network, holdout, spec.input.height, spec.input.groups)
    shared = {head: values for head, values in holdout.targets.items() if head in logits}
    heads = tuple(calibrated(head, logits[head.name], holdout) if head.name in shared else head for head in spec.heads)
    losses = [
        least_loss(head, logits[name], torch.from_numpy(shared[name])) for head in heads if (name := head.name) in shared
    ]
    figures = accuracies(logits, replace(holdout, targets=shared))
    return Judgement(msgspec.structs.replace(spec, heads=heads), float(np.mean(losses)), figures)


def least_loss(head: Head, logits: Tensor, target: Tensor) -> float:
    """A head's loss at the best temperature for these images; a quantity's loss without temperature."""
    best = 1.0 if isinstance(head, Regression) else fit_temperature(logits, target, cautious=False)
    return float(head_loss(logits / best, target, 0.0))
