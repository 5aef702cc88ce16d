"""Random image degradation by optics, weather, sensor and transmission, with the same distribution for every data set.

If only some data sets were degraded, a network could recognise a set by its sharpness. The ranges are those of cameras in
flight: sampling
up to four times coarser, JPEG quality 30 to 95 (sometimes twice), noise up to 15 grey levels (in one of four pictures up to
50), haze up to 60 %.
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
    chosen = rng.choice(len(STEPS), count, replace=False)
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


def haze(image: Image, rng: Generator) -> Image:
    """Haze of up to 60 %, white to bluish, in most pictures of varying density."""
    height, width = image.shape[:2]
    veil = np.array([1.0, 1.0, 1.0]) * rng.uniform(190, 245) + np.array([-10, 0, 8]) * rng.uniform(0, 1)
    share = np.full((height, width), rng.uniform(0.1, 0.6), np.float32)
    if rng.random() < 0.6:
        coarse = rng.uniform(0.3, 1.6, (int(rng.integers(2, 6)),) * 2).astype(np.float32)
        share = np.clip(share * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), 0, 0.75)
    return to_levels(image * (1 - share[..., None]) + veil[: image.shape[2]] * share[..., None])


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
    """Gaussian noise of up to 15 grey levels, sometimes 50, per band or equal in all bands."""
    shape = image.shape if rng.random() < 0.7 else (*image.shape[:2], 1)
    deviation = rng.uniform(1, 15) if rng.random() < 0.75 else rng.uniform(15, 50)
    return to_levels(image + rng.standard_normal(shape, np.float32) * np.float32(deviation))


def jpeg(image: Image, rng: Generator) -> Image:
    """JPEG with quality 30 to 95, in one of five pictures a second time."""
    for _ in range(2 if rng.random() < 0.2 else 1):
        encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 96))])[1]
        image = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)[..., ::-1]
    return image


STEPS: tuple[Step, ...] = (colour_cast, grey, darken, haze, contrast, blur, resample, noise, jpeg)
