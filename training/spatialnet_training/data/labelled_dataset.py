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
from pathlib import Path

from spatialnet_edge.core.errors import DataRefused
from spatialnet_training.data.dataset_options import DEFAULTS, NO_GROUPS, DatasetOptions
from spatialnet_training.data.file_tree import Tree, Unused
from spatialnet_training.data.folder_layout import OBJECTS, SPLITS, folders_that_may_be_classes, place, rooted
from spatialnet_training.data.foreign_formats import format_of
from spatialnet_training.data.groups import groups_by_pattern, groups_of
from spatialnet_training.data.image_store import StoredImages
from spatialnet_training.data.labelled_images import LabelledImages, class_of
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
