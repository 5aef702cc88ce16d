"""Where the files of a data set are: a folder or zip (`file_tree.Tree`), or another library's storage."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.core.pixels import encode_png
from spatialnet_training.data.file_tree import Unused

Row = dict[str, str]
"""One image: its name under `path`, its split under `split` where one is known, and its labels, as a CSV would have them."""


class ImageStore(Protocol):
    """Gives encoded images by their names.

    Attributes:
        path: of the folder, zip or file, for messages.
    """

    @property
    def path(self) -> Path: ...

    def read(self, names: Sequence[str]) -> Iterator[bytes]:
        """The content of each file, in this order; empty where it cannot be read."""
        ...


@dataclass(frozen=True, slots=True)
class FetchedImages:
    """A store whose library hands out one image after the other.

    Attributes:
        fetch: takes names and gives the encoded images in the same order.
    """

    path: Path
    fetch: Callable[[Sequence[str]], Iterator[bytes]]

    def read(self, names: Sequence[str]) -> Iterator[bytes]:
        return self.fetch(names)


@dataclass(frozen=True, slots=True)
class StoredImages:
    """A data set that another library has opened.

    Attributes:
        rows: one for each image.
        groups: the group of each row; None where images are taken to be independent of each other.
        name: of the set.
    """

    store: ImageStore
    rows: list[Row]
    name: str
    groups: tuple[str, ...] | None = None
    unused: tuple[Unused, ...] = ()
    notes: tuple[str, ...] = ()


def encoded(values: NDArray[np.generic]) -> bytes:
    """Pixel values `[H, W, bands]` as a file: a PNG for uint8 of one or three bands, otherwise a TIFF of the same values."""
    if values.dtype == np.uint8 and values.shape[2] in (1, 3):
        return encode_png(np.ascontiguousarray(values.astype(np.uint8)))
    import tifffile

    kept = values.astype(np.float32) if values.dtype in (np.float64, np.int32, np.int64) else values
    target = io.BytesIO()
    planes = kept[..., 0] if kept.shape[2] == 1 else kept
    tifffile.imwrite(target, planes, photometric="rgb" if kept.shape[2] == 3 else "minisblack", planarconfig="contig")
    return target.getvalue()
