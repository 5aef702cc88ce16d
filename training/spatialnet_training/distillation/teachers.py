"""Teachers: their predictions for a batch, and the distillation loss."""

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
    """The subset of the student's input bands for a teacher.

    Attributes:
        channels: indices of bands, in the teacher's order.
        groups: indices of band groups, in the teacher's order.
    """

    channels: tuple[int, ...]
    groups: tuple[int, ...]

    def of(self, x: Tensor, present: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Select the teacher's bands of `x` `[N, bands, H, W]` and groups of `present` `[N, groups]`."""
        views = x[:, list(self.channels)]
        if present is None or len(self.groups) == 1:
            return views, None
        return views, present[:, list(self.groups)]


def taken_bands(own: Sequence[BandGroup], student: Sequence[BandGroup]) -> TakenBands | None:
    """The bands of the student's input for a teacher; None if both have the same.

    Raises:
        UsageError: the teacher needs a group that the student does not have.
    """
    names = [group.name for group in student]
    if [group.name for group in own] == names:
        return None
    if missing := [group.name for group in own if group.name not in names]:
        raise UsageError(f"the teacher needs the bands '{missing[0]}'; the student has {', '.join(names)}")
    starts = [0, *accumulate(len(group.bands) for group in student)]
    groups = tuple(names.index(group.name) for group in own)
    channels = tuple(starts[g] + band for g in groups for band in range(len(student[g].bands)))
    return TakenBands(channels, groups)


@dataclass(frozen=True, slots=True)
class Teacher:
    """A teacher network with its options.

    Attributes:
        network: in evaluation mode.
        size: side in pixels of its input; None: the student's.
        datasets: indices of its data sets; None: all.
        use_on_unlabelled: whether it teaches on unlabelled images.
        weight: relative to the other teachers of the same view.
        random_orientation: whether it gets views in a random orientation per batch.
        bands: its bands and groups of the student's input; None: all.
    """

    network: nn.Module
    size: int | None
    datasets: tuple[int, ...] | None = None
    use_on_unlabelled: bool = True
    weight: float = 1.0
    random_orientation: bool = False
    bands: TakenBands | None = None

    def knows(self, batch: Batch) -> Tensor:
        """The views of a batch on which it teaches: bool `[N]`."""
        labelled = batch.data_set != UNLABELLED
        its_own = labelled if self.datasets is None else torch.isin(batch.data_set, batch.data_set.new_tensor(self.datasets))
        known = torch.where(labelled, its_own, self.use_on_unlabelled)
        return known if batch.mix is None else known & Mix.partner(known)


@dataclass(frozen=True, slots=True)
class Taught:
    """The teachers' outputs for a batch.

    Attributes:
        probabilities: head to `[N, outputs]`, softened by the distillation temperature, averaged over the teachers of the view;
            zeros without a teacher.
        known: head to bool `[N]`: whether any teacher with this head teaches on the view.
        pooled: per teacher, whether it teaches on the view, bool `[N]`, and its features `[N, heads, width]`.
    """

    probabilities: dict[str, Tensor]
    known: dict[str, Tensor]
    pooled: list[tuple[Tensor, Tensor]]


def known_sets(teacher: TaughtBy, data_sets: Sequence[str]) -> tuple[int, ...] | None:
    """Indices of a teacher's data sets; None: all.

    Raises:
        UsageError: a name is not in `data_sets`.
    """
    if unknown := sorted(set(teacher.datasets) - set(data_sets)):
        known = ", ".join(data_sets)
        raise UsageError(f"{teacher.checkpoint}: its data set '{unknown[0]}' is not one of this run's data sets: {known}")
    return tuple(data_sets.index(name) for name in teacher.datasets) or None


def as_teacher(
    network: nn.Module, size: int | None, told: TaughtBy, data_sets: Sequence[str], bands: TakenBands | None = None
) -> Teacher:
    """Build a teacher from its configuration.

    Raises:
        UsageError: it names an unknown data set.
    """
    return Teacher(
        network, size, known_sets(told, data_sets), told.use_on_unlabelled, told.weight, told.random_orientation, bands
    )


def partly_labelled(batch: Batch, head: str) -> Tensor:
    """The views of images with partial labels for a head: bool `[N]`."""
    partly = partly_labelled_rows(batch.targets[head])
    return partly if batch.mix is None else partly | Mix.partner(partly)


@torch.no_grad()
def teach(
    teachers: Sequence[Teacher], batch: Batch, single_label: Mapping[str, bool], temperature: float, rng: Generator
) -> Taught:
    """Run every teacher on a batch. Partially labelled heads are not distilled for that image.

    Args:
        teachers: networks whose forward returns pooled features and logits.
        single_label: per distilled head, softmax instead of sigmoids.
        rng: for the random orientations.
    """
    sums: dict[str, Tensor] = {}
    weights: dict[str, Tensor] = {}
    features: list[tuple[Tensor, Tensor]] = []
    partly = {head: partly_labelled(batch, head) for head in single_label}
    for teacher in teachers:
        known = teacher.knows(batch)
        # on all views, so that every step has the same shapes, which a compiled network needs
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
    """The distillation loss, summed over the heads with their weights.

    A head has the weight 1 on images with a label for it or without any label, and `settings.other_heads_weight` on images with
    labels only for other heads. Views without a teacher do not count.
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
