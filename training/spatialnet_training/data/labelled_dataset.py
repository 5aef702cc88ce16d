"""Labelled images on disk: a folder or a zip in which the folder above an image names its class, or a table.

    DIR/<class>/<name>.jpg      DIR/images/<class>/<name>.jpg      DIR/train/<class>/<name>.jpg and DIR/val/<class>/<name>.jpg

Beside them may stand `splits.csv` (`path,split`) and `objects.csv` (`path` and one 0/1 column for each label). A table is a CSV
with a column `path`, relative to it, perhaps `split`, and one column for each head, or for each label of a head of many labels.

An image is of the split that `splits.csv`, the table or a folder above it says. Where nothing says it, one image in ten is for
validation, by a hash of its path, so that training and whatever judges afterwards agree on which.
"""

from __future__ import annotations

import csv
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from spatialnet_edge.core.errors import DataRefused
from spatialnet_edge.sources.registry import IMAGE_SUFFIXES
from spatialnet_training.data.file_tree import Tree

SPLITS, OBJECTS = "splits.csv", "objects.csv"

TRAIN, VAL, TEST = "train", "val", "test"
SPLIT_NAMES = {TRAIN: TRAIN, "training": TRAIN, VAL: VAL, "valid": VAL, "validation": VAL, TEST: TEST, "testing": TEST}
"""What people call the splits."""


def split_name(word: str) -> str:
    """A split as we call it; one that we do not know stays as it is."""
    return SPLIT_NAMES.get(word.casefold(), word)


def split_by_hash(path: str) -> str:
    """The split of an image of which nothing says one."""
    return VAL if zlib.crc32(path.encode()) % 10 == 5 else TRAIN


def class_of(path: str) -> str:
    """The folder directly above the file names the class; empty when there is none."""
    parts = path.rsplit("/", 2)
    return parts[-2] if len(parts) > 1 else ""


def split_folder(path: str) -> str:
    """The split that a folder above the class's own is named after; empty when none is."""
    above = PurePosixPath(path).parts[:-2]
    return next((SPLIT_NAMES[part.casefold()] for part in above if part.casefold() in SPLIT_NAMES), "")


@dataclass(frozen=True, slots=True)
class LabelledImages:
    """Which images there are, and what is known of each.

    Attributes:
        files: path of each image in the tree.
        classes: the class of each image; empty for tables.
        splits: the split of each image.
        said: whether the data says so of any of them, rather than a hash.
        name: of the set: its folder's, its zip's or its table's.
        objects: label to 0 or 1 for each image; rows of images that the table does not name are missing.
        columns: of a table, each file's row by the name of the head or label; empty for folders.
    """

    tree: Tree
    files: tuple[str, ...]
    classes: tuple[str, ...]
    splits: tuple[str, ...]
    said: bool
    name: str
    objects: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])
    columns: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(sorted(set(self.classes)))

    def __len__(self) -> int:
        return len(self.files)

    def chosen(self, rows: Sequence[int]) -> LabelledImages:
        """Some of the images, in this order."""
        files, classes, splits = (tuple(each[row] for row in rows) for each in (self.files, self.classes, self.splits))
        return replace(self, files=files, classes=classes, splits=splits)

    def of_split(self, split: str) -> LabelledImages:
        """The images of one split; all of them when it is empty.

        Raises:
            DataRefused: there are none.
        """
        if not split:
            return self
        rows = [row for row, each in enumerate(self.splits) if each == split_name(split)]
        if not rows:
            raise DataRefused(f"{self.tree.path}: no split '{split}'; its images are of {', '.join(sorted(set(self.splits)))}")
        return self.chosen(rows)


def open_labelled(path: Path, split: str = "") -> LabelledImages:
    """List labelled images without decoding them.

    Args:
        split: keep the images of this split; empty for all.

    Raises:
        DataRefused: no images, no class folders, no such split, or a table that cannot be used.
    """
    images = open_table(path, read_table(path)) if path.suffix.lower() == ".csv" else open_folders(path)
    return images.of_split(split)


def open_folders(path: Path) -> LabelledImages:
    """List the images of a folder or a zip.

    Raises:
        DataRefused: no images, no class folders, or a table beside them that cannot be used.
    """
    tree = Tree(path)
    names = tree.names()
    files = [name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES and class_of(name) not in ("", "images")]
    if not files:
        raise DataRefused(f"{path}: no labelled image found; expected <class>/<image> or images/<class>/<image>")
    classes = tuple(map(class_of, files))
    if all(kind.casefold() in SPLIT_NAMES for kind in classes):
        raise DataRefused(
            f"{path}: folders of splits without folders of classes in them; expected {classes[0]}/<class>/<image>"
        )
    if SPLITS in names:
        listed = {row["path"]: split_name(row["split"]) for row in tree.table(SPLITS, ["split"], names)}
        said = [listed.get(file, "") for file in files]
    else:
        said = [split_folder(file) for file in files]
    objects = objects_of(tree, names) if OBJECTS in names else {}
    return LabelledImages(tree, tuple(files), classes, completed(files, said), any(said), path.stem, objects)


def completed(files: Sequence[str], said: Sequence[str]) -> tuple[str, ...]:
    """Each image's split: what is said of it, else what the hash of its path says."""
    return tuple(each or split_by_hash(file) for file, each in zip(files, said, strict=True))


def objects_of(tree: Tree, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Which objects are on which image, as `objects.csv` says.

    Raises:
        DataRefused: it is no such table.
    """
    table = tree.table(OBJECTS, [], names)
    try:
        return {row["path"]: {label: float(value) for label, value in row.items() if label != "path"} for row in table}
    except (TypeError, ValueError) as error:
        raise DataRefused(f"{tree.path}: {OBJECTS} has a cell that is neither 0 nor 1: {error}") from error


def open_table(path: Path, rows: Sequence[Mapping[str, str]]) -> LabelledImages:
    """List the images of a table, whose rows `read_table` gave."""
    columns = {row["path"]: {head_name(name): cell for name, cell in row.items() if name != "path"} for row in rows}
    said = {row["path"]: split_name(row.get("split", "")) for row in rows}
    splits = completed([*said], [*said.values()])
    classes = ("",) * len(said)
    return LabelledImages(Tree(path.parent), tuple(said), classes, splits, any(said.values()), path.stem, columns=columns)


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV with a column `path`, all of whose files are there; cells without the blanks around them.

    Raises:
        DataRefused: it cannot be read, has no such column or no rows, or names a file that is not there.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = [
                {name.strip(): (cell or "").strip() for name, cell in row.items() if name} for row in csv.DictReader(file)
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataRefused(f"{path}: cannot be read as a table in UTF-8: {error}") from error
    if not table or "path" not in table[0]:
        found = ", ".join(table[0]) if table else "nothing"
        raise DataRefused(f"{path}: has {found}; expected a header with 'path' and at least one column of labels, and rows")
    if missing := [row["path"] for row in table if not (path.parent / row["path"]).is_file()]:
        raise DataRefused(f"{path}: names {len(missing)} files that are not there, the first {missing[0]}")
    return table


def head_name(column: str) -> str:
    """A column's name as a head's: lower case, underscores."""
    return "".join(c if c.isalnum() else "_" for c in column.strip().lower())
