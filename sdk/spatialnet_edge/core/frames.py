"""One camera frame, with when and where it was taken."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.core.errors import SourceRefused
from spatialnet_edge.core.pixels import resize
from spatialnet_edge.core.spec import RGB, InputSpec


@dataclass(frozen=True, slots=True)
class Pose:
    """Where the camera was. Latitude and longitude in degrees (WGS 84), altitude in metres, attitude in degrees.

    What is not known is None, never zero: at height 0, looking north along the ground, a camera might well be.
    """

    latitude: float
    longitude: float
    altitude: float | None = None
    roll: float | None = None
    pitch: float | None = None
    yaw: float | None = None


PixelFormat: TypeAlias = Literal["rgb24", "bgr24"]
"""FFmpeg's names for the order of an array's bands: red first, or blue first as OpenCV gives them."""


class Picture(Protocol):
    """A decoder's picture in the decoder's own pixel format, such as yuv420p. RGB is made when it is asked for."""

    @property
    def height(self) -> int:
        """Rows of the upright picture."""
        ...

    @property
    def width(self) -> int:
        """Columns of the upright picture."""
        ...

    def at(self, height: int, width: int) -> NDArray[np.uint8]:
        """The picture scaled to this size, a mean over areas: uint8 `[height, width, 3]`, RGB, upright."""
        ...

    def rgb(self) -> NDArray[np.uint8]:
        """The picture at its full size: uint8 `[H, W, 3]`, RGB, upright."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A picture, and the moment at which the source delivered it.

    Attributes:
        image: uint8 `[H, W, 3]`, or `[H, W, bands]` as a model of several groups of bands takes them; or a decoder's picture.
        seq: number in the source, from 0; gaps are frames that the source lost.
        source: the source's URI, or the file's path.
        captured_ns: monotonic clock, nanoseconds.
        captured_unix: wall clock, seconds since 1970 (UTC); for people, never for intervals.
        media_time_s: seconds from the start of a recording, by the frame's presentation time stamp; None for live sources and
            stills.
        pose: where the camera was, if known.
        footprint: the outline of what the frame shows, (longitude, latitude) in degrees (WGS 84), anticlockwise, without the
            first corner again; empty if unknown. It is never a ring round the globe: beyond the antimeridian longitudes go on
            past 180, and an outline round a pole runs along the pole.
        note: what of a file was taken, such as "the first of 3 pictures in the file"; None for all of it.
        pixel_format: order of the bands of an array; without meaning for a decoder's picture, which knows its own.
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
        """Time on the scene's own scale: the recording's where there is one, else the capture clock."""
        return self.captured_ns / 1e9 if self.media_time_s is None else self.media_time_s

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """All bands at full size: uint8 `[H, W, bands]`, red first. May be a view of borrowed memory: do not write to it.

        A decoder's picture is converted at the first use; who only needs the model's size asks `at`.
        """
        if not isinstance(self.image, np.ndarray):
            return self.image.rgb()
        return self.in_order(self.image)

    def rgb(self) -> NDArray[np.uint8]:
        """What people are shown: uint8 `[H, W, 3]`, the first three bands, or the only one in grey."""
        return to_rgb(self.pixels)

    def at(self, height: int, width: int) -> NDArray[np.uint8]:
        """All bands at another size, a mean over areas: uint8 `[height, width, bands]`, red first.

        A decoder's picture is scaled straight from the decoder's planes. An array is resized as it lies in memory, and its bands
        are put in order afterwards, where there are far fewer pixels.

        Raises:
            SourceRefused: the array is not uint8 `[H, W, bands]`.
        """
        if not isinstance(self.image, np.ndarray):
            return self.image.at(height, width)
        return self.in_order(resize(checked(self.image), width, height))

    def in_order(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """An array of this frame's pixel format with red first."""
        return image[..., ::-1] if self.pixel_format == "bgr24" else image


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
"""`stretch` halves frames while both sides are at least this many times the model's input: a mean over 2×2 pixels is four times
as fast as averaging over fractional areas, and what the exact average then sees is already smooth."""


def preprocess(image: Frame | NDArray[np.uint8], spec: InputSpec) -> NDArray[np.uint8]:
    """Resize to the model's input, as `InputSpec.resize` defines it: uint8 `[height, width, bands]`, contiguous.

    `image` has all bands of the model, or red, green and blue alone; then the groups that are missing are zero, which the model
    knows as "absent" and answers without.

    Raises:
        SourceRefused: another number of bands, or no pixels of 8 bits.
    """
    frame = image if isinstance(image, Frame) else Frame(image, 0, "array")
    small = stretched(frame, spec) if spec.resize == "stretch" else frame.at(spec.height, spec.width)
    if small.shape[2] != spec.channels:
        small = pad_missing_bands(small, spec)
    return np.ascontiguousarray(small, dtype=np.uint8)


def stretched(frame: Frame, spec: InputSpec) -> NDArray[np.uint8]:
    """A frame halved while it is much larger than the model's input, then scaled: uint8 `[height, width, bands]`, red first.

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
    """Half of a height and width; as they are where they are less than `HALVE_FROM` times what is wanted."""
    height, width = given
    large = height >= HALVE_FROM * wanted[0] and width >= HALVE_FROM * wanted[1]
    return (height // 2, width // 2) if large else (height, width)


def checked(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An array that can be resized, contiguous.

    Raises:
        SourceRefused: it is not uint8 `[H, W, bands]`, or empty.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or not pixels.size:
        raise SourceRefused(
            f"an image of {pixels.dtype} and shape {pixels.shape}; expected uint8 [height, width, bands], levels from 0 to 255; "
            f"of floats in 0 to 1 make (255 * image).round().astype(np.uint8)"
        )
    return np.ascontiguousarray(pixels)


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
