"""Images from which the ranges of activations are taken: real ones, enough of them, and like those that the model knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.core.errors import DataRefused
from spatialnet_edge.core.spec import InputSpec
from spatialnet_optimize.evaluation.metrics import decode_images, pictures
from spatialnet_training.data.labelled_dataset import TRAIN, LabelledImages

ENOUGH = 64
"""Fewer images than this leave ranges to chance."""

MOST = 128
"""More change nothing that we could measure, and take time."""

UNLIKE = 2.5
"""Deviations of brightness or contrast from the model's own golden frames, beyond which a warning is due."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Calibration images and what is to be said about them.

    Attributes:
        images: uint8 `[N, H, W, bands]` at the model's size.
        origin: where they come from, for the record.
        warnings: too few, or unlike what the model knows; with the figure.
    """

    images: NDArray[np.uint8]
    origin: str
    warnings: tuple[str, ...]


NOTHING: Mapping[str, int] = {}


def exclude_training(images: LabelledImages, learnt: Mapping[str, int] = NOTHING) -> LabelledImages:
    """The images that the network was not trained on, where the set says which those are, or is one that it has learnt; else
    all. A network knows its training images by heart, and what a precision costs does not show on them.

    Args:
        learnt: sets that the network was trained on, and of how many images each. One of the same name that has fewer for
            training is another, such as a sample of it.
    """
    rows = [row for row, split in enumerate(images.splits) if split != TRAIN]
    same = images.name in learnt and len(images) - len(rows) >= learnt[images.name]
    return images.chosen(rows) if rows and (images.said or same) else images


def split_calibration(images: LabelledImages, learnt: Mapping[str, int] = NOTHING) -> tuple[LabelledImages, LabelledImages]:
    """Images to calibrate with and others to judge by, so that nothing is judged on what it was fitted to: those that the network
    has seen and those that it has not; where that is not known, every third and the others."""
    judged = exclude_training(images, learnt)
    if len(judged) == len(images):
        judged = images.chosen([row for row in range(len(images)) if row % 3])
    files = set(judged.files)
    return images.chosen([row for row, file in enumerate(images.files) if file not in files]), judged


def from_labelled(sets: Sequence[LabelledImages], spec: InputSpec, golden: NDArray[np.uint8]) -> Calibration:
    """Of images that were set aside from the labelled ones, spread evenly over the sets."""
    share = MOST // max(1, len(sets))
    decoded = [decode_images(spread(images, share), spec).images for images in sets if len(images)]
    images = np.concatenate(decoded) if decoded else golden
    return checked(images, f"{len(images)} images set aside from {', '.join(s.name for s in sets)}", golden)


def from_folder(folder: Path, spec: InputSpec, golden: NDArray[np.uint8]) -> Calibration:
    """Of any pictures below a folder.

    Raises:
        DataRefused: none can be read.
    """
    images = pictures(folder, spec, MOST)
    if not images:
        raise DataRefused(f"{folder}: no picture to calibrate with; give a folder of at least {ENOUGH} real images")
    return checked(np.stack(images), f"{len(images)} images of {folder.name}", golden)


def spread(images: LabelledImages, count: int) -> LabelledImages:
    return images.chosen(np.unique(np.linspace(0, len(images) - 1, min(count, len(images))).astype(int)).tolist())


def checked(images: NDArray[np.uint8], origin: str, golden: NDArray[np.uint8]) -> Calibration:
    warnings: list[str] = []
    if len(images) < ENOUGH:
        warnings.append(f"{len(images)} calibration images; below {ENOUGH} the ranges of INT8 are left to chance")
    if (distance := unlikeness(images, golden)) > UNLIKE:
        warnings.append(
            f"the calibration images are {distance:.1f} deviations from the model's golden frames in brightness or contrast; "
            f"beyond {UNLIKE} they hardly are what it was trained on"
        )
    return Calibration(images, origin, tuple(warnings))


def unlikeness(images: NDArray[np.uint8], golden: NDArray[np.uint8]) -> float:
    """How far the mean brightness and contrast of each band are from those of the golden frames, in the golden frames' own
    deviations from frame to frame; the largest."""

    def statistics(batch: NDArray[np.uint8]) -> NDArray[np.float64]:
        return np.concatenate([batch.mean(axis=(1, 2)), batch.std(axis=(1, 2))], axis=1)

    known = statistics(golden)
    spread_of_known = known.std(axis=0).clip(min=4.0)  # grey levels: golden frames may be few and alike
    return float((np.abs(statistics(images).mean(axis=0) - known.mean(axis=0)) / spread_of_known).max())
