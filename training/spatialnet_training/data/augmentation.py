"""Augmentation for overhead images: all eight symmetries of the square by default, because they have no "up".

Geometry is one affine warp from the stored image to the training size. Colour, haze, noise and erasing follow on the float
batch; mixing of pairs is last. Every image has its own random generator, so a batch does not depend on the number of processes
that share it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import torch
from numpy.random import Generator, default_rng
from numpy.typing import NDArray
from torch import Tensor

from spatialnet_edge.core.spec import IMAGENET_MEAN, IMAGENET_STD, BandGroup

Flips = Literal["all", "horizontal", "none"]
"""Symmetries of the images: all eight of the square, mirrored left to right, or none."""


def random_view(
    height: int, width: int, size: int, rng: Generator, strength: float = 1.0, least: float = 0.6, flips: Flips = "all"
) -> NDArray[np.float64]:
    """Draw a view: a random crop, slightly stretched, in one of the orientations of `flips`.

    At full strength the crop has `least` to 100 % of the side. Returns `[2, 3]`: maps pixels (x, y, 1) of the view to the
    image.
    """
    side = rng.uniform(1 - (1 - least) * strength, 1.0)
    stretch = np.exp(rng.uniform(-0.15, 0.15) * strength)
    crop = np.array([min(side * stretch, 1.0) * width, min(side / stretch, 1.0) * height])
    centre = np.array([width, height]) / 2 + (np.array([width, height]) - crop) * rng.uniform(-0.5, 0.5, 2)
    signs, transposed = rng.choice([-1.0, 1.0], 2), rng.random() < 0.5  # always drawn, so that later draws stay the same
    axes = np.diag(crop / size) * {"all": signs, "horizontal": np.array([signs[0], 1.0]), "none": np.ones(2)}[flips]
    if transposed and flips == "all":
        axes = axes[:, ::-1]  # transposed output and two signs: all eight symmetries
    offset = centre - axes @ np.full(2, size / 2) + axes.sum(axis=1) * 0.5 - 0.5
    return np.column_stack([axes, offset])


def oriented(x: Tensor, orientation: int) -> Tensor:
    """Rotate or mirror a batch of square views `[N, bands, S, S]` to one of eight orientations, 0 to 7; 0 changes nothing."""
    turned = x.rot90(orientation % 4, (-2, -1))
    return (turned.flip(-1) if orientation >= 4 else turned).contiguous(memory_format=torch.channels_last)


def warp(image: NDArray[np.uint8], view: NDArray[np.float64], size: int) -> NDArray[np.uint8]:
    """Warp an image to a view: uint8 `[size, size, bands]`, bilinear, mirrored beyond the edges."""
    parts = [
        cv2.warpAffine(
            np.ascontiguousarray(image[..., first : first + 4]),  # OpenCV warps up to four bands at a time
            view,
            (size, size),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT_101,
        ).reshape(size, size, -1)
        for first in range(0, image.shape[2], 4)
    ]
    return np.asarray(np.concatenate(parts, axis=2) if len(parts) > 1 else parts[0], np.uint8)


def band_statistics(bands: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each band in grey levels: ImageNet's for red, green and blue, the middle of the range for
    others."""
    mean = [*IMAGENET_MEAN, *([0.5] * bands)][:bands]
    std = [*IMAGENET_STD, *([0.25] * bands)][:bands]
    return torch.tensor(mean) * 255, torch.tensor(std) * 255


def normalise(batch: NDArray[np.uint8]) -> Tensor:
    """Normalise uint8 `[N, H, W, bands]` to float32 `[N, bands, H, W]`, channels last in memory."""
    return standardise(torch.from_numpy(batch).permute(0, 3, 1, 2).float())


def standardise(x: Tensor) -> Tensor:
    """Standardise grey levels `[N, bands, H, W]` in 0 to 255 by each band's mean and standard deviation."""
    mean, std = (each.to(x.device) for each in band_statistics(x.shape[1]))
    return (x - mean.view(1, -1, 1, 1)) / std.view(1, -1, 1, 1)


def recolour(x: Tensor, rngs: Sequence[Generator], strength: float = 1.0) -> Tensor:
    """Random gain and offset per band (illumination, sensor), haze and noise, in normalised units."""
    bands = x.shape[1]
    gain, offset, haze = np.empty((len(x), bands)), np.empty((len(x), bands)), np.empty((len(x), 1))
    for index, rng in enumerate(rngs):
        gain[index] = 1 + strength * (rng.uniform(0.75, 1.25) * rng.uniform(0.93, 1.07, bands) - 1)
        offset[index] = strength * (rng.uniform(-0.3, 0.3) + rng.uniform(-0.1, 0.1, bands))
        haze[index] = strength * rng.uniform(0.0, 0.25) * (rng.random() < 0.2)
    shaped = [torch.from_numpy(each.astype(np.float32))[:, :, None, None].to(x.device) for each in (gain, offset, haze)]
    x = (x * shaped[0] + shaped[1]) * (1 - shaped[2]) + 1.5 * shaped[2]
    for index, rng in enumerate(rngs):
        if rng.random() < 0.15 * strength:
            deviation = np.float32(rng.uniform(0.02, 0.15))
            grain = default_rng(rng.integers(2**63))  # one draw at every size, so that later draws are the same
            noise = grain.standard_normal(x.shape[1:], dtype=np.float32) * deviation
            x[index] += torch.from_numpy(noise).to(x.device)
    return x


def erase(x: Tensor, rngs: Sequence[Generator], strength: float = 1.0) -> Tensor:
    """Blank one rectangle of up to a quarter of the area in a quarter of the images at full strength (Zhong et al. 2017)."""
    size = x.shape[-1]
    for index, rng in enumerate(rngs):
        if rng.random() < 0.25 * strength:
            height, width = rng.integers(size // 8, size // 2, 2)
            top, left = rng.integers(0, size - height), rng.integers(0, size - width)
            x[index, :, top : top + height, left : left + width] = 0
    return x


@dataclass(frozen=True, slots=True)
class Mix:
    """How a batch was mixed: each image has the weight `share`, and its partner in the pair has the rest."""

    share: float

    @staticmethod
    def partner(values: Tensor) -> Tensor:
        """The partner of each row in its pair."""
        return values.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)


def mixup(x: Tensor, rng: Generator, alpha: float) -> tuple[Tensor, Mix]:
    """Blend each image with its partner (Zhang et al. 2017, arXiv 1710.09412)."""
    mix = Mix(float(rng.beta(alpha, alpha)))
    return torch.lerp(mix.partner(x), x, mix.share), mix


def cutmix(x: Tensor, rng: Generator) -> tuple[Tensor, Mix]:
    """Paste a rectangle of its partner into each image (Yun et al. 2019, arXiv 1905.04899)."""
    size = x.shape[-1]
    side = int(size * np.sqrt(rng.uniform(0.1, 0.5)))
    top, left = rng.integers(0, size - side + 1, 2)
    mixed = x.clone()
    area = (slice(None), slice(None), slice(top, top + side), slice(left, left + side))
    mixed[area] = Mix.partner(x)[area]
    return mixed, Mix(1 - side * side / (size * size))


def drop_bands(x: Tensor, groups: Sequence[BandGroup], rngs: Sequence[Generator], probability: float) -> Tensor:
    """Drop single bands of measured groups at random, as if a channel of the sensor had failed. A group keeps at least one band.

    Args:
        x: standardised `[N, bands, H, W]`.
        probability: of dropping each band of a group with ranges and several bands.
    """
    mean, std = band_statistics(x.shape[1])
    missing = (-mean / std).to(x.device, x.dtype)  # level 0
    x = x.clone()
    starts = np.cumsum([0, *(len(group.bands) for group in groups)])
    for row, rng in enumerate(rngs):
        for group, start in zip(groups, starts[:-1], strict=True):
            if len(group.ranges) < 2:
                continue
            dropped = rng.random(len(group.bands)) < probability
            dropped[rng.integers(len(group.bands))] = False
            for band in start + np.flatnonzero(dropped):
                x[row, int(band)] = missing[int(band)]
    return x


def drop_groups(present: NDArray[np.float32], rngs: Sequence[Generator], probability: float) -> Tensor:
    """Drop band groups at random: float `[N, groups]` of 0 and 1. An image keeps at least one of its groups.

    Args:
        present: which groups each image has, `[N, groups]`.
        probability: of dropping each group.
    """
    kept = present.copy()
    for row, own, rng in zip(kept, present, rngs, strict=True):
        row[rng.random(len(row)) < probability] = 0
        there = np.flatnonzero(own)
        if len(there):  # a black image has no group
            row[there[rng.integers(len(there))]] = 1
    return torch.from_numpy(kept)
