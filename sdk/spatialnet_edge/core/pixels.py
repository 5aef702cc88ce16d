"""Decode still images and resize.

Pillow decodes. OpenCV resizes if it is installed, by the extra or by the system. Otherwise
NumPy resizes by the same definition, much more slowly (40 ms rather than 0.7 for a frame of 1280×720). The two differ by at
most one grey level.
"""

from __future__ import annotations

import io
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.core.still_decoder import FORMATS, decode_still

try:
    import cv2
except ImportError:  # not installed, or built for another NumPy as on JetPack 6; `doctor` reports which
    cv2 = None


def decode_rgb(encoded: bytes, formats: Sequence[str] = FORMATS) -> NDArray[np.uint8]:
    """Decode a still image, upright: uint8 `[H, W, 3]`, RGB. Raises `NotDecoded`; see `still_decoder.decode_still`."""
    return decode_still(encoded, formats).pixels


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode uint8 `[H, W, bands]` as PNG: three bands as colours; any other number side by side, in grey."""
    from PIL import Image

    height, width, bands = pixels.shape
    shown = pixels if bands == 3 else np.reshape(np.swapaxes(pixels, 1, 2), (height, bands * width))
    target = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(shown)).save(target, "PNG")
    return target.getvalue()


def decode_png(encoded: bytes, bands: int) -> NDArray[np.uint8]:
    """Decode a PNG of `encode_png` to uint8 `[H, W, bands]`.

    Raises:
        ValueError: as `decode_rgb`; another format than PNG; or the width does not match the number of bands.
    """
    shown = decode_rgb(encoded, ("PNG",))
    if bands == 3:
        return shown
    height, width = shown.shape[:2]
    if width % bands:
        raise ValueError(f"{width} pixels wide; expected {bands} bands side by side")
    apart = np.reshape(shown[..., 0], (height, bands, width // bands))
    return np.ascontiguousarray(np.swapaxes(apart, 1, 2), np.uint8)


def resize(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Resize uint8 `[H, W, bands]`: average over areas along a side that shrinks, linear along one that grows."""
    if image.shape[:2] == (height, width):
        return image
    if cv2 is None:
        return resize_by_numpy(image, width, height)
    bands = image.shape[2]
    if bands not in (3, 4):  # OpenCV takes up to four bands at once, and drops the axis of a single one
        each = [resized_by_opencv(np.ascontiguousarray(image[..., band]), width, height) for band in range(bands)]
        return np.stack(each, axis=2)
    return resized_by_opencv(image, width, height)


def resized_by_opencv(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """`resize` with OpenCV, for `[H, W]` or three or four bands."""
    assert cv2 is not None
    rows, columns = image.shape[:2]
    least = (min(width, columns), min(height, rows))
    if least != (columns, rows):
        image = np.asarray(cv2.resize(image, least, interpolation=cv2.INTER_AREA), np.uint8)
    if least != (width, height):
        image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
    return image


def resize_by_numpy(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """`resize` without OpenCV: a weighted mean of rows, then of columns."""
    rows, columns, bands = image.shape
    if (rows, columns) == (2 * height, 2 * width):
        corners = [np.asarray(image[top::2, left::2], np.uint16) for top in (0, 1) for left in (0, 1)]
        return np.asarray((sum(corners[1:], corners[0]) + 2) // 4, np.uint8)
    pixels: NDArray[np.float32] = np.asarray(image, np.float32)
    low = np.matmul(weights(rows, height), np.reshape(pixels, (rows, columns * bands)))
    turned = np.swapaxes(np.reshape(low, (height, columns, bands)), 0, 1)
    small = np.matmul(weights(columns, width), np.reshape(turned, (columns, height * bands)))
    return np.asarray(np.rint(np.swapaxes(np.reshape(small, (width, height, bands)), 0, 1)), np.uint8)


@lru_cache(maxsize=32)
def weights(given: int, wanted: int) -> NDArray[np.float32]:
    """Weight of each input cell for each output cell: float32 `[wanted, given]`; rows sum to 1."""
    if wanted >= given:
        centres = ((np.arange(wanted) + 0.5) * (given / wanted) - 0.5).clip(0, given - 1)  # the border is repeated
        return (1 - np.abs(centres[:, None] - np.arange(given))).clip(min=0).astype(np.float32)
    edges, cells = np.arange(wanted + 1) * (given / wanted), np.arange(given)
    overlap = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    return (overlap.clip(min=0) * (wanted / given)).astype(np.float32)


@contextmanager
def resize_on_one_thread() -> Generator[None, None, None]:
    """Limit OpenCV to one thread inside the block, for callers that keep every core busy themselves.

    The number of threads is one setting of the process. When blocks overlap, the last one to end restores the number that the
    first one found.
    """
    global _inside, _threads_before
    if cv2 is None:
        yield
        return
    with _lock:
        if _inside == 0:
            _threads_before = cv2.getNumThreads()
            cv2.setNumThreads(1)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                cv2.setNumThreads(_threads_before)


_lock = Lock()
_inside = 0
_threads_before = 0
