"""Video files and network streams, through OpenCV; and what every source of OpenCV's shares."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, final

import cv2
import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.core.errors import SourceLost, SourceRefused
from spatialnet_edge.core.frames import Frame, Skipped
from spatialnet_edge.sources.buffer_pool import Recycled
from spatialnet_edge.sources.registry import first_bytes, regular_file

# The complaints of FFmpeg and OpenCV become our one line instead.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "8")
if hasattr(cv2.utils, "logging"):  # which not every system's build has
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)

STREAM_TIMEOUT_MS = 10_000


@final
class VideoSource:
    """A video file, every frame of it."""

    live = False

    def __init__(self, rest: str) -> None:
        self.uri = rest
        self._path = regular_file(rest)
        self._capture = cv2.VideoCapture(str(self._path))
        if not self._capture.isOpened():
            raise SourceRefused(f"{self._path}: not a video that OpenCV can decode; it begins with {first_bytes(self._path)}")
        frames = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.length = frames if frames > 0 else None
        self.fps = self._capture.get(cv2.CAP_PROP_FPS) or None

    def __iter__(self) -> Iterator[Frame | Skipped]:
        seq = 0
        frames = read_frames(self._capture, self.uri, self.fps, Recycled())
        for seq, item in enumerate(frames, start=1):  # noqa: B007 (used after)
            yield item
        if seq == 0:
            raise SourceRefused(f"{self.uri}: no frame could be decoded; the file may be truncated")
        # Containers state their length; a few frames of slack, since some count a frame that never comes.
        if self.length is not None and seq < self.length - max(2, self.length // 100):
            raise SourceLost(
                f"{self.uri}: stopped after frame {seq} of {self.length}; the file is truncated or damaged there; "
                f"results up to that frame are kept"
            )

    def close(self) -> None:
        self._capture.release()


@final
class StreamSource:
    """A network stream (RTSP and what else OpenCV's FFmpeg knows), with a time limit on opening and on reading."""

    live = True
    length = None

    def __init__(self, rest: str) -> None:
        self.uri = rest
        self.place: Place | None = None
        limits = [
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, STREAM_TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, STREAM_TIMEOUT_MS
        ]  # fmt: skip
        self._capture = cv2.VideoCapture(rest, cv2.CAP_FFMPEG, limits)
        if not self._capture.isOpened():
            raise SourceRefused(
                f"{rest}: no stream there within {STREAM_TIMEOUT_MS // 1000} s; check the address, the network and the camera"
            )
        self.fps = self._capture.get(cv2.CAP_PROP_FPS) or None

    def __iter__(self) -> Iterator[Frame | Skipped]:
        yield from read_frames(self._capture, self.uri, place=self.place)
        raise SourceLost(f"{self.uri}: the stream ended; results up to here are kept")

    def close(self) -> None:
        self._capture.release()


Place = Callable[[tuple[int, ...]], NDArray[np.uint8] | None]
"""Gives memory for a picture of this shape, or None; so that a picture is decoded to where it is wanted."""


def read_frames(
    capture: cv2.VideoCapture, uri: str, fps: float | None = None, place: Place | None = None
) -> Iterator[Frame | Skipped]:
    """Frames until the capture has no more. OpenCV gives BGR; the frame shows it as RGB without copying.

    Args:
        fps: of a recording, which gives each frame its position; None for live sources.
        place: asked for memory before each picture but the first.
    """
    seq = 0
    shape: tuple[int, ...] = ()
    while True:
        target = place(shape) if place is not None and shape else None
        arrived, image = capture.read(target) if target is not None else capture.read()
        if not arrived:
            return
        item = checked_frame(np.asarray(image), seq, uri, seq / fps if fps else None)
        if isinstance(item, Frame):
            shape = item.pixels.shape
        yield item
        seq += 1


def checked_frame(image: NDArray[Any], seq: int, uri: str, position_s: float | None = None) -> Frame | Skipped:
    """What a camera gave, if it is a picture.

    Args:
        image: uint8 `[H, W, 3]`, BGR, becomes a frame; grey or with a fourth channel it is converted. Anything else is skipped:
            nobody knows how a 16-bit sensor wants to be seen.
    """
    if image.size == 0:
        return Skipped(seq, "empty", f"{uri}: frame {seq} is empty")
    if image.dtype == np.uint8 and (image.ndim == 2 or image.shape[2] == 1):
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    elif image.dtype == np.uint8 and image.shape[2] == 4:
        image = cv2.cvtColor(image, cv2.COLOR_BGRA2BGR)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        return Skipped(seq, "format", f"{uri}: frame {seq} is {image.dtype} {image.shape}; expected uint8 (H, W, 3)")
    return Frame(np.asarray(image, np.uint8)[..., ::-1], seq, uri, position_s=position_s)
