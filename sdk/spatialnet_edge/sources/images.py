"""Still images: one file, or every image below a folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import final

import cv2
import numpy as np

from spatialnet_edge.errors import SourceRefused, first_line
from spatialnet_edge.frames import Frame, Skipped
from spatialnet_edge.sources import IMAGE_SUFFIXES, first_bytes, regular_file
from spatialnet_edge.sources.exif import exif_pose

MAX_PIXELS = 1 << 28
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))  # read by OpenCV from the header, before decoding


@final
class ImageSource:
    """One image."""

    live = False
    length = 1
    fps = None

    def __init__(self, rest: str) -> None:
        self.uri = rest
        self._path = regular_file(rest)
        item = read_image(self._path, 0)
        if isinstance(item, Skipped):
            raise SourceRefused(item.detail)
        self._item = item

    def __iter__(self) -> Iterator[Frame | Skipped]:
        yield self._item

    def close(self) -> None:
        pass


@final
class FolderSource:
    """Every image below a folder, in order of path; files that are no images are passed over, broken ones skipped."""

    live = False
    fps = None

    def __init__(self, rest: str) -> None:
        self.uri = rest
        self._paths = find_images(Path(rest))
        if not self._paths:
            raise SourceRefused(f"{rest}: no image in this folder or below; looked for {', '.join(sorted(IMAGE_SUFFIXES))}")
        self.length = len(self._paths)

    def __iter__(self) -> Iterator[Frame | Skipped]:
        for seq, path in enumerate(self._paths):
            yield read_image(path, seq)

    def close(self) -> None:
        pass


def find_images(folder: Path) -> Sequence[Path]:
    """Files below `folder` with an image's suffix, sorted. Links to folders are not followed."""
    found = (Path(top, name) for top, _, names in os.walk(folder) for name in names)
    return sorted(path for path in found if path.suffix.lower() in IMAGE_SUFFIXES)


def read_image(path: Path, seq: int) -> Frame | Skipped:
    """Decode one file to RGB; what is wrong with it comes back as `Skipped`, with the path and its first bytes."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return Skipped(seq, "decode_error", f"{path}: not a plain file")
        encoded = np.frombuffer(path.read_bytes(), np.uint8)
        image = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if encoded.size else None
    except (OSError, cv2.error) as error:
        return Skipped(seq, "decode_error", f"{path}: cannot be read: {first_line(error)}")
    if image is None:
        return Skipped(seq, "decode_error", f"{path}: not an image; it begins with {first_bytes(path)}")
    return Frame(np.asarray(image, np.uint8)[..., ::-1], seq, str(path), pose=exif_pose(path))
