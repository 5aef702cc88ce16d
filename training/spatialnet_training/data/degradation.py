"""Random image degradation by optics, weather, sensor and transmission, with the same distribution for every data set.

If only some data sets were degraded, a network could recognise a set by its sharpness. The ranges are those of cameras in
flight: sampling up to four times coarser, JPEG quality 30 to 95 (sometimes twice), noise up to 60 grey levels, haze up to 75 %.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Step = Callable[[Image, Generator], Image]


def degrade(image: Image, rng: Generator) -> Image:
    """Apply one to four degradations in the order of an imaging chain: uint8 `[H, W, 3]` to the same shape."""
    count = rng.choice([1, 2, 3, 4], p=[0.45, 0.3, 0.15, 0.1])
    chosen = rng.choice(len(STEPS), count, replace=False, p=SHARES)
    for index in sorted(chosen):
        image = STEPS[index](image, rng)
    return np.ascontiguousarray(image)


def to_levels(values: NDArray[Any]) -> Image:
    """Round and clip to 0 to 255: uint8 of the same shape."""
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)


def colour_cast(image: Image, rng: Generator) -> Image:
    """A gain of 0.7 to 1.3 for each band."""
    return to_levels(image * rng.uniform(0.7, 1.3, image.shape[2]))


def grey(image: Image, rng: Generator) -> Image:
    """Remove part or all of the colour."""
    mean = image.mean(axis=2, keepdims=True)
    return to_levels(mean + (image - mean) * rng.choice([0.0, rng.uniform(0, 0.6)]))


def darken(image: Image, rng: Generator) -> Image:
    """Exposure of 0.15 to 1.6, then a gamma of 0.6 to 1.6."""
    exposed = np.clip(image / 255 * np.exp(rng.uniform(np.log(0.15), np.log(1.6))), 0, 1)
    return to_levels(255 * exposed ** np.exp(rng.uniform(np.log(0.6), np.log(1.6))))


def contrast(image: Image, rng: Generator) -> Image:
    """Contrast of 0.15 to 1.4 about the mean."""
    mean = image.mean()
    return to_levels(mean + (image - mean) * np.exp(rng.uniform(np.log(0.15), np.log(1.4))))


def mist(height: int, width: int, rng: Generator) -> NDArray[np.float32]:
    """Texture of clouds and fog, 0 to 1, float32 `[H, W]`: random grids of 2 to 64 cells per side; finer ones weigh less."""
    decay = rng.uniform(1.3, 2.5)
    texture = np.zeros((height, width), np.float32)
    for octave in range(1, 7):
        grid = rng.uniform(0, decay**-octave, (2**octave,) * 2).astype(np.float32)
        texture += cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR)
    texture -= texture.min()
    return texture / max(1e-6, float(texture.max()))


def haze(image: Image, rng: Generator) -> Image:
    """Haze of 10 to 75 %, white to bluish. Its density or its brightness varies over the picture."""
    height, width = image.shape[:2]
    light = np.array([1.0, 1.0, 1.0]) * rng.uniform(190, 250) + np.array([-10, 0, 8]) * rng.uniform(0, 1)
    thickness, unevenness = rng.uniform(0.1, 0.75), rng.uniform(0, 1)
    texture = mist(height, width, rng)[..., None]
    if rng.random() < 0.5:
        share = np.clip(thickness * (1 - unevenness + 2 * unevenness * texture), 0, 0.85)
        return to_levels(image * (1 - share) + light * share)
    return to_levels(image * (1 - thickness) + light * (1 - unevenness + unevenness * texture) * thickness)


def blur(image: Image, rng: Generator) -> Image:
    """Defocus of 0.4 to 2.5 pixels, or motion over 3 to 19."""
    if rng.random() < 0.5:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 2.5)), np.uint8)
    length = int(rng.integers(3, 20))
    kernel = np.zeros((length, length), np.float32)
    kernel[length // 2] = 1 / length
    turn = cv2.getRotationMatrix2D(((length - 1) / 2, (length - 1) / 2), rng.uniform(0, 180), 1.0)
    kernel = cv2.warpAffine(kernel, turn, (length, length))
    return np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT_101), np.uint8)


def resample(image: Image, rng: Generator) -> Image:
    """Downsample by 1 to 4 and enlarge again."""
    height, width = image.shape[:2]
    factor = rng.uniform(1, 4)
    small = cv2.resize(image, (max(4, round(width / factor)), max(4, round(height / factor))), interpolation=cv2.INTER_AREA)
    how = cv2.INTER_LINEAR if rng.random() < 0.6 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(small, (width, height), interpolation=how), np.uint8)


def noise(image: Image, rng: Generator) -> Image:
    """Gaussian noise of up to 15 grey levels, in four of ten pictures up to 60, per band or equal in all bands.

    In one of three pictures the noise grows with the square root of the brightness, like photon noise.
    """
    shape = image.shape if rng.random() < 0.7 else (*image.shape[:2], 1)
    deviation = rng.uniform(1, 15) if rng.random() < 0.6 else rng.uniform(15, 60)
    amplitude = np.sqrt(image / np.float32(128)) if rng.random() < 1 / 3 else np.float32(1)
    return to_levels(image + rng.standard_normal(shape, np.float32) * np.float32(deviation) * amplitude)


def jpeg(image: Image, rng: Generator) -> Image:
    """JPEG with quality 30 to 95, in one of five pictures a second time."""
    for _ in range(2 if rng.random() < 0.2 else 1):
        encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 96))])[1]
        image = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)[..., ::-1]
    return image


STEPS: tuple[Step, ...] = (colour_cast, grey, darken, haze, contrast, blur, resample, noise, jpeg)
SHARES = (0.07, 0.07, 0.1, 0.16, 0.13, 0.14, 0.1, 0.14, 0.09)
"""Probability of each step: higher for the degradations that cost a network more accuracy."""
