"""Still images: one file, or every image below a folder. What a file is its content says, not its name."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import final

from spatialnet_edge.core.errors import SourceRefused
from spatialnet_edge.core.frames import Frame, Skipped
from spatialnet_edge.core.still_decoder import MAX_BYTES, SUFFIXES, TILES, decode_still
from spatialnet_edge.sources.exif import exif_pose
from spatialnet_edge.sources.registry import begins_as_still, hidden, regular_file, shown


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
            raise SourceRefused(f"{self.uri}: no image in this folder or below; looked for {', '.join(sorted(SUFFIXES))}")
        self.length = len(self._paths)

    def __iter__(self) -> Iterator[Frame | Skipped]:
        for seq, path in enumerate(self._paths):
            yield read_image(path, seq)

    def close(self) -> None:
        pass


def find_images(folder: Path, suffixes: Set[str] = SUFFIXES) -> Sequence[Path]:
    """Files below `folder` with an image's suffix, or with none and an image's content; sorted, without hidden ones.

    Links to folders are not followed.
    """
    found = (Path(top, name) for top, _, names in os.walk(folder) for name in names)
    seen = (path for path in found if not any(map(hidden, path.relative_to(folder).parts)))
    return sorted(path for path in seen if path.suffix.lower() in suffixes or (not path.suffix and begins_as_still(path)))


def read_image(path: Path, seq: int) -> Frame | Skipped:
    """Decode one file to RGB; what is wrong with it comes back as `Skipped`, with the path."""
    name = shown(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return Skipped(seq, "decode_error", f"{name}: not a plain file")
        if status.st_size > MAX_BYTES:
            return Skipped(seq, "decode_error", f"{name}: too large: {status.st_size} bytes, at most {MAX_BYTES}; {TILES}")
        encoded = path.read_bytes()
        still = decode_still(encoded)
    except (OSError, ValueError) as error:
        return Skipped(seq, "decode_error", f"{name}: {error}")
    return Frame(still.pixels, seq, name, pose=exif_pose(encoded), note=still.note)
