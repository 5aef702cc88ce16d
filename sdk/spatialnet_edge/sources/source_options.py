"""The options in a source's URI, read without opening anything and without any optional library.

A service reads them before it counts the try of a bundle on trial; the source reads them again when it is opened.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import urlsplit

from spatialnet_edge.core.errors import SourceRefused
from spatialnet_edge.core.redaction import redacted
from spatialnet_edge.sources.registry import options_of, size_of

HARDWARE_VARIABLE = "SPATIALNET_DECODER"
"""Environment variable; `software` disables hardware decoding."""
CAMERA_OPTIONS = {"size": "", "fps": "", "format": ""}
CSI_OPTIONS = {"size": "1280x720", "fps": "30"}
SYNTHETIC_OPTIONS = {"frames": "300", "size": "640x480", "fps": "0", "seed": "0", "bands": "3"}
NEEDS_HOST = ("rtsp", "rtsps", "http", "https")
"""Schemes of a peer. The others may listen, and then name no host."""
STEPS = frozenset({"ok", "frozen", "wide", "empty", "grey", "deep", "again", "absent", "slow", "hang", "crash", "lost"})

Script: TypeAlias = tuple[tuple[str, int], ...]
"""Steps of a `faulty:` source, each with how often it is done."""


@dataclass(frozen=True, slots=True)
class CameraMode:
    """The mode that is requested from a camera.

    Attributes:
        size: width and height in pixels; None for the driver's first.
        fps: frames per second; None for the driver's first.
        format: four letters, such as `MJPG`; empty for the driver's first.
    """

    device: str
    size: tuple[int, int] | None
    fps: float | None
    format: str


@dataclass(frozen=True, slots=True)
class CsiMode:
    """The mode that is requested from a Jetson's CSI camera: number of the sensor, width and height in pixels, frames per
    second."""

    sensor: int
    size: tuple[int, int]
    fps: int


@dataclass(frozen=True, slots=True)
class SyntheticOptions:
    """Frames made on the spot: how many, their size in pixels, frames per second (0: as fast as they are taken), seed, bands."""

    frames: int
    width: int
    height: int
    fps: float
    seed: int
    bands: int


def parse_camera(rest: str) -> CameraMode:
    """Read `DEVICE?size=1280x720&fps=30&format=MJPG`.

    Raises:
        SourceRefused: an option that is unknown or impossible.
    """
    device, _, query = rest.partition("?")
    options = options_of(rest, query, CAMERA_OPTIONS)
    try:
        size = size_of(options["size"]) if options["size"] else None
        fps = float(options["fps"]) if options["fps"] else None
        options["format"].encode("ascii")
    except ValueError as error:
        raise SourceRefused(f"{rest}: {error}; example: 0?size=1280x720&fps=30&format=MJPG") from error
    numbers = [*(size or ()), *(() if fps is None else (fps,))]
    if not all(0 < number < 2**31 for number in numbers):  # so written that a NaN is refused
        raise SourceRefused(f"{rest}: size and fps must be positive")
    if len(options["format"]) > 4:
        raise SourceRefused(f"{rest}: format={options['format']}: expected at most four letters, such as MJPG")
    return CameraMode(device, size, fps, options["format"])


def parse_csi(rest: str) -> CsiMode:
    """Read `SENSOR?size=1280x720&fps=30`.

    Raises:
        SourceRefused: an option that is unknown or impossible.
    """
    sensor, _, query = rest.partition("?")
    options = options_of(f"csi:{rest}", query, CSI_OPTIONS)
    try:
        mode = CsiMode(int(sensor), size_of(options["size"]), int(options["fps"]))
    except ValueError as error:
        raise SourceRefused(f"csi:{rest}: {error}; example: csi:0?size=1280x720&fps=30") from error
    if not (0 <= mode.sensor < 64 and all(0 < side <= 16384 for side in mode.size) and 0 < mode.fps <= 1000):
        raise SourceRefused(f"csi:{rest}: sensor from 0 to 63, positive size, fps from 1 to 1000")
    return mode


def parse_stream(rest: str) -> None:
    """Check the address of a network stream; its query belongs to the peer, or to FFmpeg.

    Raises:
        SourceRefused: no host where one is needed, or a port that is none.
    """
    try:
        parts = urlsplit(rest)
        port = parts.port
    except ValueError as error:
        raise SourceRefused(f"{redacted(rest)}: {error}; example: rtsp://HOST:554/PATH") from error
    if port == 0 or (parts.scheme in NEEDS_HOST and not parts.hostname):
        raise SourceRefused(f"{redacted(rest)}: no host or port; example: rtsp://HOST:554/PATH")


def parse_synthetic(rest: str) -> SyntheticOptions:
    """Read `frames=300&size=640x480&fps=30&seed=0&bands=3`.

    Raises:
        SourceRefused: an option that is unknown or impossible.
    """
    uri = f"synthetic:{rest}"
    options = options_of(uri, rest, SYNTHETIC_OPTIONS)
    try:
        width, height = size_of(options["size"])
        frames, seed, bands = (int(options[name]) for name in ("frames", "seed", "bands"))
        found = SyntheticOptions(frames, width, height, float(options["fps"]), seed, bands)
    except ValueError as error:
        raise SourceRefused(f"{uri}: {error}; example: synthetic:frames=300&size=640x480&fps=30") from error
    if not (0 < width <= 16384 and 0 < height <= 16384 and frames > 0 and 0 <= found.fps <= 10_000 and 0 < bands <= 64):
        raise SourceRefused(f"{uri}: sizes and frames must be positive, fps from 0 to 10000, bands from 1 to 64")
    if seed < 0:
        raise SourceRefused(f"{uri}: seed={seed}: must not be negative")
    return found


def parse_script(rest: str) -> tuple[Script, ...]:
    """Read `ok*30,hang|ok*30#NOTE`: one script for each time that a `faulty:` source is opened.

    Raises:
        SourceRefused: a step that there is not, or a number of times that is none.
    """
    scripts = rest.partition("#")[0].split("|")
    return tuple(tuple(_step(rest, text) for text in script.split(",")) for script in scripts)


def _step(rest: str, text: str) -> tuple[str, int]:
    name, star, times = text.partition("*")
    if name not in STEPS:
        raise SourceRefused(f"faulty:{rest}: no step '{name}'; available: {', '.join(sorted(STEPS))}")
    if star and not (times.isascii() and times.isdigit() and len(times) < 10):
        raise SourceRefused(f"faulty:{rest}: '{text}': example: {name}*30")
    return name, int(times) if star else 1
