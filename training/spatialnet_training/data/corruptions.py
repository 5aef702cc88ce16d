"""Corruptions of ImageNet-C (Hendrycks and Dietterich 2019, arXiv 1903.12261), seeded, on images at their original size.

The library `imagecorruptions` needs numba and `opencv-python`, which overwrites the headless build that this project uses,
and uses NumPy's global generator; `albumentations` is no longer maintained. So the eight corruptions that matter for a camera
in flight are implemented here, with the published constants of each severity, on SciPy and Pillow.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

SEVERITIES = (1, 3, 5)
Picture = NDArray[np.float64]
"""`[H, W, 3]`, 0 to 1."""


def corrupt(image: NDArray[np.uint8], name: str, severity: int, seed: int) -> NDArray[np.uint8]:
    """Apply one corruption to an image, uint8 `[H, W, 3]`; deterministic for a seed.

    Args:
        name: of `CORRUPTIONS`.
        severity: 1 to 5.
    """
    rng = default_rng([zlib.crc32(name.encode()), severity, seed])
    made = CORRUPTIONS[name](image / 255, severity - 1, rng)
    return np.asarray(np.rint(255 * np.clip(made, 0, 1)), np.uint8)


def gaussian_noise(x: Picture, level: int, rng: Generator) -> Picture:
    return x + rng.normal(0, (0.08, 0.12, 0.18, 0.26, 0.38)[level], x.shape)


def shot_noise(x: Picture, level: int, rng: Generator) -> Picture:
    photons = (60, 25, 12, 5, 3)[level]
    return rng.poisson(x * photons) / photons


def defocus_blur(x: Picture, level: int, rng: Generator) -> Picture:
    radius = (3, 4, 6, 8, 10)[level] * scale_of(x)
    reach = max(1, int(np.ceil(radius)))
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disk = np.clip(radius + 0.5 - np.hypot(rows, columns), 0, 1)
    return ndimage.convolve(x, (disk / disk.sum())[..., None], mode="nearest")


def motion_blur(x: Picture, level: int, rng: Generator) -> Picture:
    length = max(1.5, ((10, 15, 15, 15, 20)[level] * (0.3, 0.45, 0.6, 0.8, 0.9)[level]) * scale_of(x) * 2)
    angle, reach = rng.uniform(0, np.pi), int(np.ceil(length / 2))
    places = np.linspace(-length / 2, length / 2, 4 * reach + 1)
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    np.add.at(
        kernel, (np.rint(reach + places * np.sin(angle)).astype(int), np.rint(reach + places * np.cos(angle)).astype(int)), 1
    )
    return ndimage.convolve(x, (kernel / kernel.sum())[..., None], mode="nearest")


def fog(x: Picture, level: int, rng: Generator) -> Picture:
    thickness, decay = ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))[level]
    veil, weight = np.zeros(x.shape[:2]), 1.0
    for octave in range(1, 7):
        grain = rng.uniform(0, 1, (2**octave + 1,) * 2)
        zoom = [side / len(grain) for side in x.shape[:2]]
        veil += weight * np.asarray(ndimage.zoom(grain, zoom, order=1, grid_mode=True, mode="nearest"))
        weight /= decay
    veil = (veil - veil.min()) / max(1e-9, np.ptp(veil))
    highest = x.max()
    return (x + thickness * veil[..., None]) * highest / (highest + thickness)


def brightness(x: Picture, level: int, rng: Generator) -> Picture:
    return x + (0.1, 0.2, 0.3, 0.4, 0.5)[level]


def contrast(x: Picture, level: int, rng: Generator) -> Picture:
    mean = x.mean(axis=(0, 1), keepdims=True)
    return (x - mean) * (0.4, 0.3, 0.2, 0.1, 0.05)[level] + mean


def jpeg(x: Picture, level: int, rng: Generator) -> Picture:
    return recompressed(np.asarray(np.rint(255 * x), np.uint8), (25, 18, 15, 10, 7)[level]) / 255


def recompressed(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """The image after JPEG compression: uint8 `[H, W, 3]`."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"), np.uint8)


def scale_of(x: Picture) -> float:
    """Scale factor for blurs: the published constants are for images of 224 pixels."""
    return min(1.0, min(x.shape[:2]) / 224)


CORRUPTIONS: dict[str, Callable[[Picture, int, Generator], Picture]] = {
    each.__name__: each for each in (gaussian_noise, shot_noise, defocus_blur, motion_blur, fog, brightness, contrast, jpeg)
}
