"""Images in memory with partial labels, and the hold-out rule of the published data sets."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.core.pixels import resize
from spatialnet_edge.core.spec import RGB, BandGroup, Head, InputSpec, Multiclass, Multilabel, Regression
from spatialnet_training.data.bands import decode
from spatialnet_training.data.labelled_dataset import TRAIN
from spatialnet_training.losses.multitask import UNLABELLED

STORED_SIDE = 128
"""Largest side of images in memory, in pixels: 25,000 images take about one gigabyte."""

Targets = dict[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class Samples:
    """Images of one split, with each head's targets.

    Attributes:
        images: uint8 `[H, W, bands]` each.
        targets: head to int64 `[N]` of class indices, or float32 `[N, outputs]` in 0 to 1; `UNLABELLED` where unknown,
            possibly only in some columns of a row.
        data_set: index of each image's data set in `data_sets`.
        broken: files that could not be decoded.
        names: of the images' files; empty if not needed.
    """

    images: list[NDArray[np.uint8]]
    targets: Targets
    data_set: NDArray[np.int64]
    data_sets: tuple[str, ...]
    broken: list[str] = field(default_factory=list[str])
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, rows: Sequence[int]) -> Samples:
        index = np.asarray(rows, dtype=np.int64)
        return Samples(
            images=[self.images[i] for i in index],
            targets={head: values[index] for head, values in self.targets.items()},
            data_set=self.data_set[index],
            data_sets=self.data_sets,
            names=tuple(self.names[i] for i in index) if self.names else (),
        )


class Collector:
    """Gathers images and labels one by one into `Samples`.

    Args:
        heads: of the model to be trained.
        data_sets: names of the data sets.
    """

    def __init__(self, heads: Sequence[Head], data_sets: tuple[str, ...]) -> None:
        self.heads = heads
        self.data_sets = data_sets
        self.images: list[NDArray[np.uint8]] = []
        self.owners: list[int] = []
        self.rows: dict[str, list[NDArray[np.generic]]] = {head.name: [] for head in heads}
        self.broken: list[str] = []
        self.names: list[str] = []

    def add(self, image: NDArray[np.uint8], labels: Mapping[str, object], owner: int = 0, name: str = "") -> None:
        """Add an image.

        Args:
            labels: head name to a class name, to `{label: 0 or 1}`, or to a number. Missing heads are unlabelled, and so are
                missing labels of a multilabel head.
            name: of its file.
        """
        self.images.append(image)
        self.owners.append(owner)
        self.names.append(name)
        for head in self.heads:
            self.rows[head.name].append(target_of(head, labels.get(head.name)))

    def samples(self) -> Samples:
        targets: Targets = {name: np.stack(rows) if rows else np.zeros(0, np.int64) for name, rows in self.rows.items()}
        return Samples(self.images, targets, np.array(self.owners, np.int64), self.data_sets, self.broken, tuple(self.names))


def target_of(head: Head, label: object) -> NDArray[np.generic]:
    """One image's target for one head; see `Samples.targets`."""
    if isinstance(head, Multiclass):
        return np.array(UNLABELLED if label is None else head.labels.index(str(label)), np.int64)
    if label is None:
        return np.full(head.width, UNLABELLED, np.float32)
    if isinstance(head, Multilabel):
        assert isinstance(label, Mapping)
        return np.array([float(label.get(name, UNLABELLED)) for name in head.labels], np.float32)
    assert isinstance(head, Regression)
    return np.array([(float(str(label)) - head.low) / (head.high - head.low)], np.float32).clip(0, 1)


def load_image(encoded: bytes, longest: int, groups: tuple[BandGroup, ...] = (RGB,)) -> NDArray[np.uint8] | None:
    """Decode an image and shrink it (area averaging) so that the longer side is at most `longest`; None if it is not an image.

    Returns uint8 `[H, W, bands]`.
    """
    image = decode(encoded, groups)
    return None if image is None else shrunk(image, longest)


def shrunk(image: NDArray[np.uint8], longest: int) -> NDArray[np.uint8]:
    """Shrink an image, uint8 `[H, W, bands]`, so that the longer side is at most `longest`."""
    height, width = image.shape[:2]
    scale = longest / max(height, width)
    if scale < 1:
        image = resize(image, round(width * scale), round(height * scale))
    return image


def judging_side(spec: InputSpec) -> int:
    """Side of images in memory for an evaluation: at least the network's input size. Enlarged images would be softer than
    those at run time."""
    return max(STORED_SIDE, spec.height)


def held_out(path: str) -> bool:
    """Whether a training image of a published data set is held out for calibration: one in twenty, by a hash of its path."""
    return zlib.crc32(path.encode()) % 20 == 0


def part_of(path: str, split: str) -> str:
    """The part of an image: `train`, `holdout` (held-out training images), or its other split."""
    return "holdout" if split == TRAIN and held_out(path) else split
