"""Fit temperatures that hold on poor pictures: one for each image (`networks.image_temperature`), and one for each head.

The temperature of images and those of the heads minimise the negative log-likelihood together. Then a head's temperature is raised
until, at every severity, `LEAST_RIGHT` of its confident answers are right. Each image is judged by what was fitted on other images
(cross-fitting in `FOLDS` parts).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from msgspec.structs import replace
from torch import Tensor

from spatialnet_edge.core.spec import Head, ModelSpec, Multiclass, Multilabel
from spatialnet_training.data.corruptions import SEVERITIES
from spatialnet_training.losses.multitask import labelled_rows
from spatialnet_training.losses.temperature_scaling import abstention, fit_temperature
from spatialnet_training.networks.image_temperature import ImageTemperature
from spatialnet_training.studies.poor_views import AS_IT_IS, DEGRADED, Views

CONFIDENT = 0.9
LEAST_RIGHT = 0.955
"""Share of the confident answers that must be right at every severity; a little more than the 95 % that are promised."""
SCARCE = 100
"""Fewer confident answers at a severity say nothing about their share of right ones."""
DECAY = 1.6e-4
"""Weight decay for each head and feature."""
STEPS, FOLDS = 60, 2
RAISED_BY, MOST_RAISED = 1.03, 8.0


@dataclass(frozen=True, slots=True)
class Confident:
    """A head's confident answers at one severity.

    Attributes:
        share: of the labelled views.
        right: share of them that is right; None where there is none.
    """

    share: float
    right: float | None
    count: int


def balance(views: Views) -> Tensor:
    """Weight of each view: those as they are weigh as much as all others together, as benchmarks and poor pictures both count."""
    plain = views.severity == AS_IT_IS
    return torch.where(plain, 0.5 / plain.sum().clamp(min=1), 0.5 / (~plain).sum().clamp(min=1))


def fit_image_temperature(views: Views, heads: Sequence[Multiclass]) -> ImageTemperature:
    """Minimise the heads' negative log-likelihood over an `ImageTemperature` and one temperature for each head."""
    made = ImageTemperature(views.found.shape[1])
    made.centre.copy_(views.found.mean(dim=0))
    made.scale.copy_(1 / views.found.std(dim=0).clamp(min=1e-3))
    torch.nn.init.zeros_(made.layer.weight)
    torch.nn.init.zeros_(made.layer.bias)
    own = torch.zeros(len(heads), requires_grad=True)
    weight = balance(views)
    standardised = (views.found - made.centre) * made.scale
    decay = DECAY * len(heads) * standardised.shape[1]  # many features share one effect: each has a small weight
    optimiser = torch.optim.LBFGS([*made.layer.parameters(), own], max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        of_image = 1 + F.softplus(made.layer(standardised))
        loss = decay * made.layer.weight.square().sum()
        for index, head in enumerate(heads):
            target = views.targets[head.name]
            rows = labelled_rows(target)
            each = F.cross_entropy(
                views.logits[head.name][rows] / (own[index].exp() * of_image[rows]), target[rows], reduction="none"
            )
            loss = loss + (each * weight[rows]).sum() / weight[rows].sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return made.requires_grad_(False)


def cross_fitted(views: Views, heads: Sequence[Multiclass]) -> Tensor:
    """The temperature of each view by what was fitted on the views of other images: float32 `[N, 1]`."""
    of_image = torch.ones(len(views.found), 1)
    for fold in range(FOLDS):
        inside = views.image % FOLDS == fold
        of_image[inside] = fit_image_temperature(views.subset(~inside), heads)(views.found[inside])
    return of_image


def confident(head: Head, views: Views, of_image: Tensor) -> dict[int, Confident]:
    """A categorical head's confident answers at each severity, of the views that are not refused."""
    target = views.targets[head.name]
    assert isinstance(head, Multiclass)
    confidence, answers = (views.logits[head.name] / (head.temperature * of_image)).softmax(dim=1).max(dim=1)
    sure, found = (confidence >= CONFIDENT) & views.answered, dict[int, Confident]()
    for severity in (AS_IT_IS, DEGRADED, *SEVERITIES):
        rows = labelled_rows(target) & (views.severity == severity)
        right = (answers == target)[rows & sure].float()
        share = float(sure[rows].float().mean()) if rows.any() else 0.0
        found[severity] = Confident(share, float(right.mean()) if len(right) else None, len(right))
    return found


def honest(found: Mapping[int, Confident]) -> bool:
    """Whether enough of the confident answers are right on ordinary images and at every severity."""
    judged = [each for severity, each in found.items() if severity != DEGRADED]  # its severities are mixed
    return all(each.count < SCARCE or each.right is None or each.right >= LEAST_RIGHT for each in judged)


def calibrated_head(head: Head, views: Views, of_image: Tensor) -> Head:
    """The head with temperature and abstention for these views."""
    target = views.targets[head.name]
    logits = views.logits[head.name] / of_image
    if isinstance(head, Multilabel):
        return replace(head, temperature=fit_temperature(logits, target))
    if not isinstance(head, Multiclass):
        return head
    start = fit_temperature(logits, target)
    raised = head = replace(head, temperature=start)
    while not honest(confident(raised, views, of_image)) and raised.temperature < start * MOST_RAISED:
        raised = replace(raised, temperature=round(raised.temperature * RAISED_BY, 4))
    plain = views.severity == AS_IT_IS
    least = abstention((logits[plain] / raised.temperature).softmax(dim=1), target[plain])
    return replace(raised, abstain_below=least)


def recalibrated(spec: ModelSpec, views: Views) -> tuple[ImageTemperature, ModelSpec, Tensor]:
    """Fit everything.

    Returns:
        The temperature of images; the spec with new temperatures and abstention; and, for a report, the cross-fitted temperature
        of each view.
    """
    heads = [head for head in spec.heads if isinstance(head, Multiclass) and views.judge(head)]
    of_image = cross_fitted(views, heads)
    fitted = tuple(calibrated_head(head, views, of_image) if views.judge(head) else head for head in spec.heads)
    return fit_image_temperature(views, heads), replace(spec, heads=fitted), of_image
