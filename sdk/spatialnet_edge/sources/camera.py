"""Local cameras through OpenCV; on Linux those of Video4Linux."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import cv2

from spatialnet_edge.core.errors import SourceLost, SourceRefused
from spatialnet_edge.core.frames import Frame, Skipped
from spatialnet_edge.sources.opencv_frames import Place, read_frames
from spatialnet_edge.sources.registry import camera_node
from spatialnet_edge.sources.source_options import CameraMode, parse_camera

MODE = (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FPS, cv2.CAP_PROP_FOURCC)
FPS_TOLERANCE = 0.1


@final
class CameraSource:
    """`0`, `/dev/video2` or `/dev/v4l/by-id/…`, with `?size=1280x720&fps=30&format=MJPG` for another mode than the driver's
    default.

    An index names the camera that the kernel found at that position; a path under `/dev/v4l/by-id` or `by-path` always names
    the same camera.
    """

    live = True
    length = None

    def __init__(self, rest: str) -> None:
        self.uri = rest
        self.place: Place | None = None
        mode = parse_camera(rest)
        device, wanted = mode.device, properties_of(mode)
        self._capture = cv2.VideoCapture(int(device)) if device.isdigit() else cv2.VideoCapture(device, cv2.CAP_V4L2)
        if not self._capture.isOpened():
            raise SourceRefused(
                f"camera {device}: cannot be opened; check that it is connected, that no other program uses it, and "
                f"that this user may read {camera_node(device)}"
            )
        for setting, value in wanted.items():
            self._capture.set(setting, value)
        self._refuse_another_mode(wanted)
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        self.fps = self._capture.get(cv2.CAP_PROP_FPS) or None

    def _refuse_another_mode(self, wanted: dict[int, float]) -> None:
        """Refuse a mode other than the requested one: a driver silently uses its nearest mode."""
        given = {setting: self._capture.get(setting) for setting in MODE}
        off = [s for s in wanted if abs(given[s] - wanted[s]) > (FPS_TOLERANCE * wanted[s] if s == cv2.CAP_PROP_FPS else 0)]
        if off:
            (width, height, rate, code), asked = given.values(), self.uri.partition("?")[2]
            self._capture.release()
            raise SourceRefused(
                f"camera {self.uri}: has no mode {asked}; the nearest is size={width:.0f}x{height:.0f}&fps={rate:g}"
                f"&format={four_letters(code)}; 'v4l2-ctl --list-formats-ext' lists all"
            )

    def __iter__(self) -> Iterator[Frame | Skipped]:
        yield from read_frames(self._capture, self.uri, place=self.place)
        raise SourceLost(f"camera {self.uri}: no more frames; the results so far are kept")

    def close(self) -> None:
        self._capture.release()


def properties_of(mode: CameraMode) -> dict[int, float]:
    """OpenCV's properties and their values, in the order that drivers require: the format limits the sizes, the size limits
    the rates."""
    wanted: dict[int, float] = {}
    if mode.format:
        wanted[cv2.CAP_PROP_FOURCC] = int.from_bytes(mode.format.encode("ascii").ljust(4), "little")
    if mode.size is not None:
        wanted |= {cv2.CAP_PROP_FRAME_WIDTH: mode.size[0], cv2.CAP_PROP_FRAME_HEIGHT: mode.size[1]}
    if mode.fps is not None:
        wanted[cv2.CAP_PROP_FPS] = mode.fps
    return wanted


def four_letters(code: float) -> str:
    """An OpenCV pixel format in Video4Linux notation. A backend without this information returns -1, which has no letters."""
    return (int(code) % 2**32).to_bytes(4, "little").decode("ascii", "replace")
