"""Convert OpenCV's pictures to frames, for cameras and OpenCV's GStreamer."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.core.frames import Frame, Skipped

# OpenCV's messages are replaced by our own line.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "8")
if hasattr(cv2.utils, "logging"):  # not every build has it
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)

Place = Callable[[tuple[int, ...]], NDArray[np.uint8] | None]
"""Function that returns memory for a picture of this shape, or None, so that it can be decoded in place."""


def read_frames(capture: cv2.VideoCapture, uri: str, place: Place | None = None) -> Iterator[Frame | Skipped]:
    """Read frames until the capture ends.

    Args:
        place: called for memory before each picture except the first.
    """
    seq = 0
    shape: tuple[int, ...] = ()
    while True:
        target = place(shape) if place is not None and shape else None
        arrived, image = capture.read(target) if target is not None else capture.read()
        if not arrived:
            return
        item = checked_frame(np.asarray(image), seq, uri)
        if isinstance(item, Frame):
            shape = image.shape
        yield item
        seq += 1


def checked_frame(image: NDArray[Any], seq: int, uri: str) -> Frame | Skipped:
    """Check and convert a camera's picture.

    Args:
        image: uint8 `[H, W, 3]`, BGR. Grey pictures and those with a fourth channel are converted. Others are skipped, because
            the display range of 16-bit sensors is unknown.
    """
    if image.size == 0:
        return Skipped(seq, "empty", f"{uri}: frame {seq} is empty")
    if image.dtype == np.uint8 and (image.ndim == 2 or image.shape[2] == 1):
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    elif image.dtype == np.uint8 and image.shape[2] == 4:
        image = cv2.cvtColor(image, cv2.COLOR_BGRA2BGR)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        return Skipped(seq, "format", f"{uri}: frame {seq} is {image.dtype} {image.shape}; expected uint8 (H, W, 3)")
    return Frame(np.asarray(image, np.uint8), seq, uri, pixel_format="bgr24")
