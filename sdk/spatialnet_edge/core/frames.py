"""One camera frame, with when and where it was taken."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.core.errors import SourceRefused
from spatialnet_edge.core.pixels import resize
from spatialnet_edge.core.spec import RGB, InputSpec


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
        pixels: uint8 `[H, W, 3]`, RGB, or `[H, W, bands]` as a model of several groups of bands takes them. May be a reversed
            view of a camera's BGR buffer.
        seq: number in the source, from 0; gaps are frames that the source lost.
        source: the source's URI, or the file's path.
        captured_ns: monotonic clock, nanoseconds.
        captured_unix: wall clock, seconds since 1970 (UTC); for people, never for intervals.
        position_s: seconds from the start of a recording; None for live sources and stills.
        pose: where the camera was, if known.
        footprint: the corners of what the frame shows, (longitude, latitude) in degrees (WGS 84), anticlockwise; empty if unknown.
    """

    pixels: NDArray[np.uint8]
    seq: int
    source: str
    captured_ns: int = field(default_factory=time.monotonic_ns)
    captured_unix: float = field(default_factory=time.time)
    position_s: float | None = None
    pose: Pose | None = None
    footprint: tuple[tuple[float, float], ...] = ()

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


def preprocess(pixels: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.uint8]:
    """Resize to the model's input, as `InputSpec.resize` defines it: uint8 `[height, width, bands]`, contiguous.

    `pixels` has all bands of the model, or red, green and blue alone; then the groups that are missing are zero, which the model
    knows as "absent" and answers without.

    Raises:
        SourceRefused: another number of bands, or no pixels of 8 bits.

    A reversed view of a BGR buffer is resized as it lies in memory and turned to RGB afterwards, where there are far fewer
    pixels to turn.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or not pixels.size:
        raise SourceRefused(
            f"an image of {pixels.dtype} and shape {pixels.shape}; expected uint8 [height, width, bands], levels from 0 to 255; "
            f"of floats in 0 to 1 make (255 * image).round().astype(np.uint8)"
        )
    reversed_view = pixels.strides[-1] < 0
    image: NDArray[np.uint8] = np.asarray(pixels[..., ::-1] if reversed_view else pixels)
    while image.shape[0] >= HALVE_FROM * spec.height and image.shape[1] >= HALVE_FROM * spec.width:
        image = resize(image, image.shape[1] // 2, image.shape[0] // 2)
    if image.shape[:2] != (spec.height, spec.width):
        image = resize(image, spec.width, spec.height)
    if reversed_view:
        image = image[..., ::-1]
    if image.shape[2] != spec.channels:
        image = pad_missing_bands(image, spec)
    return np.ascontiguousarray(image, dtype=np.uint8)


def pad_missing_bands(rgb: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.uint8]:
    """Red, green and blue at their place among the model's bands, and zeros for the rest."""
    if rgb.shape[2] != len(RGB.bands) or RGB not in spec.groups:
        names = ", ".join(f"{group.name} ({len(group.bands)})" for group in spec.groups)
        raise SourceRefused(
            f"an image of {rgb.shape[2]} bands; this model takes {spec.channels}: {names}; give all of them, in this order"
            + (", or red, green and blue alone" if RGB in spec.groups else "")
        )
    parts = [rgb if group == RGB else np.zeros((*rgb.shape[:2], len(group.bands)), np.uint8) for group in spec.groups]
    return np.concatenate(parts, axis=2)


def to_rgb(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What people are shown of a frame, `[H, W, 3]`: its first three bands, or the only ones it has in grey."""
    return pixels[..., :3] if pixels.shape[2] >= 3 else np.repeat(pixels[..., :1], 3, axis=2)


SAMPLED = 400
"""About so many values say enough of a picture's light. With every core in the engine, a call that takes 9 µs alone was seen to
cost ten times that."""


DARK, SATURATED, FEATURELESS = "dark", "saturated", "featureless"
NO_PICTURE = (DARK, SATURATED, FEATURELESS)
"""Flags of a frame that carries no picture: it is never given a label."""
DARK_BELOW, SATURATED_ABOVE = 12, 243
LEAST_SPREAD = 2
"""Grey levels from the 5th to the 95th percentile of a band. Of 8,100 training images of EuroSAT, whose open water is the flattest
picture that has a label, all reach 2; a flat frame has 0 or 1."""


def sampled(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """About `SAMPLED` values, of pixels spread evenly: uint8 `[pixels, C]`. Takes uint8 `[H, W, C]`, such as the model's input."""
    step = math.ceil(math.sqrt(pixels.size / SAMPLED))
    return np.ascontiguousarray(np.reshape(pixels[::step, ::step], (-1, pixels.shape[2])))


def quality(sample: NDArray[np.uint8]) -> tuple[str, ...]:
    """Flags for a frame that carries no picture: one of `NO_PICTURE`, or none.

    Args:
        sample: see `sampled`. The hundredth part of its values at either end is left out, for hot and dead pixels.
    """
    values = np.sort(sample, axis=None)
    cut = len(values) // 100
    if values[-1 - cut] < DARK_BELOW:
        return (DARK,)
    if values[cut] > SATURATED_ABOVE:
        return (SATURATED,)
    ordered = np.sort(sample, axis=0)
    cut = len(ordered) // 20
    if int((ordered[-1 - cut].astype(np.int16) - ordered[cut]).max()) < LEAST_SPREAD:
        return (FEATURELESS,)
    return ()
