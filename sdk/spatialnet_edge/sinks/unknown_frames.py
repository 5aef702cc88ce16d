"""The frames that the model knows least, kept as pictures for people on the ground, who may label them.

Of frames that lie close together in time the least known one alone is kept, so that one odd scene does not take every place. Each
kept frame is a JPEG with its result beside it as JSON. Names hold numbers alone, never text of a source. Files are replaced by one
atomic rename, and a restart goes on with what is there.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import final
from urllib.parse import parse_qsl

import msgspec
from PIL import Image

from spatialnet_edge.core.atomic_io import DATA_MODE, write_durably
from spatialnet_edge.core.errors import SinkRefused, UsageError
from spatialnet_edge.core.frames import NO_PICTURE
from spatialnet_edge.core.pixels import resize
from spatialnet_edge.core.predictions import Classification
from spatialnet_edge.core.results import FrameResult
from spatialnet_edge.sinks.file_errors import not_opened

MB = 1_000_000
DEFAULTS = {"keep": 20.0, "total_mb": 16.0, "every_s": 2.0, "side": 1280.0}
LIMITS = {"keep": (1, 10_000), "total_mb": (0.01, 1e6), "every_s": (0, 1e6), "side": (16, 8192)}
QUALITY = 85
NAME = re.compile(r"^unknown-([0-9]{1,16})-([0-9]{1,12})-([0-9]{5})\.jpg$")
"""Milliseconds since 1970, the frame's number, and how much is known of it in 1/10000."""


@dataclass(frozen=True, slots=True)
class Places:
    """How many frames are kept, and how large.

    Attributes:
        keep: frames at most.
        total: bytes of all files at most.
        every_s: of frames that are closer in time, in seconds, one is kept.
        side: longer side of a kept picture in pixels at most.
    """

    folder: Path
    keep: int
    total: int
    every_s: float
    side: int


@dataclass(frozen=True, slots=True)
class Kept:
    """A frame on the disk, by its name and size in bytes, result included."""

    unix_ms: int
    seq: int
    known: float
    size: int

    @property
    def name(self) -> str:
        return f"unknown-{self.unix_ms}-{self.seq}-{round(self.known * 10_000):05d}"


def parse_unknown(rest: str) -> Places:
    """Read `FOLDER?keep=20&total_mb=16&every_s=2&side=1280`.

    Raises:
        UsageError: no folder, or an option that is unknown, no number, or out of range.
    """
    folder, _, query = rest.partition("?")
    found = dict(DEFAULTS)
    try:
        if not folder:
            raise ValueError("no folder")
        for name, value in parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)):
            if name not in found:
                raise ValueError(f"no option '{name}'; there are {', '.join(DEFAULTS)}")
            low, high = LIMITS[name]
            found[name] = float(value)
            if not low <= found[name] <= high:
                raise ValueError(f"{name}={value}: expected {low:g} to {high:g}")
    except ValueError as error:
        raise UsageError(f"unknown:{rest}: {error}; expected for instance unknown:doubtful?keep=20&total_mb=16") from error
    return Places(Path(folder), int(found["keep"]), int(found["total_mb"] * MB), found["every_s"], int(found["side"]))


def knownness(result: FrameResult) -> float | None:
    """How much is known of a frame, 0 to 1: `known`, or without it the least confidence of a categorical head.

    None for a frame that carries no picture, or about which nothing can be said.
    """
    if result.reason in NO_PICTURE:
        return None
    if result.known is not None:
        return result.known
    confidences = [each.confidence for each in result.predictions.values() if isinstance(each, Classification)]
    return min(confidences, default=None)


@final
class UnknownFramesSink:
    """`unknown:FOLDER?keep=20&total_mb=16&every_s=2&side=1280`.

    Raises:
        UsageError: see `parse_unknown`.
        SinkRefused: the folder cannot be written.
    """

    def __init__(self, rest: str) -> None:
        self.report: Callable[[str, str], None] | None = None
        self.lost = 0
        self._places = parse_unknown(rest)
        try:
            self._places.folder.mkdir(parents=True, exist_ok=True)
            self._kept = [kept for path in self._places.folder.iterdir() if (kept := read_kept(path))]
        except OSError as error:
            raise not_opened(rest, error) from error
        if not self._places.folder.is_dir():
            raise SinkRefused(f"{self._places.folder}: not a folder; give a folder for the frames")
        self._make_room()

    def write(self, result: FrameResult) -> None:
        """Keep a frame if it is among the least known ones. A disk that does not take it is reported, and counted in `lost`."""
        known = knownness(result)
        if known is None:
            return
        unix_ms = max(0, round(result.frame.captured_unix * 1000))
        near = [each for each in self._kept if abs(each.unix_ms - unix_ms) < self._places.every_s * 1000]
        if any(each.known <= known for each in near):
            return
        less_known = [each for each in self._kept if each.known <= known]
        if len(less_known) >= self._places.keep:
            return
        picture, record = jpeg(result, self._places.side), msgspec.json.encode(result.to_dict())
        kept = Kept(unix_ms, max(0, result.seq), known, len(picture) + len(record))
        if sum(each.size for each in less_known) + kept.size > self._places.total:
            return
        try:
            self._remove(near)
            self._make_room(kept.size)
            write_durably(self._places.folder / f"{kept.name}.json", record, mode=DATA_MODE)
            write_durably(self._places.folder / f"{kept.name}.jpg", picture, mode=DATA_MODE)
            self._kept.append(kept)
        except OSError as error:
            self.lost += 1
            if self.report is not None:
                self.report("sink_failed", f"{self._places.folder}: frame {result.seq} not kept: {error.strerror}")

    def close(self) -> None:
        """Everything is on the disk already."""

    def _make_room(self, size: int = 0) -> None:
        """Remove the best known frames until one more of this size fits; 0 for no more."""
        keep = self._places.keep - (1 if size else 0)
        while self._kept and (len(self._kept) > keep or sum(each.size for each in self._kept) + size > self._places.total):
            self._remove([max(self._kept, key=lambda each: each.known)])

    def _remove(self, kept: list[Kept]) -> None:
        for each in kept:
            for suffix in (".jpg", ".json"):
                (self._places.folder / f"{each.name}{suffix}").unlink(missing_ok=True)
            self._kept.remove(each)


def read_kept(path: Path) -> Kept | None:
    """A frame that an earlier start kept; None for any other file."""
    found = NAME.match(path.name)
    if found is None or not path.is_file():
        return None
    record = path.with_suffix(".json")
    size = path.stat().st_size + (record.stat().st_size if record.is_file() else 0)
    return Kept(int(found[1]), int(found[2]), int(found[3]) / 10_000, size)


def jpeg(result: FrameResult, side: int) -> bytes:
    """The frame as a JPEG whose longer side has at most `side` pixels."""
    pixels = result.frame.rgb()
    height, width = pixels.shape[:2]
    if (longest := max(height, width)) > side:
        pixels = resize(pixels, max(1, width * side // longest), max(1, height * side // longest))
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "JPEG", quality=QUALITY)
    return target.getvalue()
