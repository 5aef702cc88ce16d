"""The multi-head loss: an image without a label for a head does not contribute to that head's loss."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

UNLABELLED = -1
"""Value of a missing label: as a class index, or in each unknown column of a row."""


def labelled_rows(target: Tensor) -> Tensor:
    """The images with a label in at least one column: bool `[N]`."""
    known = target != UNLABELLED
    return known if target.ndim == 1 else known.any(dim=1)


def partly_labelled_rows(target: Tensor) -> Tensor:
    """The images with labels in some columns but not in all: bool `[N]`."""
    return labelled_rows(target) & (target == UNLABELLED).reshape(len(target), -1).any(dim=1)


def head_loss(logits: Tensor, target: Tensor, smoothing: float) -> Tensor:
    """The sum of one head's loss over the labelled images, divided by the batch size, so that every image has the same weight.

    Args:
        logits: `[N, outputs]`.
        target: int64 `[N]` of class indices (cross-entropy with label smoothing), or float `[N, outputs]` in 0 to 1 (mean
            binary cross-entropy, for multilabel heads, and for quantities as a share of their range as in Papke and Wooldridge
            1996); `UNLABELLED` without a label.
        smoothing: label smoothing for class indices (Szegedy et al. 2015).
    """
    if target.ndim == 1:
        total = F.cross_entropy(logits, target, ignore_index=UNLABELLED, label_smoothing=smoothing, reduction="sum")
    else:
        each = F.binary_cross_entropy_with_logits(logits, target.clamp(min=0), reduction="none")
        total = (each * (target != UNLABELLED)).mean(dim=1).sum()
    return total / logits.shape[0]


def counted(counts: Mapping[str, str], logits: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The targets, with missing counts replaced by the expected number of labels.

    The expected number is the sum of the probabilities (as a share of the range, their mean); known labels count as 0 or 1. The
    gradient reaches only the quantity, not the labels.

    Args:
        counts: quantity, whose range is 0 to the number of labels, to the head of labels that it counts.
        logits: head to `[N, outputs]`, of views that are not mixed.
        targets: head to the labels of each image; see `head_loss`.
    """
    filled = dict(targets)
    for quantity, labels in counts.items():
        target, known = targets[quantity], targets[labels]
        said = logits[labels].detach().float().sigmoid()
        expected = torch.where(known != UNLABELLED, known, said).mean(dim=1, keepdim=True)
        filled[quantity] = torch.where(target != UNLABELLED, target, expected)
    return filled


def head_losses(logits: Mapping[str, Tensor], targets: Mapping[str, Tensor], smoothing: float) -> dict[str, Tensor]:
    """`head_loss` of every head that has targets."""
    return {head: head_loss(logits[head], target, smoothing) for head, target in targets.items()}


def soft_loss(student: Tensor, teacher: Tensor, single_label: bool, temperature: float, weight: Tensor) -> Tensor:
    """Distillation loss between softened probabilities of student and teacher (Hinton et al. 2015), averaged over the batch.

    Args:
        student: logits `[N, outputs]`.
        teacher: probabilities `[N, outputs]`, already softened by `temperature`.
        single_label: softmax instead of a sigmoid per output.
        weight: of each image, `[N]`.
    """
    scaled = student / temperature
    if single_label:
        each = F.kl_div(F.log_softmax(scaled, dim=1), teacher, reduction="none").sum(dim=1)
    else:
        entropy = F.binary_cross_entropy(teacher, teacher, reduction="none")
        each = (F.binary_cross_entropy_with_logits(scaled, teacher, reduction="none") - entropy).mean(dim=1)
    return (each * weight).mean() * temperature**2


def relation_loss(student: Tensor, teacher: Tensor, known: Tensor) -> Tensor:
    """Similarity-preserving loss: images with similar teacher features should have similar student features.

    (Tung and Mori 2019, arXiv 1907.09682.)

    Args:
        student, teacher: pooled features `[N, heads, width]`; the widths may differ.
        known: bool `[N]`: the images that count. The others are masked, not removed, because a data-dependent shape would
            synchronise a GPU.
    """

    def similarity(pooled: Tensor) -> Tensor:
        features = F.normalize(pooled.flatten(1), dim=1) * known.unsqueeze(1)
        return F.normalize(features @ features.T, dim=1)

    return (similarity(student) - similarity(teacher)).square().sum() / known.sum().clamp(min=1)


def project_conflicts(gradients: list[Tensor], order: list[list[int]]) -> Tensor:
    """The sum of the heads' gradients after removing conflicting components (PCGrad, Yu et al. 2020, algorithm 1).

    Args:
        gradients: one flat vector for each head.
        order: for each head, the order of the others; random, so that no head is favoured.
    """
    projected: list[Tensor] = []
    for index, gradient in enumerate(gradients):
        own = gradient.clone()
        for other in order[index]:
            if other == index:
                continue
            against = gradients[other]
            opposed = torch.dot(own, against).clamp(max=0)  # no test for zero: it would synchronise a GPU
            own -= opposed / against.square().sum().clamp(min=torch.finfo(own.dtype).tiny) * against
        projected.append(own)
    return torch.stack(projected).sum(dim=0)
