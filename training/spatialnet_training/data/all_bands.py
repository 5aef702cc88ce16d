"""Colour pictures without land as an optical sensor with more bands would record them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from spatialnet_edge.core.bands import REFLECTANCE
from spatialnet_edge.core.spec import RGB, BandGroup

Image = NDArray[np.uint8]
SHORT_WAVE = "swir"


def in_all_bands(image: Image, groups: Sequence[BandGroup], rng: Generator) -> Image:
    """A picture without land as an optical sensor with more bands would record it: uint8 `[H, W, channels]`.

    Clouds, glare and darkness have about the same brightness in near infrared as in colour, and clouds of ice less in short-wave
    infrared. Groups that do not measure reflectance are absent.
    """
    brightness = image.mean(axis=2, keepdims=True)
    parts: list[Image] = []
    for group in groups:
        if group.name == RGB.name:
            parts.append(image)
        elif group.ranges and all(span.unit == REFLECTANCE.unit for span in group.ranges):
            low, high = (0.3, 1.0) if group.name == SHORT_WAVE else (0.9, 1.1)
            gain = rng.uniform(low, high) * rng.uniform(0.97, 1.03, len(group.bands))
            parts.append(np.clip(np.rint(brightness * gain), 0, 255).astype(np.uint8))
        else:
            parts.append(np.zeros((*image.shape[:2], len(group.bands)), np.uint8))
    return np.ascontiguousarray(np.concatenate(parts, axis=2))
