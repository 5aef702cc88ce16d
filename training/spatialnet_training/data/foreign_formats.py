"""Data sets in the formats of other libraries: which path is which, as a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from spatialnet_training.data.dataset_options import DatasetOptions
from spatialnet_training.data.hugging_face import is_hugging_face, open_hugging_face
from spatialnet_training.data.image_store import StoredImages
from spatialnet_training.data.polygons import is_polygons, open_polygons
from spatialnet_training.data.torchgeo_sets import is_torchgeo, open_torchgeo
from spatialnet_training.data.webdataset_shards import is_webdataset, open_webdataset


@dataclass(frozen=True, slots=True)
class ForeignFormat:
    """One format.

    Attributes:
        fits: whether a path is of this format; cheap.
        open: lists its images.
        address: whether its paths are addresses rather than files.
    """

    fits: Callable[[Path], bool]
    open: Callable[[Path, DatasetOptions], StoredImages]
    address: bool = False


FORMATS: dict[str, ForeignFormat] = {
    "torchgeo": ForeignFormat(is_torchgeo, open_torchgeo, address=True),
    "polygons": ForeignFormat(is_polygons, open_polygons),
    "hugging_face": ForeignFormat(is_hugging_face, open_hugging_face),
    "webdataset": ForeignFormat(is_webdataset, open_webdataset),
}


def format_of(path: Path) -> ForeignFormat | None:
    """The format of a path; None for a folder, zip or table of our own."""
    return next((each for each in FORMATS.values() if each.fits(path)), None)


def is_address(path: Path) -> bool:
    """Whether a path names a data set rather than a file, so that it is not looked for on disk."""
    found = format_of(path)
    return found is not None and found.address
