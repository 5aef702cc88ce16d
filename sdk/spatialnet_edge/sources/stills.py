"""Still images: one file, or every image below a folder. The content determines the format, not the name."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import final

from spatialnet_edge.core.deep_still import DeepPicture, decode_deep, depth_of
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
    """Every image below a folder, ordered by path. Files that are not images are ignored; broken images are skipped and
    counted."""

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
    """Files below `folder` with an image suffix, or without suffix but with an image's content; sorted, without hidden files.

    Links to folders are not followed.
    """
    found = (Path(top, name) for top, _, names in os.walk(folder) for name in names)
    seen = (path for path in found if not any(map(hidden, path.relative_to(folder).parts)))
    return sorted(path for path in seen if path.suffix.lower() in suffixes or (not path.suffix and begins_as_still(path)))


def read_image(path: Path, seq: int) -> Frame | Skipped:
    """Decode one file to RGB or to a `DeepPicture`. For a broken file returns `Skipped` with the path and the reason."""
    name = shown(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return Skipped(seq, "decode_error", f"{name}: not a regular file")
        if status.st_size > MAX_BYTES:
            return Skipped(seq, "decode_error", f"{name}: too large: {status.st_size} bytes, at most {MAX_BYTES}; {TILES}")
        encoded = path.read_bytes()
        if (depth := depth_of(encoded)) is not None:
            return Frame(DeepPicture(decode_deep(encoded), depth), seq, name, pose=exif_pose(encoded))
        still = decode_still(encoded)
    except OSError as error:
        return Skipped(seq, "decode_error", f"{name}: {error.strerror or error}")
    except ValueError as error:
        return Skipped(seq, "decode_error", f"{name}: {error}")
    return Frame(still.pixels, seq, name, pose=exif_pose(encoded), note=still.note)
