"""A list of images with their labels and splits; `labelled_dataset.py` makes it from folders, zips and tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.core.errors import DataRefused
from spatialnet_edge.core.spec import BandGroup
from spatialnet_training.data.bands import decode
from spatialnet_training.data.dataset_options import DEFAULTS, DatasetOptions
from spatialnet_training.data.deep_pixels import decode_with_range
from spatialnet_training.data.file_tree import Unused
from spatialnet_training.data.image_store import ImageStore
from spatialnet_training.data.measured_sets import measured_file
from spatialnet_training.data.splits import split_name


def class_of(path: str) -> str:
    """The folder directly above the file, which is the class in the published data sets; empty if there is none."""
    parts = path.rsplit("/", 2)
    return parts[-2] if len(parts) > 1 else ""


@dataclass(frozen=True, slots=True)
class LabelledImages:
    """A list of images with their labels and splits.

    Attributes:
        files: path of each image in the tree.
        classes: the class of each image; empty for tables.
        splits: the split of each image.
        said: whether the data give the splits of any image; otherwise a hash determines them.
        name: name of the folder, zip or table.
        objects: label to 0 or 1 for each image; images that are not in the table have no entry.
        columns: for a table, each file's row by the name of the head or label; empty for folders.
        column_names: the names of these columns in the table's header.
        groups: the group of each image; see `DatasetOptions.group`.
        unused: unused files, with the reasons.
        notes: remarks for the user about the interpretation of the data.
        options: for reading the data.
    """

    tree: ImageStore
    files: tuple[str, ...]
    classes: tuple[str, ...]
    splits: tuple[str, ...]
    said: bool
    name: str
    objects: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])
    columns: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    column_names: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    unused: tuple[Unused, ...] = ()
    notes: tuple[str, ...] = ()
    options: DatasetOptions = DEFAULTS

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(sorted(set(self.classes)))

    def __len__(self) -> int:
        return len(self.files)

    def chosen(self, rows: Sequence[int]) -> LabelledImages:
        """A selection of the images, in this order."""
        files, classes, splits = (tuple(each[row] for row in rows) for each in (self.files, self.classes, self.splits))
        groups = tuple(self.groups[row] for row in rows) if self.groups else ()
        return replace(self, files=files, classes=classes, splits=splits, groups=groups)

    def of_split(self, split: str) -> LabelledImages:
        """The images of one split; empty: all images.

        Raises:
            DataRefused: the split has no images.
        """
        if not split:
            return self
        rows = [row for row, each in enumerate(self.splits) if each == split_name(split)]
        if not rows:
            raise DataRefused(f"{self.tree.path}: no split '{split}'; its splits are {', '.join(sorted(set(self.splits)))}")
        return self.chosen(rows)

    def with_range(self, value_range: tuple[float, float] | None) -> LabelledImages:
        """The same images; those of more than 8 bits are read with this range unless the data set has one of its own."""
        if value_range is None or self.options.value_range is not None:
            return self
        return replace(self, options=msgspec.structs.replace(self.options, value_range=value_range))

    def decode(self, file: str, encoded: bytes, groups: tuple[BandGroup, ...]) -> NDArray[np.uint8] | None:
        """Decode one image with the value range of the data set: uint8 `[H, W, bands]`; None if it is not an image.

        A published set of measured bands (`MEASURED`) is read by its layout.

        Raises:
            DataRefused: it has more than 8 bits, and neither a range nor names of bands are given.
        """
        if (row := measured_file(self.tree.path)) is not None:
            return decode(encoded, groups, row.layout, row.metres_per_pixel)
        return decode_with_range(f"{self.tree.path}: {file}", encoded, groups, self.options.value_range)
