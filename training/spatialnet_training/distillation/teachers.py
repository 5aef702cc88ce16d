"""Teachers: what they say of a batch, and how far the student is from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from numpy.random import Generator
from torch import Tensor, nn

from spatialnet_edge.core.errors import UsageError
from spatialnet_edge.core.spec import BandGroup
from spatialnet_training.config import Distillation, TaughtBy
from spatialnet_training.data.augmentation import Mix, oriented
from spatialnet_training.data.dataloader import Batch
from spatialnet_training.losses.multitask import UNLABELLED, labelled_rows, partly_labelled_rows, relation_loss, soft_loss


@dataclass(frozen=True, slots=True)
class TakenBands:
    """The part of a student's input that a teacher takes.

    Attributes:
        channels: indices of bands, in the teacher's order.
        groups: indices of band groups, in the teacher's order.
    """

    channels: tuple[int, ...]
    groups: tuple[int, ...]

    def of(self, x: Tensor, present: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """`x` `[N, bands, H, W]` and `present` `[N, groups]` as the teacher takes them."""
        views = x[:, list(self.channels)]
        if present is None or len(self.groups) == 1:
            return views, None
        return views, present[:, list(self.groups)]


def taken_bands(own: Sequence[BandGroup], student: Sequence[BandGroup]) -> TakenBands | None:
    """Which bands of the student's input a teacher takes; None where both take the same.

    Raises:
        UsageError: the teacher takes a group that the student lacks.
    """
    names = [group.name for group in student]
    if [group.name for group in own] == names:
        return None
    if missing := [group.name for group in own if group.name not in names]:
        raise UsageError(f"the teacher takes the bands '{missing[0]}'; the student has {', '.join(names)}")
    starts = [0, *accumulate(len(group.bands) for group in student)]
    groups = tuple(names.index(group.name) for group in own)
    channels = tuple(starts[g] + band for g in groups for band in range(len(student[g].bands)))
    return TakenBands(channels, groups)


@dataclass(frozen=True, slots=True)
class Teacher:
    """A network to learn from.

    Attributes:
        network: in evaluation mode.
        size: side in pixels of the views that it was trained for; None for what the student sees.
        datasets: indices of the data sets whose images it knows; None for all.
        use_on_unlabelled: whether it knows pictures without labels.
        weight: of its word beside those of the others that know the same view.
        random_orientation: whether it sees views in an orientation drawn for each batch.
        bands: which bands and groups of the student's input it takes; None for all of them.
    """

    network: nn.Module
    size: int | None
    datasets: tuple[int, ...] | None = None
    use_on_unlabelled: bool = True
    weight: float = 1.0
    random_orientation: bool = False
    bands: TakenBands | None = None

    def knows(self, batch: Batch) -> Tensor:
        """The views of a batch that show nothing but what it knows: bool `[N]`."""
        labelled = batch.data_set != UNLABELLED
        its_own = labelled if self.datasets is None else torch.isin(batch.data_set, batch.data_set.new_tensor(self.datasets))
        known = torch.where(labelled, its_own, self.use_on_unlabelled)
        return known if batch.mix is None else known & Mix.partner(known)


@dataclass(frozen=True, slots=True)
class Taught:
    """What the teachers say of a batch.

    Attributes:
        probabilities: head to `[N, outputs]`, softened by the distillation's temperature, averaged over the teachers that know the
            view; zeros where none does.
        known: head to bool `[N]`: whether any teacher that has the head knows the view.
        pooled: of each teacher, whether it knows the view, bool `[N]`, and its features `[N, heads, width]`.
    """

    probabilities: dict[str, Tensor]
    known: dict[str, Tensor]
    pooled: list[tuple[Tensor, Tensor]]


def known_sets(teacher: TaughtBy, data_sets: Sequence[str]) -> tuple[int, ...] | None:
    """Indices of the data sets that a teacher knows; None for all.

    Raises:
        UsageError: a name that is not among `data_sets`.
    """
    if unknown := sorted(set(teacher.datasets) - set(data_sets)):
        known = ", ".join(data_sets)
        raise UsageError(f"{teacher.checkpoint}: said to know '{unknown[0]}', which is none of this run's data sets: {known}")
    return tuple(data_sets.index(name) for name in teacher.datasets) or None


def as_teacher(
    network: nn.Module, size: int | None, told: TaughtBy, data_sets: Sequence[str], bands: TakenBands | None = None
) -> Teacher:
    """A teacher as the configuration describes it.

    Raises:
        UsageError: it is to know a data set that is not there.
    """
    return Teacher(
        network, size, known_sets(told, data_sets), told.use_on_unlabelled, told.weight, told.random_orientation, bands
    )


def partly_labelled(batch: Batch, head: str) -> Tensor:
    """The views of a batch that show an image whose labels of a head are known in part: bool `[N]`."""
    partly = partly_labelled_rows(batch.targets[head])
    return partly if batch.mix is None else partly | Mix.partner(partly)


@torch.no_grad()
def teach(
    teachers: Sequence[Teacher], batch: Batch, single_label: Mapping[str, bool], temperature: float, rng: Generator
) -> Taught:
    """Run every teacher over a batch. Of a head of which an image has labels in part it says nothing: what is known there comes
    from those who know better, and what is open stays open.

    Args:
        teachers: whose networks' forward gives pooled features and logits.
        single_label: for each head to be taught, softmax rather than sigmoids.
        rng: draws the orientations of those that see turned views.
    """
    sums: dict[str, Tensor] = {}
    weights: dict[str, Tensor] = {}
    features: list[tuple[Tensor, Tensor]] = []
    partly = {head: partly_labelled(batch, head) for head in single_label}
    for teacher in teachers:
        known = teacher.knows(batch)
        # also over what it does not know: every step has the same shapes, which a compiled network needs
        views = batch.at(teacher.size)
        views = oriented(views, int(rng.integers(8))) if teacher.random_orientation else views
        present = batch.present
        if teacher.bands is not None:
            views, present = teacher.bands.of(views, present)
        pooled, logits = teacher.network(views, present)
        features.append((known, pooled.float()))
        for head, single in single_label.items():
            if head not in logits:
                continue
            weight = teacher.weight * (known & ~partly[head]).float().unsqueeze(1)
            softened = logits[head].float() / temperature
            soft = softened.softmax(dim=1) if single else softened.sigmoid()
            sums[head] = sums.get(head, 0) + weight * soft
            weights[head] = weights.get(head, 0) + weight
    probabilities = {head: total / weights[head].clamp(min=1e-9) for head, total in sums.items()}
    return Taught(probabilities, {head: weight[:, 0] > 0 for head, weight in weights.items()}, features)


def distillation_loss(
    settings: Distillation,
    pooled: Tensor,
    logits: Mapping[str, Tensor],
    taught: Taught,
    targets: Mapping[str, Tensor],
    single_label: Mapping[str, bool],
    weights: Mapping[str, float],
) -> Tensor:
    """The loss against the teachers, summed over the heads with their weights.

    A head counts in full on images that have a label for it or no label at all, and with `settings.other_heads_weight` on images
    that have labels for other heads alone. Views that no teacher knows do not count.
    """
    labelled = {head: labelled_rows(target) for head, target in targets.items()}
    unlabelled = ~torch.stack(list(labelled.values())).any(dim=0)
    total = pooled.new_zeros(())
    for head, probabilities in taught.probabilities.items():
        weight = torch.where(labelled[head] | unlabelled, 1.0, settings.other_heads_weight) * taught.known[head]
        loss = soft_loss(logits[head].float(), probabilities, single_label[head], settings.temperature, weight)
        total = total + weights[head] * loss
    if settings.relations:
        relations = [relation_loss(pooled.float(), each, known) for known, each in taught.pooled]
        total = total + settings.relations * torch.stack(relations).mean()
    return total
