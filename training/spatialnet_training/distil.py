"""Teachers: what they say of a batch, and how far the student is from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spatialnet_training.batches import Batch
from spatialnet_training.config import Distillation
from spatialnet_training.losses import labelled_rows, relation_loss, soft_loss

SELF = "self"


@dataclass(frozen=True, slots=True)
class Taught:
    """What the teachers say of a batch.

    Attributes:
        probabilities: task to `[N, outputs]`, softened by the distillation's temperature, averaged over the teachers.
        pooled: features `[N, tasks, width]` of each teacher.
    """

    probabilities: dict[str, Tensor]
    pooled: list[Tensor]


@dataclass(frozen=True, slots=True)
class Teacher:
    """A network to learn from.

    Attributes:
        network: in evaluation mode.
        size: side in pixels of the views that it was trained for; None for what the student sees.
    """

    network: nn.Module
    size: int | None


@torch.no_grad()
def teach(teachers: Sequence[Teacher], batch: Batch, single_label: Mapping[str, bool], temperature: float) -> Taught:
    """Run every teacher over a batch.

    Args:
        teachers: whose networks' forward gives pooled features and logits.
        single_label: for each task to be taught, softmax rather than sigmoids.
    """
    answers = [teacher.network(batch.at(teacher.size), batch.present) for teacher in teachers]
    probabilities: dict[str, Tensor] = {}
    for task, single in single_label.items():
        each = [logits[task].float() / temperature for _, logits in answers if task in logits]
        if each:
            soft = [values.softmax(dim=1) if single else values.sigmoid() for values in each]
            probabilities[task] = torch.stack(soft).mean(dim=0)
    return Taught(probabilities, [pooled.float() for pooled, _ in answers])


def distillation_loss(
    settings: Distillation,
    pooled: Tensor,
    logits: Mapping[str, Tensor],
    taught: Taught,
    targets: Mapping[str, Tensor],
    single_label: Mapping[str, bool],
    weights: Mapping[str, float],
) -> Tensor:
    """The loss against the teachers, summed over the tasks with their weights.

    A head counts in full on images that have a label for it or no label at all, and `settings.elsewhere` on others: the teacher's
    land use of an airport says much, its crop of an airport little.
    """
    known = {task: labelled_rows(target) for task, target in targets.items()}
    unlabelled = ~torch.stack(list(known.values())).any(dim=0)
    total = pooled.new_zeros(())
    for task, probabilities in taught.probabilities.items():
        weight = torch.where(known[task] | unlabelled, 1.0, settings.elsewhere)
        loss = soft_loss(logits[task].float(), probabilities, single_label[task], settings.temperature, weight)
        total = total + weights[task] * loss
    if settings.relations:
        relations = [relation_loss(pooled.float(), each) for each in taught.pooled]
        total = total + settings.relations * torch.stack(relations).mean()
    return total
