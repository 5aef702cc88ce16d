"""Labelled images on disk: a folder or zip with class folders, a table, or the record of a training run.

    DIR/<class>/<name>.jpg      DIR/images/<class>/<name>.jpg      DIR/train/<class>/<name>.jpg and DIR/val/<class>/<name>.jpg

Optional files next to them: `splits.csv` (`path,split`) and `objects.csv` (`path` and one 0/1 column per label). A table is a
CSV with a column `path` (relative to the table), optionally `split`, and one column per head, or per label of a multilabel
head.

`splits.csv`, the table or a folder gives the split of an image. Without a split, one image in ten of each class is for
validation, chosen by a hash of its path or group, so that training and evaluation use the same images.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.core.errors import DataRefused
from spatialnet_edge.core.spec import BandGroup
from spatialnet_training.data.bands import decode
from spatialnet_training.data.dataset_options import DEFAULTS, NO_GROUPS, DatasetOptions
from spatialnet_training.data.deep_pixels import decode_with_range
from spatialnet_training.data.file_tree import Tree, Unused
from spatialnet_training.data.folder_layout import OBJECTS, SPLITS, folders_that_may_be_classes, place, rooted
from spatialnet_training.data.foreign_formats import format_of
from spatialnet_training.data.groups import groups_by_pattern, groups_of
from spatialnet_training.data.image_store import ImageStore, StoredImages
from spatialnet_training.data.measured_sets import measured_file
from spatialnet_training.data.splits import TEST, TRAIN, VAL, hold_out, split_name, val_quota
from spatialnet_training.data.table_formats import is_table, rows_of
from spatialnet_training.data.tables import (
    PATH,
    SPLIT,
    Table,
    cells_by_head,
    each_path_once,
    head_name,
    label_columns,
    read_table,
    stratum_column,
)

__all__ = [
    "OBJECTS",
    "SPLITS",
    "TEST",
    "TRAIN",
    "VAL",
    "LabelledImages",
    "Tree",
    "class_of",
    "head_name",
    "open_folders",
    "open_labelled",
    "open_table",
    "read_table",
    "split_name",
]


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


def open_labelled(path: Path, split: str = "", options: DatasetOptions = DEFAULTS) -> LabelledImages:
    """List labelled images without decoding them.

    Args:
        path: a folder, a zip, a table (CSV, Parquet, COCO's annotations), a data set of `foreign_formats`, or `dataset.json`, the
            record of a training run, which brings options of its own.
        split: keep the images of this split; empty: all.

    Raises:
        DataRefused: no images, no class folders, no such split, a table that cannot be used, or a layout in which validation
            images could be taken for training images.
        UsageError: an option does not match the data.
    """
    if (foreign := format_of(path)) is not None:
        return of_rows(path, foreign.open(path, options), options).of_split(split)
    if is_table(path):
        return open_table(path, rows_of(path), options).of_split(split)
    if path.suffix.lower() == ".json":
        from spatialnet_training.data.dataset_record import open_record

        return open_record(path).of_split(split)
    return open_folders(path, options).of_split(split)


def open_folders(path: Path, options: DatasetOptions = DEFAULTS) -> LabelledImages:
    """List the images of a folder or a zip.

    Raises:
        DataRefused: as `open_labelled`.
        UsageError: `options.group` matches no path.
    """
    tree = rooted(Tree(path))
    names, unused = tree.listed()
    placed, others = place(tree, names, options)
    unused += others
    if not placed:
        raise DataRefused(f"{path}: no labelled images found; expected <class>/<image> or images/<class>/<image>{why(unused)}")
    said: dict[str, str | None] = {each.file: each.split for each in placed}
    if SPLITS in names:
        listed = {row["path"]: split_name(row["split"]) for row in tree.table(SPLITS, ["split"], names)}
        unused += [Unused(each.file, f"not in {SPLITS}") for each in placed if each.file not in listed]
        placed = [each for each in placed if each.file in listed]
        said = {each.file: listed[each.file] for each in placed}
        if not placed:
            raise DataRefused(f"{path}: {SPLITS} lists none of its images; paths must be relative to the folder of {SPLITS}")
    files, classes = tuple(each.file for each in placed), tuple(each.kind for each in placed)
    groups = groups_of(tree, files, options.group)
    notes: list[str] = []
    if options.classes_from == "first" and (inner := folders_that_may_be_classes(placed)):
        notes.append(
            f"below each class are the folders {', '.join(inner)}; if these are the classes, give --classes-from deepest"
        )
    return LabelledImages(
        tree,
        files,
        classes,
        completed([said[file] for file in files], classes, groups),
        any(said.values()),
        path.stem,
        objects_of(tree, names) if OBJECTS in names else {},
        groups=groups,
        unused=tuple(unused),
        notes=(*notes, *notes_of_groups(files, groups)),
        options=options,
    )


def why(unused: Sequence[Unused]) -> str:
    """The most common reason for unused files, in parentheses."""
    if not unused:
        return ""
    reason, count = Counter(each.reason for each in unused).most_common(1)[0]
    return f" ({count} files are not used: {reason})"


def notes_of_groups(files: Sequence[str], groups: Sequence[str]) -> tuple[str, ...]:
    """Remarks about images that are not independent of each other."""
    count = len(set(groups))
    if count == len(files):
        return ()
    return (f"{len(files)} images are in {count} groups (--group); all images of a group are in the same split",)


def completed(said: Sequence[str | None], kinds: Sequence[str], groups: Sequence[str]) -> tuple[str, ...]:
    """Each image's split; if it is not given, one image in ten of each class is for validation."""
    rows = [row for row, each in enumerate(said) if not each]
    unsaid_kinds = [kinds[row] for row in rows]
    held = hold_out(unsaid_kinds, [groups[row] for row in rows], val_quota(unsaid_kinds))
    chosen = {row: VAL if index in held else TRAIN for index, row in enumerate(rows)}
    return tuple(each or chosen[row] for row, each in enumerate(said))


def objects_of(tree: Tree, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """The object labels of each image from `objects.csv`.

    Raises:
        DataRefused: it is not such a table.
    """
    table = tree.table(OBJECTS, [], names)
    try:
        return {row["path"]: {label: float(value) for label, value in row.items() if label != "path"} for row in table}
    except (TypeError, ValueError) as error:
        raise DataRefused(f"{tree.path}: {OBJECTS} has a cell that is neither 0 nor 1: {error}") from error


def open_table(path: Path, rows: Table, options: DatasetOptions = DEFAULTS) -> LabelledImages:
    """List the images of a table with rows from `read_table`.

    Raises:
        DataRefused: as `of_rows`.
        UsageError: an option names a column that is not there.
    """
    return of_rows(path, StoredImages(Tree(path.parent), rows, path.stem), options)


def of_rows(path: Path, stored: StoredImages, options: DatasetOptions) -> LabelledImages:
    """List the images of a table, or of another library's data set.

    Raises:
        DataRefused: there are none, an image has two rows that differ, two columns have the same name for a head, or some rows have
            no split.
        UsageError: an option names a column that is not there.
    """
    if not stored.rows:
        raise DataRefused(f"{path}: has no images")
    table, repeated = each_path_once(path, stored.rows)
    columns = label_columns(path, table, options)
    files = tuple(row[PATH] for row in table)
    stratum = stratum_column(table, columns)
    kinds = [row[stratum] if stratum else "" for row in table]
    said = [split_name(row.get(SPLIT, "")) or None for row in table]
    if any(said) and not all(said):
        first = files[said.index(None)]
        raise DataRefused(
            f"{path}: {said.count(None)} rows have no split, the first {first}, but others have one; fill the column"
        )
    groups = groups_of_rows(stored, table, files, options.group)
    return LabelledImages(
        stored.store,
        files,
        ("",) * len(files),
        completed(said, kinds, groups),
        any(said),
        stored.name,
        columns=cells_by_head(table, columns),
        column_names=tuple(columns),
        groups=groups,
        unused=(*stored.unused, *repeated),
        notes=(*stored.notes, *notes_of_groups(files, groups)),
        options=options,
    )


def groups_of_rows(stored: StoredImages, table: Table, files: Sequence[str], group: str | None) -> tuple[str, ...]:
    """The group of each row: by a column, as the data set says, or as for folders. EXIF data is only read of files.

    Raises:
        UsageError: see `groups_of`.
    """
    if group is not None and group in table[0]:
        return tuple(row[group] or row[PATH] for row in table)
    if isinstance(stored.store, Tree):
        return groups_of(stored.store, files, group)
    if group is None or group == NO_GROUPS:
        return stored.groups if stored.groups is not None and group is None else tuple(files)
    return groups_by_pattern(files, group)
