"""INT8 calibration images: real, enough, and similar to the training images."""

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
"""Smallest number of images for reliable ranges."""

MOST = 128
"""Largest number of images; more had no measurable effect."""

MOST_TRAINING = 4096
"""Largest number of images for quantisation-aware training."""

UNLIKE = 2.5
"""Warning threshold for the difference in brightness or contrast from the golden frames, in standard deviations."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Calibration images and warnings.

    Attributes:
        images: uint8 `[N, H, W, bands]` at the model's size.
        origin: of the images, for the build record.
        warnings: too few images, or images unlike the golden frames; with the figure.
        training: images for quantisation-aware training, of the same origin; None: not asked for.
    """

    images: NDArray[np.uint8]
    origin: str
    warnings: tuple[str, ...]
    training: NDArray[np.uint8] | None = None


NOTHING: Mapping[str, int] = {}


def exclude_training(images: LabelledImages, learnt: Mapping[str, int] = NOTHING) -> LabelledImages:
    """The images that the network was not trained on, if the data set has splits or is a known training set; otherwise all. On
    memorised training images, the loss of a precision is not visible.

    Args:
        learnt: training sets of the network, with their numbers of images. A data set of the same name with fewer training
            images is a different one, such as a sample.
    """
    rows = [row for row, split in enumerate(images.splits) if split != TRAIN]
    same = images.name in learnt and len(images) - len(rows) >= learnt[images.name]
    return images.chosen(rows) if rows and (images.said or same) else images


def split_calibration(images: LabelledImages, learnt: Mapping[str, int] = NOTHING) -> tuple[LabelledImages, LabelledImages]:
    """Split images into calibration and evaluation, so that nothing is evaluated on the images that it was fitted to: training
    images and others; if that is unknown, every third image and the rest."""
    judged = exclude_training(images, learnt)
    if len(judged) == len(images):
        judged = images.chosen([row for row in range(len(images)) if row % 3])
    files = set(judged.files)
    return images.chosen([row for row, file in enumerate(images.files) if file not in files]), judged


def from_labelled(sets: Sequence[LabelledImages], spec: InputSpec, golden: NDArray[np.uint8], most: int = MOST) -> Calibration:
    """Calibration from at most `most` labelled images that were set aside, spread evenly over the data sets."""
    share = most // max(1, len(sets))
    decoded = [decode_images(spread(images, share), spec).images for images in sets if len(images)]
    images = completed(np.concatenate(decoded), golden) if decoded else golden
    return checked(images, f"{len(images)} images set aside from {', '.join(s.name for s in sets)}", golden)


def from_folder(folder: Path, spec: InputSpec, golden: NDArray[np.uint8], most: int = MOST) -> Calibration:
    """Calibration from at most `most` of the images below a folder.

    Raises:
        DataRefused: none can be read.
    """
    images = pictures(folder, spec, most)
    if not images:
        raise DataRefused(f"{folder}: no image for calibration; give a folder of at least {ENOUGH} real images")
    return checked(completed(np.stack(images), golden), f"{len(images)} images of {folder.name}", golden)


def completed(images: NDArray[np.uint8], golden: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Add the golden frames if they have bands that all images lack: without them, such bands would not be calibrated.

    Takes and returns uint8 `[N, H, W, bands]`.
    """
    lacking = ~images.any(axis=(0, 1, 2)) & golden.any(axis=(0, 1, 2))
    return np.concatenate([images, golden]) if lacking.any() else images


def spread(images: LabelledImages, count: int) -> LabelledImages:
    return images.chosen(np.unique(np.linspace(0, len(images) - 1, min(count, len(images))).astype(int)).tolist())


def checked(images: NDArray[np.uint8], origin: str, golden: NDArray[np.uint8]) -> Calibration:
    warnings: list[str] = []
    if len(images) < ENOUGH:
        warnings.append(f"{len(images)} calibration images; with fewer than {ENOUGH} the INT8 ranges are not reliable")
    if (distance := unlikeness(images, golden)) > UNLIKE:
        warnings.append(
            f"the calibration images are {distance:.1f} standard deviations from the model's golden frames in "
            f"brightness or contrast; beyond {UNLIKE} they are probably unlike the training images"
        )
    return Calibration(images, origin, tuple(warnings))


def unlikeness(images: NDArray[np.uint8], golden: NDArray[np.uint8]) -> float:
    """The largest difference in mean brightness or contrast of a band from the golden frames, in standard deviations over the
    golden frames."""

    def statistics(batch: NDArray[np.uint8]) -> NDArray[np.float64]:
        return np.concatenate([batch.mean(axis=(1, 2)), batch.std(axis=(1, 2))], axis=1)

    known = statistics(golden)
    spread_of_known = known.std(axis=0).clip(min=4.0)  # grey levels: golden frames may be few and similar
    return float((np.abs(statistics(images).mean(axis=0) - known.mean(axis=0)) / spread_of_known).max())
