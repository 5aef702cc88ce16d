"""One camera frame, with when and where it was taken."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.spec import InputSpec


@dataclass(frozen=True, slots=True)
class Pose:
    """Where the camera was. Latitude and longitude in degrees (WGS 84), altitude in metres, attitude in degrees."""

    latitude: float
    longitude: float
    altitude: float
    roll: float = 0.0
    pitch: float = 0.0
    yaw: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """Pixels, and the moment at which the source delivered them.

    Attributes:
        pixels: uint8 `[H, W, 3]`, RGB. May be a reversed view of a camera's BGR buffer.
        seq: number in the source, from 0; gaps are frames that the source lost.
        source: the source's URI, or the file's path.
        captured_ns: monotonic clock, nanoseconds.
        captured_unix: wall clock, seconds since 1970 (UTC); for people, never for intervals.
        position_s: seconds from the start of a recording; None for live sources and stills.
        pose: where the camera was, if known.
    """

    pixels: NDArray[np.uint8]
    seq: int
    source: str
    captured_ns: int = field(default_factory=time.monotonic_ns)
    captured_unix: float = field(default_factory=time.time)
    position_s: float | None = None
    pose: Pose | None = None

    @property
    def seconds(self) -> float:
        """Time on the scene's own scale: the recording's where there is one, else the capture clock."""
        return self.captured_ns / 1e9 if self.position_s is None else self.position_s


@dataclass(frozen=True, slots=True)
class Skipped:
    """A frame that a source had to give up; it still counts as captured.

    Attributes:
        reason: the ledger's key: `decode_error`, `empty`, `format`, `overrun`, `invalid_output` …
        detail: one line for people.
    """

    seq: int
    reason: str
    detail: str


HALVE_FROM = 3
"""Frames are halved while both sides are at least this many times the model's input: a mean over 2×2 pixels is four times as
fast as averaging over fractional areas, and what the exact average then sees is already smooth."""


def fit(pixels: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.uint8]:
    """Resize to the model's input, as `InputSpec.resize` defines it: uint8 `[height, width, 3]`, RGB, contiguous.

    A reversed view of a BGR buffer is resized as it lies in memory and turned to RGB afterwards, where there are far fewer
    pixels to turn.
    """
    reversed_view = pixels.strides[-1] < 0
    image = np.asarray(pixels[..., ::-1] if reversed_view else pixels)
    while image.shape[0] >= HALVE_FROM * spec.height and image.shape[1] >= HALVE_FROM * spec.width:
        image = cv2.resize(image, (image.shape[1] // 2, image.shape[0] // 2), interpolation=cv2.INTER_AREA)
    if image.shape[:2] != (spec.height, spec.width):
        shrinking = image.shape[0] > spec.height or image.shape[1] > spec.width
        how = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
        image = cv2.resize(image, (spec.width, spec.height), interpolation=how)
    if reversed_view:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return np.ascontiguousarray(image, dtype=np.uint8)


def quality(pixels: NDArray[np.uint8]) -> tuple[str, ...]:
    """Flags for a frame that carries no picture: `dark` or `saturated`.

    Args:
        pixels: uint8 `[H, W, C]`; the model's input is enough.
    """
    sample = pixels[::4, ::4].ravel()  # one pixel in sixteen: a flag, not a measurement
    low, high = len(sample) // 100, len(sample) - 1 - len(sample) // 100
    ordered = np.partition(sample, (low, high))
    if ordered[high] < 12:
        return ("dark",)
    if ordered[low] > 243:
        return ("saturated",)
    return ()
