"""A decoded picture: FFmpeg's planes, scaled or converted to RGB on demand."""

from __future__ import annotations

import struct
from threading import Lock, local
from typing import Any, final

import av
import numpy as np
from av.sidedata.sidedata import Type
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

FULL_CHR_H_INT = 1 << 13
"""SWS_FULL_CHR_H_INT of FFmpeg's libswscale/swscale.h, which PyAV names from version 18."""
SCALED = int(Interpolation.AREA) | FULL_CHR_H_INT
"""Flags of swscale. Without the second one, two neighbouring pixels get one chroma value, which is visible in a small
picture."""
FULL_SIZE = int(Interpolation.BICUBIC)
"""FFmpeg's default; it applies to chroma that is enlarged."""
_threads = local()


@final
class DecodedPicture:
    """A picture decoded by FFmpeg.

    Args:
        upright: quarter turns anticlockwise, then whether to mirror left to right; see `OrientationReader`.

    Colour matrix (BT.601, BT.709, BT.2020), range (limited or full), bit depth and chroma sampling are those of the
    decoder. The display matrix (ISO/IEC 14496-12, section 8.5.2) turns or mirrors the picture after scaling. The fields of an
    interlaced picture stay interleaved: averaging over areas blends them. An alpha channel is dropped.
    """

    def __init__(self, picture: av.VideoFrame, upright: tuple[int, bool] = (0, False)) -> None:
        self._picture = picture
        self._turn, self._mirror = upright
        self._rgb: NDArray[np.uint8] | None = None
        self._lock = Lock()  # PyAV changes a picture's colour tags during conversion

    @property
    def pixel_format(self) -> str:
        """FFmpeg's name of the pixel format, such as `yuv420p10le`."""
        return self._picture.format.name

    @property
    def height(self) -> int:
        return self._picture.width if self._turn % 2 else self._picture.height

    @property
    def width(self) -> int:
        return self._picture.height if self._turn % 2 else self._picture.width

    def at(self, height: int, width: int) -> NDArray[np.uint8]:
        """Scale from the planes with swscale's area filter: uint8 `[height, width, 3]`, RGB, upright."""
        rows, columns = (width, height) if self._turn % 2 else (height, width)
        return self._upright(self._convert(rows, columns, SCALED))

    def rgb(self) -> NDArray[np.uint8]:
        """The picture at full size: uint8 `[H, W, 3]`, RGB, upright. Computed once and kept with the picture."""
        if self._rgb is None:
            full = self._upright(self._convert(self._picture.height, self._picture.width, FULL_SIZE))
            full.flags.writeable = False
            self._rgb = full
        return self._rgb

    def _convert(self, rows: int, columns: int, how: int) -> NDArray[np.uint8]:
        with self._lock:
            converted = reformatter().reformat(self._picture, columns, rows, "rgb24", interpolation=how, threads=1)
        return packed_view(converted)

    def _upright(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        turned = np.rot90(image, self._turn) if self._turn else image
        return turned[:, ::-1] if self._mirror else turned


def reformatter() -> VideoReformatter:
    """This thread's scaler: one scaler must not be used by two threads at once."""
    found: VideoReformatter | None = getattr(_threads, "reformatter", None)
    if found is None:
        found = _threads.reformatter = VideoReformatter()
    return found


def packed_view(picture: av.VideoFrame) -> NDArray[np.uint8]:
    """An rgb24 picture as an array on its own memory, without copying: uint8 `[H, W, 3]`. Rows may be padded."""
    plane = picture.planes[0]
    memory: NDArray[np.uint8] = np.frombuffer(memoryview(plane), np.uint8)
    rows = np.reshape(memory, (-1, plane.line_size))[: picture.height, : picture.width * 3]
    return np.reshape(rows, (picture.height, picture.width, 3))


@final
class OrientationReader:
    """The orientation of a stream's pictures, read only when their rotation changes.

    PyAV's side data and their picture reference each other. So a picture whose side data were read stays in memory until the
    garbage collector runs: hundreds of megabytes of pictures.
    """

    def __init__(self) -> None:
        self._rotation: int | None = None
        self._upright = (0, False)

    def upright(self, picture: av.VideoFrame) -> DecodedPicture:
        """The picture with its orientation."""
        if picture.rotation != self._rotation:
            self._rotation, self._upright = picture.rotation, orientation_of(picture)
        return DecodedPicture(picture, self._upright)


def orientation_of(picture: av.VideoFrame) -> tuple[int, bool]:
    """The orientation of a picture: quarter turns anticlockwise, then whether to mirror left to right.

    The display matrix has nine numbers, row by row. The first two of the first two rows give the directions of the axes. An
    angle that is not a multiple of 90° is ignored.
    """
    side_data: Any = picture.side_data  # its type stub lacks some keys
    matrix = side_data.get(Type.DISPLAYMATRIX)
    if matrix is None:
        return 0, False
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(matrix))
    signs = tuple((value > 0) - (value < 0) for value in (a, b, c, d))
    return ORIENTATIONS.get(signs, (0, False))


ORIENTATIONS: dict[tuple[int, ...], tuple[int, bool]] = {
    (1, 0, 0, 1): (0, False),
    (0, 1, -1, 0): (3, False),
    (-1, 0, 0, -1): (2, False),
    (0, -1, 1, 0): (1, False),
    (-1, 0, 0, 1): (0, True),
    (1, 0, 0, -1): (2, True),
    (0, 1, 1, 0): (3, True),
    (0, -1, -1, 0): (1, True),
}
"""Signs of the display matrix's a, b, c, d: x' = a·x + c·y, y' = b·x + d·y, y downwards."""
