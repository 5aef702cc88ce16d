"""What a network reaches on held-out training images, which are there to choose by."""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec
import numpy as np
import torch

from spatialnet_edge.spec import ModelSpec
from spatialnet_training.losses import task_loss
from spatialnet_training.model import SpatialNet
from spatialnet_training.run import calibrated
from spatialnet_training.samples import Samples
from spatialnet_training.trainer import accuracies, predict


@dataclass(frozen=True, slots=True)
class Judgement:
    """Of one network at one input size.

    Attributes:
        spec: with the temperatures that fit these images best.
        loss: mean over the tasks of the log-loss, with these temperatures. It tells networks apart whose accuracies are alike.
            A task's is summed over the images that have its label and divided by all, so that every image weighs the same and a
            data set counts by how many it has here: EuroSAT, with three in four, decides between networks that differ there.
        figures: task to accuracy, 0 to 1; see `trainer.accuracies`.
    """

    spec: ModelSpec
    loss: float
    figures: dict[str, float]


def judge(network: SpatialNet, spec: ModelSpec, tune: Samples) -> Judgement:
    """Ask a network about every held-out image at the size that `spec` says, by the heads that the images have labels for."""
    logits = predict(network, tune, spec.input.height, spec.input.groups)
    shared = {task: values for task, values in tune.targets.items() if task in logits}
    tasks = tuple(calibrated(task, logits[task.name], tune) if task.name in shared else task for task in spec.tasks)
    losses = [
        float(task_loss(logits[task.name] / getattr(task, "temperature", 1.0), torch.from_numpy(shared[task.name]), 0.0))
        for task in tasks
        if task.name in shared
    ]
    figures = accuracies(logits, replace(tune, targets=shared))
    return Judgement(msgspec.structs.replace(spec, tasks=tasks), float(np.mean(losses)), figures)
