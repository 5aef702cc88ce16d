"""Video sink: the frames with the predictions drawn on them."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import final

import cv2
import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.core.errors import SinkError, SinkRefused
from spatialnet_edge.core.frames import to_rgb
from spatialnet_edge.core.predictions import NO_ANSWER, Classification
from spatialnet_edge.core.results import FrameResult, readable
from spatialnet_edge.sinks.file_errors import not_opened

DEFAULT_FPS = 30.0
MAX_WIDTH = 1280
LEAST_FREE = 8 << 20
"""Minimum free bytes. OpenCV does not report a full disk, and a video is unreadable without its index, which is written
last."""
FONT = cv2.FONT_HERSHEY_SIMPLEX
PANEL, BAR, TEXT, FAINT = (32, 24, 16), (80, 176, 64), (255, 255, 255), (190, 190, 190)  # BGR


def parse_video(rest: str) -> Path:
    """Parse the path of the video. Raises SinkRefused unless it ends in .mp4 or .avi."""
    path = Path(rest)
    if path.suffix.lower() not in (".mp4", ".avi"):
        raise SinkRefused(f"{rest}: the overlay video is written as .mp4 or .avi; found '{path.suffix}'")
    return path


@final
class VideoSink:
    """Writes MPEG-4 at the first frame's size (at most 1280 wide); later frames are scaled to it.

    Args:
        rest: path of the video, `.mp4` or `.avi`. An existing video is kept: the new one is `NAME-2.mp4`, and so on.
        fps: of the video; None: 30.
        overwrite: replace an existing video.

    Raises:
        SinkRefused: another suffix, or the path cannot be written.
        SinkError: the disk is full. `write` raises it when the disk is nearly full; the video ends there and is readable.
    """

    def __init__(self, rest: str, fps: float | None = None, overwrite: bool = False) -> None:
        self._path = parse_video(rest)
        self._overwrite = overwrite
        self._fps = fps or DEFAULT_FPS
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise not_opened(rest, error) from error

    def write(self, result: FrameResult) -> None:
        pixels = result.frame.pixels
        if (free := shutil.disk_usage(self._path.parent).free) < LEAST_FREE:
            self.close()
            raise SinkError(
                f"{self._path}: ends at frame {result.seq}: {free} bytes are free on that disk; {LEAST_FREE} are needed"
            )
        if self._writer is None:
            self._open(pixels.shape[1], pixels.shape[0])
        assert self._writer is not None
        image = np.array(to_rgb(pixels)[..., ::-1])  # a copy: the frame may be shared memory with other readers
        if (image.shape[1], image.shape[0]) != self._size:
            image = cv2.resize(image, self._size, interpolation=cv2.INTER_AREA)
        self._writer.write(draw(image.astype(np.uint8, copy=False), result))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.release()
            self._writer = None

    def _open(self, width: int, height: int) -> None:
        scale = min(1.0, MAX_WIDTH / width)
        self._size = (max(2, int(width * scale) // 2 * 2), max(2, int(height * scale) // 2 * 2))
        codec = "mp4v" if self._path.suffix.lower() == ".mp4" else "MJPG"
        self._path = self._path if self._overwrite else free_name(self._path)
        writer = cv2.VideoWriter(str(self._path.absolute()), cv2.VideoWriter.fourcc(*codec), self._fps, self._size)
        if not writer.isOpened():
            raise SinkError(
                f"{self._path}: OpenCV cannot write this video ({codec}, {self._size}); check that the folder is writable"
            )
        self._writer = writer


def free_name(path: Path) -> Path:
    """The path, with a number if it exists already."""
    names = (path if number == 1 else path.with_stem(f"{path.stem}-{number}") for number in itertools.count(1))
    return next(name for name in names if not name.exists())


def draw(image: NDArray[np.uint8], result: FrameResult) -> NDArray[np.uint8]:
    """Draw a panel with each head's prediction and confidence into `image` (uint8 BGR), which is returned."""
    height, width = image.shape[:2]
    scale = max(0.35, min(width / 1280, height / 360))
    row, margin = int(30 * scale), int(12 * scale)
    panel_width = min(width, int(520 * scale))
    shown = readable(result)
    rows = len(shown) + 1
    panel = image[: min(height, row * rows + margin), :panel_width]
    panel[:] = (panel * 0.35 + np.array(PANEL) * 0.65).astype(np.uint8)
    thickness = max(1, round(1.4 * scale))
    known = "" if result.known is None else f"   known {result.known:.0%}"
    header = f"frame {result.seq}   age {result.age_ms:.0f} ms{known}" + (
        f"   no label: {result.reason}" if result.reason else ""
    )
    cv2.putText(image, header, (margin, int(row * 0.75)), FONT, 0.5 * scale, FAINT, thickness, cv2.LINE_AA)
    for index, (name, answer) in enumerate(shown.items(), start=1):
        baseline = int(row * (index + 0.75))
        if isinstance(answer, Classification) and result.reason is None:
            length = int((panel_width * 0.98 - margin) * answer.confidence)
            cv2.rectangle(image, (margin, baseline + 4), (margin + length, baseline + 6), BAR, -1)
        text = NO_ANSWER if result.reason else str(answer).replace(NO_ANSWER, "unsure")
        cv2.putText(image, name, (margin, baseline), FONT, 0.5 * scale, FAINT, thickness, cv2.LINE_AA)
        cv2.putText(image, text, (int(panel_width * 0.44), baseline), FONT, 0.55 * scale, TEXT, thickness, cv2.LINE_AA)
    return image
