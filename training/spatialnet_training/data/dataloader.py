"""Data loader: selects the images of an epoch and turns them into training batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator, default_rng
from numpy.typing import NDArray
from torch import Tensor

from spatialnet_edge.core.bands import present_groups
from spatialnet_edge.core.spec import RGB, BandGroup
from spatialnet_training.config import TrainConfig, TrainingStage
from spatialnet_training.data.augmentation import (
    Mix,
    cutmix,
    drop_bands,
    drop_groups,
    erase,
    mixup,
    random_view,
    recolour,
    standardise,
    warp,
)
from spatialnet_training.data.bands import groups_named
from spatialnet_training.data.degradation import degrade
from spatialnet_training.data.device_cache import Resident
from spatialnet_training.data.samples import Samples
from spatialnet_training.losses.class_balance import draw_balanced
from spatialnet_training.losses.multitask import UNLABELLED


@dataclass(frozen=True, slots=True)
class Batch:
    """Input of a training step.

    Attributes:
        x: float32 `[N, bands, H, W]`, augmented and mixed.
        others: the same views at other sizes, by their side in pixels, for teachers with these input sizes; also at the
            student's size if the student's views are degraded.
        present: float32 `[N, groups]` of 0 and 1: the band groups that each image has and that were not dropped; None for a
            network with a single group.
        targets: head to the labels of each image before mixing.
        data_set: int64 `[N]`, index of each image's data set before mixing; `UNLABELLED` for an image without labels.
        mix: how the images were mixed; None if they were not.
    """

    x: Tensor
    others: dict[int, Tensor]
    present: Tensor | None
    targets: dict[str, Tensor]
    data_set: Tensor
    mix: Mix | None

    def to(self, device: torch.device) -> Batch:
        present = None if self.present is None else self.present.to(device, non_blocking=True)
        targets = {head: values.to(device, non_blocking=True) for head, values in self.targets.items()}
        x = self.x.to(device, non_blocking=True)
        others = {size: view.to(device, non_blocking=True) for size, view in self.others.items()}
        return Batch(x, others, present, targets, self.data_set.to(device, non_blocking=True), self.mix)

    def at(self, size: int | None) -> Tensor:
        """The undegraded views for a teacher at a size; None: the student's views."""
        return self.x if size is None or (size == self.x.shape[-1] and size not in self.others) else self.others[size]


def draw_epoch(data_set: NDArray[np.int64], data_sets: int, count: int, power: float, rng: Generator) -> NDArray[np.int64]:
    """Draw `count` indices for one epoch. A data set's share is proportional to its size to the power `power`; within it,
    drawn without replacement.

    (Temperature sampling, as in multilingual models; 1 is proportional, 0 is uniform over the data sets.)

    Args:
        data_set: index of each image's data set.
    """
    members = [np.flatnonzero(data_set == k) for k in range(data_sets)]
    shares = np.array([len(m) ** power if len(m) else 0.0 for m in members])
    quotas = np.round(count * shares / shares.sum()).astype(int)
    quotas[quotas.argmax()] += count - quotas.sum()  # correct the rounding
    drawn: list[NDArray[np.int64]] = []
    for rows, quota in zip(members, quotas, strict=True):
        while quota > 0:
            drawn.append(rng.permutation(rows)[:quota])
            quota -= len(drawn[-1])
    return rng.permutation(np.concatenate(drawn))


def alike_in_pairs(rows: NDArray[np.int64], groups_of: NDArray[np.float32]) -> NDArray[np.int64]:
    """Order the images of a batch so that both images of a pair have the same band groups, because pairs are mixed.

    An image without a partner is paired with itself.

    Args:
        rows: indices of images; an even number.
        groups_of: float `[images, groups]` of 0 and 1.
    """
    keys = [tuple(groups_of[row]) for row in rows]
    singles: dict[tuple[float, ...], int] = {}
    pairs: list[int] = []
    for row, key in zip(rows.tolist(), keys, strict=True):
        if key in singles:
            pairs += [singles.pop(key), row]
        else:
            singles[key] = row
    for row in [*singles.values()][: (len(rows) - len(pairs)) // 2]:
        pairs += [row, row]
    return np.array(pairs, np.int64)


@dataclass(frozen=True, slots=True)
class OnHost:
    """Training images in host memory; OpenCV computes their views."""

    images: Sequence[NDArray[np.uint8]]

    def warp(self, rows: NDArray[np.int64], views: NDArray[np.float64], size: int) -> Tensor:
        """As `Resident.warp`."""
        seen = [warp(self.images[row], view, size) for row, view in zip(rows, views, strict=True)]
        return torch.from_numpy(np.stack(seen)).permute(0, 3, 1, 2).float()


def colours_of(groups: Sequence[BandGroup]) -> slice:
    """The channels of red, green and blue in an image of these groups; none without the group `rgb`."""
    start = 0
    for group in groups:
        if group.name == RGB.name:
            return slice(start, start + len(group.bands))
        start += len(group.bands)
    return slice(0)


class Loader:
    """Batches of a run. They do not depend on the number of processes; each process computes its part of every batch.

    Args:
        unlabelled: images that only teachers label; they are `unlabelled_share` of every batch.
        rank, processes: index of this process, and number of processes.
        sizes: of further views besides the student's.
        device: for images that are kept on the device, if so configured.
    """

    def __init__(
        self,
        config: TrainConfig,
        samples: Samples,
        unlabelled: Samples | None = None,
        rank: int = 0,
        processes: int = 1,
        sizes: frozenset[int] = frozenset(),
        device: torch.device | None = None,
    ) -> None:
        self.config, self.samples, self.rank, self.processes, self.sizes = config, samples, rank, processes, sizes
        self.images = [*samples.images, *(unlabelled.images if unlabelled else ())]
        bands = groups_named(config.groups)
        self.colours = colours_of(bands)
        self.groups_of = (
            None if len(bands) == 1 else np.concatenate([present_groups(each[None], bands) for each in self.images])
        )
        place = device or torch.device("cpu")
        self.pictures = Resident.on(place, self.images) if config.images_on_device else OnHost(self.images)

    def __len__(self) -> int:
        return self.config.epoch_images // self.config.batch

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch counted from 0."""
        config, stage = self.config, self.config.stage_at(epoch)
        rng = default_rng([config.seed, epoch])
        assert stage.sampling_power is not None
        owners, kinds = self.samples.data_set, len(self.samples.data_sets)
        if config.class_balance == "sampling" and (target := self._first_classes()) is not None:
            rows = draw_balanced(target, config.epoch_images, rng)
        else:
            rows = draw_epoch(owners, kinds, config.epoch_images, stage.sampling_power, rng)
        part = config.batch // self.processes
        for first in range(0, len(self) * config.batch, config.batch):
            drawn = rows[first : first + config.batch]
            start = self.rank * part
            yield self._batch(epoch, first, drawn, slice(start, start + part), stage)

    def _first_classes(self) -> NDArray[np.int64] | None:
        """The class of each image by the first categorical head; None if there is no such head."""
        found = [values for values in self.samples.targets.values() if values.ndim == 1]
        return found[0].astype(np.int64) if found else None

    def _batch(self, epoch: int, first: int, rows: NDArray[np.int64], own: slice, stage: TrainingStage) -> Batch:
        config, indices = self.config, range(first + own.start, first + own.stop)
        shared = default_rng([config.seed, epoch, first])
        rows = self._with_unlabelled(rows, shared)[own]
        if self.groups_of is not None:
            rows = alike_in_pairs(rows, self.groups_of)

        def seen(size: int, degradation: Sequence[Generator] = ()) -> tuple[Tensor, Mix | None, Tensor | None]:
            """The images at one size, how they were mixed, and their groups; the same random draws at every size."""
            rngs = [default_rng([config.seed, epoch, index, 1]) for index in indices]
            x, mix = self._mixed(self._augmented(rows, size, rngs, stage.augmentation, degradation), deepcopy(shared), stage)
            present = self._present(rows, rngs)
            if config.band_dropout:
                x = drop_bands(x, groups_named(config.groups), rngs, config.band_dropout)
            return x.contiguous(memory_format=torch.channels_last), mix, present

        spoilt = [default_rng([config.seed, epoch, index, 2]) for index in indices] if config.degraded_share else ()
        x, mix, present = seen(stage.size, spoilt)
        others = {size: seen(size)[0] for size in (self.sizes if spoilt else self.sizes - {stage.size})}
        targets = {head: self._known(values, rows) for head, values in self.samples.targets.items()}
        return Batch(x, others, present, targets, self._known(self.samples.data_set, rows), mix)

    def _present(self, rows: NDArray[np.int64], rngs: Sequence[Generator]) -> Tensor | None:
        """The band groups of each image without the dropped ones: float `[N, groups]`; None for a single group."""
        if self.groups_of is None:
            return None
        return drop_groups(self.groups_of[rows], rngs, self.config.group_dropout)

    def _augmented(
        self, rows: NDArray[np.int64], size: int, rngs: Sequence[Generator], strength: float, degradation: Sequence[Generator]
    ) -> Tensor:
        images = [self.images[row] for row in rows]
        views = [
            random_view(image.shape[0], image.shape[1], size, rng, strength, self.config.least_crop, self.config.flips)
            for image, rng in zip(images, rngs, strict=True)
        ]
        shown = self.pictures.warp(rows, np.stack(views), size)
        x = standardise(self._degraded(shown, degradation) if degradation else shown)
        return erase(recolour(x, rngs, strength), rngs, strength)

    def _degraded(self, shown: Tensor, rngs: Sequence[Generator]) -> Tensor:
        """Degrade the colours of a share of the images: grey levels `[N, bands, H, W]`. Measured bands stay as they are."""
        for index, rng in enumerate(rngs):
            if rng.random() < self.config.degraded_share:
                picture = shown[index, self.colours].permute(1, 2, 0).round().to(torch.uint8).cpu().numpy()
                shown[index, self.colours] = torch.from_numpy(degrade(picture, rng)).permute(2, 0, 1).to(shown)
        return shown

    def _with_unlabelled(self, rows: NDArray[np.int64], rng: Generator) -> NDArray[np.int64]:
        """Replace some images of a batch by unlabelled ones, placed after the labelled ones."""
        labelled = len(self.samples)
        if len(self.images) == labelled or self.config.distillation is None:
            return rows
        count = 2 * round(len(rows) * self.config.distillation.unlabelled_share / 2)
        rows, places = rows.copy(), rng.permutation(len(rows))[:count]
        rows[places] = rng.integers(labelled, len(self.images), count)
        return rows

    def _known(self, values: NDArray[np.generic], rows: NDArray[np.int64]) -> Tensor:
        """The targets of each image, with `UNLABELLED` for images without labels."""
        labelled = rows < len(self.samples)
        drawn = values[np.where(labelled, rows, 0)].copy()
        drawn[~labelled] = UNLABELLED
        return torch.from_numpy(drawn)

    def _mixed(self, x: Tensor, rng: Generator, stage: TrainingStage) -> tuple[Tensor, Mix | None]:
        draw = rng.random()
        if draw < (stage.mixup_share or 0.0):
            return mixup(x, rng, self.config.mixup_alpha)
        if draw < (stage.mixup_share or 0.0) + (stage.cutmix_share or 0.0):
            return cutmix(x, rng)
        return x, None
