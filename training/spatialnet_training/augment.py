"""Augmentation for overhead images: there is no up, so the eight symmetries of the square come first.

Geometry is one affine warp from the stored image straight to the training size; colour, haze and erasing follow on
the float batch.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from spatialnet_edge.spec import IMAGENET_MEAN, IMAGENET_STD


def warp(image: NDArray[np.uint8], size: int, rng: Generator, strength: float = 1.0) -> NDArray[np.uint8]:
    """A random crop of 60 to 100 % of the side (at full strength), slightly stretched, in one of the eight orientations.

    Returns uint8 `[size, size, 3]`.
    """
    height, width = image.shape[:2]
    side = rng.uniform(1 - 0.4 * strength, 1.0)
    stretch = np.exp(rng.uniform(-0.15, 0.15) * strength)
    crop = np.array([min(side * stretch, 1.0) * width, min(side / stretch, 1.0) * height])
    centre = np.array([width, height]) / 2 + (np.array([width, height]) - crop) * rng.uniform(-0.5, 0.5, 2)
    axes = np.diag(crop / size) * rng.choice([-1.0, 1.0], 2)
    if rng.random() < 0.5:
        axes = axes[:, ::-1]  # transpose the output: with the two signs, all eight symmetries
    offset = centre - axes @ np.full(2, size / 2) + axes.sum(axis=1) * 0.5 - 0.5
    matrix = np.column_stack([axes, offset])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(image, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(warped, np.uint8)


def plain(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The resize that deployment does: area averaging when shrinking, bilinear when growing."""
    if image.shape[:2] == (size, size):
        return image
    shrinking = image.shape[0] > size
    resized = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR)
    return np.asarray(resized, np.uint8)


def normalise(batch: NDArray[np.uint8]) -> Tensor:
    """uint8 `[N, H, W, 3]` to float32 `[N, 3, H, W]`, channels last in memory."""
    x = torch.from_numpy(batch).permute(0, 3, 1, 2).float()
    mean = torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1) * 255
    std = torch.tensor(IMAGENET_STD).view(1, 3, 1, 1) * 255
    return (x - mean) / std


def colour(x: Tensor, rng: Generator, strength: float = 1.0) -> Tensor:
    """Gain and offset for each band (illumination, sensor), haze, in units of the normalised pixel."""
    batch = x.shape[0]

    def draw(low: float, high: float, bands: int) -> Tensor:
        return torch.from_numpy(rng.uniform(low, high, (batch, bands, 1, 1)).astype(np.float32))

    gain = 1 + strength * (draw(0.75, 1.25, 1) * draw(0.93, 1.07, 3) - 1)
    offset = strength * (draw(-0.3, 0.3, 1) + draw(-0.1, 0.1, 3))
    haze = strength * draw(0.0, 0.25, 1) * (draw(0.0, 1.0, 1) < 0.2)
    return (x * gain + offset) * (1 - haze) + 1.5 * haze


def erase(x: Tensor, rng: Generator, strength: float = 1.0) -> Tensor:
    """Blank one rectangle of up to a quarter of the area in a quarter of the images at full strength (Zhong et al. 2017)."""
    size = x.shape[-1]
    for index in np.flatnonzero(rng.random(x.shape[0]) < 0.25 * strength):
        height, width = rng.integers(size // 8, size // 2, 2)
        top, left = rng.integers(0, size - height), rng.integers(0, size - width)
        x[index, :, top : top + height, left : left + width] = 0
    return x
