"""Still images: one file, or every image below a folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import final

from spatialnet_edge.core.errors import SourceRefused
from spatialnet_edge.core.frames import Frame, Skipped
from spatialnet_edge.core.pixels import MAX_IMAGE_BYTES, decode_rgb
from spatialnet_edge.sources.exif import exif_pose
from spatialnet_edge.sources.registry import IMAGE_SUFFIXES, hidden, regular_file, shown


@final
class ImageSource:
    """One image."""

    live = False
    length = 1
    fps = None

    def __init__(self, rest: str) -> None:
        self.uri = shown(rest)
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
        self.uri = shown(rest)
        self._paths = find_images(Path(rest))
        if not self._paths:
            raise SourceRefused(
                f"{self.uri}: no image in this folder or below; looked for {', '.join(sorted(IMAGE_SUFFIXES))}"
            )
        self.length = len(self._paths)

    def __iter__(self) -> Iterator[Frame | Skipped]:
        for seq, path in enumerate(self._paths):
            yield read_image(path, seq)

    def close(self) -> None:
        pass


def find_images(folder: Path, suffixes: Set[str] = IMAGE_SUFFIXES) -> Sequence[Path]:
    """Files below `folder` with an image's suffix, sorted; without hidden ones. Links to folders are not followed."""
    found = (Path(top, name) for top, _, names in os.walk(folder) for name in names)
    images = (path for path in found if path.suffix.lower() in suffixes)
    return sorted(path for path in images if not any(map(hidden, path.relative_to(folder).parts)))


def read_image(path: Path, seq: int) -> Frame | Skipped:
    """Decode one file to RGB; what is wrong with it comes back as `Skipped`, with the path."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return Skipped(seq, "decode_error", f"{shown(path)}: not a plain file")
        if (size := path.stat().st_size) > MAX_IMAGE_BYTES:
            return Skipped(seq, "decode_error", f"{shown(path)}: has {size} bytes; at most {MAX_IMAGE_BYTES} are read")
        encoded = path.read_bytes()
        pixels = decode_rgb(encoded)
    except (OSError, ValueError) as error:
        return Skipped(seq, "decode_error", f"{shown(path)}: {error}")
    return Frame(pixels, seq, shown(path), pose=exif_pose(encoded))
