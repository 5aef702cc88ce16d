"""From images in memory to training batches: which images an epoch draws, and what happens to each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator, default_rng
from numpy.typing import NDArray
from torch import Tensor

from spatialnet_training.augment import Mix, cutmix, drop_groups, erase, mixup, normalise, recolour, warp
from spatialnet_training.config import Stage, TrainConfig
from spatialnet_training.samples import Samples


@dataclass(frozen=True, slots=True)
class Batch:
    """What a training step takes.

    Attributes:
        x: float32 `[N, bands, H, W]`, augmented and mixed.
        present: float32 `[N, groups]` of 0 and 1; None when nothing is withheld.
        targets: task to the labels of each image before mixing.
        mix: how the images were mixed; None when they were not.
    """

    x: Tensor
    present: Tensor | None
    targets: dict[str, Tensor]
    mix: Mix | None

    def to(self, device: torch.device) -> Batch:
        present = None if self.present is None else self.present.to(device, non_blocking=True)
        targets = {task: values.to(device, non_blocking=True) for task, values in self.targets.items()}
        return Batch(self.x.to(device, non_blocking=True), present, targets, self.mix)


def draw_epoch(data_set: NDArray[np.int64], data_sets: int, count: int, power: float, rng: Generator) -> NDArray[np.int64]:
    """Indices for one epoch: a data set's share is its size to the power `power`; within it, without replacement.

    (Temperature sampling, as multilingual models use it; 1 is proportional, 0 is uniform over the data sets.)

    Args:
        data_set: index of each image's data set.
    """
    members = [np.flatnonzero(data_set == k) for k in range(data_sets)]
    shares = np.array([len(m) ** power if len(m) else 0.0 for m in members])
    quotas = np.round(count * shares / shares.sum()).astype(int)
    drawn: list[NDArray[np.int64]] = []
    for rows, quota in zip(members, quotas, strict=True):
        while quota > 0:
            drawn.append(rng.permutation(rows)[:quota])
            quota -= len(drawn[-1])
    return rng.permutation(np.concatenate(drawn))


@dataclass(frozen=True, slots=True)
class Loader:
    """Batches of a run; the same ones however many processes share them, each of which takes its part of every batch.

    Attributes:
        unlabelled: pictures that only teachers label; they fill `unlabelled_share` of every batch.
        rank, processes: this process, and how many there are.
    """

    config: TrainConfig
    samples: Samples
    unlabelled: Samples | None = None
    rank: int = 0
    processes: int = 1

    def __len__(self) -> int:
        return self.config.epoch_images // self.config.batch

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch counted from 0."""
        config, stage = self.config, self.config.stage_at(epoch)
        rng = default_rng([config.seed, epoch])
        assert stage.sampling_power is not None
        owners, kinds = self.samples.data_set, len(self.samples.data_sets)
        rows = draw_epoch(owners, kinds, config.epoch_images, stage.sampling_power, rng)
        part = config.batch // self.processes
        for first in range(0, len(self) * config.batch, config.batch):
            drawn = rows[first : first + config.batch]
            start = self.rank * part
            yield self._batch(epoch, first, drawn, slice(start, start + part), stage)

    def _batch(self, epoch: int, first: int, rows: NDArray[np.int64], own: slice, stage: Stage) -> Batch:
        config = self.config
        shared = default_rng([config.seed, epoch, first])
        samples, rows = self._with_unlabelled(rows, shared)
        indices = range(own.start, own.stop)
        rngs = [default_rng([config.seed, epoch, first + index, 1]) for index in indices]
        pixels = np.stack(
            [
                warp(samples[i][int(rows[i])], stage.size, rng, stage.augmentation, config.least_crop)
                for i, rng in zip(indices, rngs, strict=True)
            ]
        )
        x = erase(recolour(normalise(pixels), rngs, stage.augmentation), rngs, stage.augmentation)
        present = drop_groups(len(config.groups), rngs, config.group_dropout) if config.group_dropout else None
        x, mix = self._mixed(x, shared, stage)
        targets = {task: self._labels(task, rows[own], samples[own]) for task in self.samples.targets}
        return Batch(x.contiguous(memory_format=torch.channels_last), present, targets, mix)

    def _with_unlabelled(
        self, rows: NDArray[np.int64], rng: Generator
    ) -> tuple[list[list[NDArray[np.uint8]]], NDArray[np.int64]]:
        """For each place of the batch the list that its image comes from, and its index there."""
        origins = [self.samples.images] * len(rows)
        if self.unlabelled is not None and self.config.distillation is not None:
            count = 2 * round(len(rows) * self.config.distillation.unlabelled_share / 2)
            rows = rows.copy()
            places = rng.permutation(len(rows))[:count]
            rows[places] = rng.integers(0, len(self.unlabelled), count)
            for place in places:
                origins[place] = self.unlabelled.images
        return origins, rows

    def _labels(self, task: str, rows: NDArray[np.int64], origins: list[list[NDArray[np.uint8]]]) -> Tensor:
        known = np.array([origin is self.samples.images for origin in origins])
        values = self.samples.targets[task][np.where(known, rows, 0)].copy()
        values[~known] = -1
        return torch.from_numpy(values)

    def _mixed(self, x: Tensor, rng: Generator, stage: Stage) -> tuple[Tensor, Mix | None]:
        draw = rng.random()
        if draw < (stage.mixup_share or 0.0):
            return mixup(x, rng, self.config.mixup_alpha)
        if draw < (stage.mixup_share or 0.0) + (stage.cutmix_share or 0.0):
            return cutmix(x, rng)
        return x, None
