"""A camera frame, with its time and position."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.core.errors import SourceRefused
from spatialnet_edge.core.pixels import resize
from spatialnet_edge.core.spec import RGB, InputSpec


@dataclass(frozen=True, slots=True)
class Pose:
    """Pose of the camera. Latitude and longitude in degrees (WGS 84), altitude in metres, attitude in degrees.

    Unknown fields are None, never zero, because zero is a valid value.
    """

    latitude: float
    longitude: float
    altitude: float | None = None
    roll: float | None = None
    pitch: float | None = None
    yaw: float | None = None


PixelFormat: TypeAlias = Literal["rgb24", "bgr24"]
"""FFmpeg's names for the band order of an array: red first, or blue first as in OpenCV."""


class Picture(Protocol):
    """A decoded picture in the decoder's pixel format, such as yuv420p. It is converted to RGB on demand."""

    @property
    def height(self) -> int:
        """Number of rows of the upright picture."""
        ...

    @property
    def width(self) -> int:
        """Number of columns of the upright picture."""
        ...

    def at(self, height: int, width: int) -> NDArray[np.uint8]:
        """The picture scaled to this size by averaging over areas: uint8 `[height, width, 3]`, RGB, upright."""
        ...

    def rgb(self) -> NDArray[np.uint8]:
        """The picture at full size: uint8 `[H, W, 3]`, RGB, upright."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """An image with its capture time and origin.

    Attributes:
        image: uint8 `[H, W, 3]`; `[H, W, bands]` for a model of several band groups; or a decoder's picture.
        seq: frame number in the source, from 0; gaps are frames that the source lost.
        source: the source's URI, or the file's path.
        captured_ns: monotonic clock, nanoseconds.
        captured_unix: wall clock, seconds since 1970 (UTC); for people, never for intervals.
        media_time_s: seconds from the start of a recording, by the presentation time stamp; None for live sources and stills.
        pose: pose of the camera, if known.
        footprint: outline of the visible ground, (longitude, latitude) in degrees (WGS 84), anticlockwise, the first corner
            not repeated; empty if unknown. It is never a ring around the globe: beyond the antimeridian longitudes exceed 180,
            and an outline around a pole follows the pole.
        note: the part of a file that was used, such as "the first of 3 pictures in the file"; None: all of it.
        pixel_format: band order of an array; ignored for a decoder's picture.
    """

    image: NDArray[np.uint8] | Picture
    seq: int
    source: str
    captured_ns: int = field(default_factory=time.monotonic_ns)
    captured_unix: float = field(default_factory=time.time)
    media_time_s: float | None = None
    pose: Pose | None = None
    footprint: tuple[tuple[float, float], ...] = ()
    pixel_format: PixelFormat = "rgb24"
    note: str | None = None

    @property
    def seconds(self) -> float:
        """Time for smoothing: media time of a recording, otherwise the capture clock."""
        return self.captured_ns / 1e9 if self.media_time_s is None else self.media_time_s

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """All bands at full size: uint8 `[H, W, bands]`, red first. May be a view of borrowed memory: do not write to it.

        A decoder's picture is converted at the first use. If only the model's size is needed, use `at`.
        """
        if not isinstance(self.image, np.ndarray):
            return self.image.rgb()
        return self.in_order(self.image)

    def rgb(self) -> NDArray[np.uint8]:
        """The image for display: uint8 `[H, W, 3]`, the first three bands, or a single band as grey."""
        return to_rgb(self.pixels)

    def at(self, height: int, width: int) -> NDArray[np.uint8]:
        """All bands at another size, averaged over areas: uint8 `[height, width, bands]`, red first.

        A decoder's picture is scaled from the decoder's planes. An array is resized first and its bands are reordered
        afterwards, when there are fewer pixels.

        Raises:
            SourceRefused: the array is not uint8 `[H, W, bands]`.
        """
        if not isinstance(self.image, np.ndarray):
            return self.image.at(height, width)
        return self.in_order(resize(checked(self.image), width, height))

    def in_order(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """An array in this frame's pixel format, reordered to red first."""
        return image[..., ::-1] if self.pixel_format == "bgr24" else image


@dataclass(frozen=True, slots=True)
class Skipped:
    """A frame that a source could not deliver; it counts as captured.

    Attributes:
        reason: key of the frame statistics: `decode_error`, `empty`, `format`, `overrun`, `invalid_output` …
        detail: one line for people.
    """

    seq: int
    reason: str
    detail: str


HALVE_FROM = 3
"""`stretch` halves a frame while both sides are at least this many times the model's input. A mean over 2×2 pixels is four
times as fast as averaging over fractional areas, and the exact average then has a smooth input."""


def preprocess(image: Frame | NDArray[np.uint8], spec: InputSpec) -> NDArray[np.uint8]:
    """Resize to the model's input, as `InputSpec.resize` defines: uint8 `[height, width, bands]`, contiguous.

    `image` has all bands of the model, or only red, green and blue. The missing groups are then zero, which the model treats
    as absent.

    Raises:
        SourceRefused: another number of bands, or not uint8.
    """
    frame = in_memory_order(image if isinstance(image, Frame) else Frame(image, 0, "array"))
    small = stretched(frame, spec) if spec.resize == "stretch" else frame.at(spec.height, spec.width)
    if small.shape[2] != spec.channels:
        small = pad_missing_bands(small, spec)
    return np.ascontiguousarray(small, dtype=np.uint8)


def in_memory_order(frame: Frame) -> Frame:
    """The same frame; a view with reversed bands, such as `bgr[..., ::-1]`, is taken in the order of its memory.

    Resizing such a view would first copy it at full size, which takes several times as long as resizing.
    """
    image = frame.image
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.strides[2] >= 0:
        return frame
    return replace(frame, image=image[..., ::-1], pixel_format="rgb24" if frame.pixel_format == "bgr24" else "bgr24")


def stretched(frame: Frame, spec: InputSpec) -> NDArray[np.uint8]:
    """Halve a frame while it is much larger than the model's input, then scale it: uint8 `[height, width, bands]`, red first.

    A decoder's picture is scaled to its halved size in one step.
    """
    size = (spec.height, spec.width)
    if isinstance(frame.image, np.ndarray):
        image = checked(frame.image)
        while (half := halved(image.shape[:2], size)) != image.shape[:2]:
            image = resize(image, half[1], half[0])
    else:
        half = (frame.image.height, frame.image.width)
        while (smaller := halved(half, size)) != half:
            half = smaller
        image = frame.image.at(*half)
    return frame.in_order(resize(image, spec.width, spec.height))


def halved(given: tuple[int, ...], wanted: tuple[int, int]) -> tuple[int, int]:
    """Half of the height and width, repeatedly while they are at least `HALVE_FROM` times the wanted size."""
    height, width = given
    large = height >= HALVE_FROM * wanted[0] and width >= HALVE_FROM * wanted[1]
    return (height // 2, width // 2) if large else (height, width)


def checked(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Check that an array can be resized, and make it contiguous.

    Raises:
        SourceRefused: not uint8 `[H, W, bands]`, or empty.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or not pixels.size:
        raise SourceRefused(
            f"an image of {pixels.dtype} and shape {pixels.shape}; expected uint8 [height, width, bands], levels from "
            "0 to 255; convert floats in 0 to 1 with (255 * image).round().astype(np.uint8)"
        )
    return np.ascontiguousarray(pixels)


def pad_missing_bands(rgb: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.uint8]:
    """Put red, green and blue at their positions among the model's bands, and fill the others with zeros."""
    if rgb.shape[2] != len(RGB.bands) or RGB not in spec.groups:
        names = ", ".join(f"{group.name} ({len(group.bands)})" for group in spec.groups)
        raise SourceRefused(
            f"an image of {rgb.shape[2]} bands; this model takes {spec.channels}: {names}; give all of them, in this order"
            + (", or only red, green and blue" if RGB in spec.groups else "")
        )
    parts = [rgb if group == RGB else np.zeros((*rgb.shape[:2], len(group.bands)), np.uint8) for group in spec.groups]
    return np.concatenate(parts, axis=2)


def to_rgb(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The bands for display, `[H, W, 3]`: the first three, or a single one as grey."""
    return pixels[..., :3] if pixels.shape[2] >= 3 else np.repeat(pixels[..., :1], 3, axis=2)


SAMPLED = 400
"""Approximate number of values that are sampled to assess a picture's brightness. When the engine uses every core, a call that
takes 9 µs alone was seen to cost ten times that."""


DARK, SATURATED, FEATURELESS = "dark", "saturated", "featureless"
NO_PICTURE = (DARK, SATURATED, FEATURELESS)
"""Flags of a frame without a usable picture: it never gets a label."""
DARK_BELOW, SATURATED_ABOVE = 12, 243
LEAST_SPREAD = 2
"""Grey levels from the 5th to the 95th percentile of a band. Of 8,100 training images of EuroSAT, whose open water is the
flattest labelled picture, all reach 2; a flat frame has 0 or 1."""


def sampled(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Sample about `SAMPLED` values from evenly spaced pixels: uint8 `[pixels, C]`. Takes uint8 `[H, W, C]`, such as the
    model's input."""
    step = math.ceil(math.sqrt(pixels.size / SAMPLED))
    return np.ascontiguousarray(np.reshape(pixels[::step, ::step], (-1, pixels.shape[2])))


def quality(sample: NDArray[np.uint8]) -> tuple[str, ...]:
    """Quality flags: one of `NO_PICTURE`, or none.

    Args:
        sample: see `sampled`. One per cent of the values at either end is ignored, for hot and dead pixels.
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
