"""The source registry and its URI grammar.

| URI | source |
|---|---|
| `clip.mp4`, `file:clip.mp4` | a video file (extra `video`) |
| `photo.jpg` | one image, detected by its content |
| `folder/` | every image below it, in order of name |
| `0`, `/dev/video2`, `/dev/v4l/by-id/…` | a camera (extra `opencv`); `?size=1280x720&fps=30&format=MJPG` chooses its mode |
| `rtsp://…`, `http://…` | a network stream (extra `video`) |
| `scene:S2.tif?tile=256` | the tiles of a georeferenced raster, or of all below a folder, each with its footprint (extra `geo`) |
| `scene:S2.tif+S1.tif+DEM.tif` | the same of several rasters of one place |
| `gst:PIPELINE` | a GStreamer pipeline that ends before the sink |
| `synthetic:frames=300&size=640x480` | generated frames, for tests and benchmarks |
| `faulty:ok*30,hang|ok*30` | a simulated camera with scripted faults, for tests |
| `NAME:REST` | a source of an installed package, by the entry point `spatialnet_edge.sources` |
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable
from urllib.parse import parse_qsl, unquote_to_bytes

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.core.errors import SourceRefused
from spatialnet_edge.core.frames import Frame, Skipped
from spatialnet_edge.core.plugins import Plugin, known
from spatialnet_edge.core.spec import BandGroup
from spatialnet_edge.core.still_decoder import SUFFIXES, is_still


@runtime_checkable
class Source(Protocol):
    """A source of frames. Iterate once, then close it.

    Attributes:
        uri: as given by the caller.
        length: number of frames, or None if unknown (a camera).
        fps: nominal frames per second, or None.
        live: whether frames arrive at their own rate, so that waiting loses frames.
    """

    uri: str
    length: int | None
    fps: float | None
    live: bool

    def __iter__(self) -> Iterator[Frame | Skipped]:
        """Frames in order; a frame that cannot be read is a `Skipped`.

        Raises:
            SourceLost: the source stopped before its end.
        """
        ...

    def close(self) -> None: ...


@runtime_checkable
class DecodesInPlace(Protocol):
    """A source that can decode into memory of its reader, so that pictures are not copied.

    Attributes:
        place: function from the shape (height, width, channels) of the next picture to uint8 memory of that shape, or None.
    """

    place: Callable[[tuple[int, ...]], NDArray[np.uint8] | None] | None


@runtime_checkable
class GivesBands(Protocol):
    """A source that knows the names of its bands, and gives those of a model in the model's order."""

    def for_groups(self, groups: tuple[BandGroup, ...]) -> None:
        """Give the bands of these groups from now on; a band that is not there is zero.

        Raises:
            SourceRefused: the source has none of them.
        """
        ...


PARSERS = "spatialnet_edge.sources.source_options"
"""Reads the options of the sources, and opens nothing."""

SOURCES: dict[str, Plugin] = {
    "video": Plugin("spatialnet_edge.sources.video:VideoSource", "av", "video"),
    "camera": Plugin("spatialnet_edge.sources.camera:CameraSource", "cv2", "opencv", f"{PARSERS}:parse_camera"),
    "stream": Plugin("spatialnet_edge.sources.jetson:network_stream", "av", "video", f"{PARSERS}:parse_stream"),
    "image": Plugin("spatialnet_edge.sources.stills:ImageSource"),
    "folder": Plugin("spatialnet_edge.sources.stills:FolderSource"),
    "scene": Plugin(
        "spatialnet_edge.sources.scene:SceneSource", "rasterio", "geo", "spatialnet_edge.sources.scene:parse_scene"
    ),
    "gst": Plugin(
        "spatialnet_edge.sources.gstreamer:GStreamerSource", parser="spatialnet_edge.sources.gstreamer:parse_pipeline"
    ),
    "csi": Plugin("spatialnet_edge.sources.jetson:csi_camera", parser=f"{PARSERS}:parse_csi"),
    "faulty": Plugin("spatialnet_edge.sources.faulty:FaultySource", parser=f"{PARSERS}:parse_script"),
    "synthetic": Plugin("spatialnet_edge.sources.synthetic:SyntheticSource", parser=f"{PARSERS}:parse_synthetic"),
}

IMAGE_SUFFIXES = SUFFIXES
MOTION_JPEG_SUFFIXES = (".mjpeg", ".mjpg")
"""Suffixes of recordings that begin like a still picture, such as Motion JPEG."""


def hidden(part: str) -> bool:
    """Whether part of a path is hidden metadata of a desktop or notebook, such as `._a.jpg`, `.Trash-1000` or `__MACOSX`."""
    return part.startswith(".") or part == "__MACOSX"


DEVICES = frozenset({"camera", "csi", "stream", "gst", "faulty"})
"""Sources that may hang, crash or disconnect, and run in a separate process (`supervised.py`)."""
CAMERA_PATHS = ("/dev/video", "/dev/v4l/")
STREAM_SCHEMES = frozenset({"rtsp", "rtsps", "http", "https", "udp", "tcp", "srt"})


@dataclass(frozen=True, slots=True)
class SourceUri:
    """A parsed URI: the row of the table, and the argument of that source."""

    kind: str
    rest: str


def parse_uri(uri: str) -> SourceUri:
    """Find the source that a URI names. An existing file or folder of this name has priority over the URI grammar.

    Raises:
        SourceRefused: empty, or an unknown scheme.
    """
    if "\0" in uri:
        raise SourceRefused(f"{uri!r}: a source must not contain a null byte")
    text = uri if os.path.lexists(uri) else uri.strip()
    if not text:
        raise SourceRefused("the source is empty; expected a video, an image, a folder/, a camera index or a URI")
    if camera_node(text) is not None:
        return SourceUri("camera", text)
    scheme, colon, rest = text.partition(":")
    if not colon or os.path.lexists(text):
        return _parse_path(text)
    if rest.startswith("//") and scheme in STREAM_SCHEMES:
        return SourceUri("stream", text)
    if scheme == "file":
        return _parse_path(path_of_file_uri(rest))
    names = known("sources", SOURCES)
    if scheme in names:
        return SourceUri(scheme, rest)
    if scheme.isidentifier():
        raise SourceRefused(f"{shown(uri)}: no such file, and no source '{scheme}:'; available: {', '.join(sorted(names))}")
    return _parse_path(text)


def path_of_file_uri(rest: str) -> str:
    """The path of `file:REST` (RFC 8089). A host is ignored. `%20` is a space unless a file has this literal name."""
    path = rest
    if rest.startswith("//"):
        host, slash, below = rest[2:].partition("/")
        path = slash + below if slash and host in ("", "localhost") else rest[2:]
    return path if os.path.lexists(path) else os.fsdecode(unquote_to_bytes(os.fsencode(path)))


def split_options(rest: str) -> tuple[str, str]:
    """Split `NAME?OPTIONS` into the name and its options. The name of an existing file may contain `?`."""
    if os.path.lexists(rest):
        return rest, ""
    name, mark, query = rest.rpartition("?")
    while mark:
        if os.path.lexists(name):
            return name, query
        name, mark, _ = name.rpartition("?")
        query = rest[len(name) + 1 :]
    name, _, query = rest.partition("?")
    return name, query


def shown(name: str | Path) -> str:
    """A file's name as text that every sink can write. On Linux a name is bytes: those that are not UTF-8 appear as `\\xe9`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


MAX_CAMERAS = 256
"""Largest index of a Video4Linux device, 0 to 255; a longer number is the name of a file or folder, such as a date."""


def camera_node(uri: str) -> Path | None:
    """The device path of a camera's URI, existing or not; None if the URI names something else."""
    device = uri.partition("?")[0]
    if device.isascii() and device.isdigit() and len(device) < 4 and int(device) < MAX_CAMERAS:
        return Path(f"/dev/video{int(device)}")
    return Path(device) if device.startswith(CAMERA_PATHS) and "\0" not in device else None


def open_source(uri: str | Path | int) -> Source:
    """Open the source that a URI, a path or a camera index names.

    Raises:
        SourceRefused: it does not exist, is empty, or has another format.
        MissingExtra: the source's library is not installed.
    """
    parsed = parse_uri(str(uri))
    source: Source = known("sources", SOURCES)[parsed.kind].load()(parsed.rest)
    return source


def check_source(uri: str) -> None:
    """Read a URI with all its options, and open nothing: what is there may change, what is written may not.

    Raises:
        SourceRefused: `open_source` would not take it, whatever is at the other end.
        MissingExtra: its library is not installed.
    """
    parsed = parse_uri(uri)
    plugin = known("sources", SOURCES)[parsed.kind]
    plugin.require()
    plugin.parse(parsed.rest)


def options_of(uri: str, query: str, defaults: Mapping[str, str]) -> dict[str, str]:
    """Parse `name=value&…` over the defaults.

    Raises:
        SourceRefused: an unknown option.
    """
    given = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := given.keys() - defaults.keys():
        raise SourceRefused(f"{uri}: unknown option '{min(unknown)}'; available: {', '.join(defaults)}")
    return {**defaults, **given}


def size_of(text: str) -> tuple[int, int]:
    """Parse `WIDTHxHEIGHT` to two integers. Raises `ValueError` for other text."""
    width, height = (int(side) for side in text.split("x"))
    return width, height


def _parse_path(text: str) -> SourceUri:
    if os.path.isdir(text):
        return SourceUri("folder", text)
    suffix = Path(text).suffix.lower()
    if suffix in SUFFIXES or (suffix not in MOTION_JPEG_SUFFIXES and begins_as_still(Path(text))):
        return SourceUri("image", text)
    return SourceUri("video", text)


def begins_as_still(path: Path) -> bool:
    """Whether a regular file begins like an image."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return is_still(file.read(16))
    except (OSError, ValueError):
        return False


def regular_file(text: str) -> Path:
    """Check that a path is a regular, non-empty file.

    Raises:
        SourceRefused: missing, empty, a FIFO or a device.
    """
    path = Path(text)
    try:
        if not path.exists():
            raise SourceRefused(f"{shown(path)}: no such file; check the path")
        if not path.is_file():
            raise SourceRefused(f"{shown(path)}: not a regular file (a FIFO or a device?); give a video or an image file")
        if path.stat().st_size == 0:
            raise SourceRefused(f"{shown(path)}: the file is empty (0 bytes)")
    except (OSError, ValueError) as error:
        raise SourceRefused(f"{text[:200]!r}: cannot be opened: {error}") from error
    return path


def first_bytes(path: Path) -> str:
    """The first bytes of a file, for an error message."""
    with path.open("rb") as file:
        return repr(file.read(16))
