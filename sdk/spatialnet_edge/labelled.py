"""Labelled images on disk: a folder or a zip in which the folder above an image names its class, or a table.

    DIR/<class>/<name>.jpg      or      DIR/images/<class>/<name>.jpg

Beside them may stand `splits.csv` (`path,split`) and `objects.csv` (`path` and one 0/1 column for each label). A table is a CSV
with a column `path`, relative to it, perhaps `split`, and one column for each head, or for each label of a head of many labels.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.errors import DataRefused
from spatialnet_edge.sources import IMAGE_SUFFIXES
from spatialnet_edge.spec import ModelSpec, Multiclass, Multilabel, Task

SPLITS, OBJECTS = "splits.csv", "objects.csv"


@dataclass(frozen=True, slots=True)
class Tree:
    """The files of a zip or a directory, by their path relative to its top."""

    path: Path

    def names(self) -> list[str]:
        """Every file, sorted.

        Raises:
            DataRefused: no such path, or not a zip.
        """
        if self.path.is_dir():
            return sorted(p.relative_to(self.path).as_posix() for p in self.path.rglob("*") if p.is_file())
        try:
            with zipfile.ZipFile(self.path) as archive:
                return sorted(name for name in archive.namelist() if not name.endswith("/"))
        except (OSError, zipfile.BadZipFile) as error:
            raise DataRefused(
                f"{self.path}: no such folder, and not a zip that can be read ({error}); "
                f"expected <class>/<image> below a folder or in a zip"
            ) from error

    def read(self, names: Sequence[str]) -> Iterator[bytes]:
        """The content of each file, in the order asked for."""
        if self.path.is_dir():
            yield from ((self.path / name).read_bytes() for name in names)
            return
        with zipfile.ZipFile(self.path) as archive:
            yield from (archive.read(name) for name in names)

    def table(self, name: str) -> list[dict[str, str]]:
        """The rows of a CSV file."""
        return list(csv.DictReader(io.StringIO(next(self.read([name])).decode("utf-8-sig"))))


def class_of(path: str) -> str:
    """The folder directly above the file names the class; empty when there is none."""
    parts = path.rsplit("/", 2)
    return parts[-2] if len(parts) > 1 else ""


@dataclass(frozen=True, slots=True)
class LabelledImages:
    """Which images there are, and what is known of each.

    Attributes:
        files: path of each image in the tree.
        classes: the class of each image.
        objects: label to 0 or 1 for each image; rows of images that the table does not name are missing.
        has_splits: whether `splits.csv` stands beside the images.
        columns: of a table, each file's row by the name of the head or label; empty for folders.
    """

    tree: Tree
    files: tuple[str, ...]
    classes: tuple[str, ...]
    objects: dict[str, dict[str, float]]
    has_splits: bool
    columns: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(sorted(set(self.classes)))

    def __len__(self) -> int:
        return len(self.files)


def open_labelled(path: Path, split: str = "") -> LabelledImages:
    """List labelled images without decoding them.

    Args:
        split: keep the images that `splits.csv` puts into this split; empty for all.

    Raises:
        DataRefused: no images, no class folders, or no such split.
    """
    if path.suffix.lower() == ".csv":
        return open_table(path, split)
    tree = Tree(path)
    names = tree.names()
    files = [name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES]
    if split:
        if SPLITS not in names:
            raise DataRefused(f"{path}: has no {SPLITS}; leave out --split to use every image")
        member = {row["path"]: row["split"] for row in tree.table(SPLITS)}
        if split not in (known := sorted(set(member.values()))):
            raise DataRefused(f"{path}: no split '{split}'; {SPLITS} has {', '.join(known)}")
        files = [name for name in files if member.get(name) == split]
    classed = [(name, class_of(name)) for name in files]
    classed = [(name, kind) for name, kind in classed if kind and kind != "images"]
    if not classed:
        raise DataRefused(f"{path}: no labelled image found; expected <class>/<image> or images/<class>/<image>")
    objects = {}
    if OBJECTS in names:
        objects = {
            row["path"]: {label: float(value) for label, value in row.items() if label != "path"}
            for row in tree.table(OBJECTS)
        }
    files_, classes = zip(*classed, strict=True)
    return LabelledImages(tree, files_, classes, objects, SPLITS in names)


def open_table(path: Path, split: str = "") -> LabelledImages:
    """List the images of a table.

    Raises:
        DataRefused: no table, no column `path`, a file that is not there, or no image in the split.
    """
    rows = read_table(path)
    if split:
        rows = [row for row in rows if row.get("split") == split]
    if not rows:
        raise DataRefused(f"{path}: no row" + (f" of split '{split}'" if split else " below the header"))
    columns = {row["path"]: {head_name(name): cell for name, cell in row.items() if name != "path"} for row in rows}
    files = tuple(columns)
    return LabelledImages(Tree(path.parent), files, ("",) * len(files), {}, "split" in rows[0], columns)


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV with a column `path`, all of whose files are there.

    Raises:
        DataRefused: it cannot be read, has no such column or no rows, or names a file that is not there.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = [{name: cell or "" for name, cell in row.items() if name} for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError) as error:
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


@dataclass(frozen=True, slots=True)
class Truth:
    """What is right for one head: int64 `[N]` of label indices, or float32 `[N, labels]` of 0 and 1.

    Attributes:
        rows: which of the labelled images these are.
    """

    task: str
    rows: NDArray[np.int64]
    values: NDArray[np.int64] | NDArray[np.float32]


def truths(images: LabelledImages, spec: ModelSpec, task: str = "") -> list[Truth]:
    """The heads of a model that these labels can judge.

    A multiclass head fits when the class folders are among its labels, a multilabel head when `objects.csv` has its labels; any
    head when a table has its column, or its labels' columns.

    Args:
        task: this head alone; empty for every head that fits.

    Raises:
        DataRefused: the head asked for does not fit, or none does; the message says what differs.
    """
    wanted = [spec.task(task)] if task else list(spec.tasks)
    found: list[Truth] = []
    reasons: list[str] = []
    for head in wanted:
        truth = from_columns(images, head) if images.columns else from_folders(images, head)
        if isinstance(truth, str):
            reasons.append(truth)
        elif isinstance(head, Multilabel) and not truth.values.any():
            reasons.append(f"'{head.name}': none of its labels is on any of these images, so there is nothing to find")
        else:
            found.append(truth)
    if not found:
        raise DataRefused(
            f"{images.tree.path}: its {len(images.class_names)} classes fit no head of {spec.name}: {'; '.join(reasons)}"
        )
    return found


def from_folders(images: LabelledImages, head: Task) -> Truth | str:
    """What class folders and `objects.csv` say of one head; else why they say nothing."""
    if isinstance(head, Multiclass):
        if unknown := [name for name in images.class_names if name not in head.labels]:
            return f"'{head.name}' has no label {', '.join(repr(name) for name in unknown[:3])}"
        index = {label: position for position, label in enumerate(head.labels)}
        values = np.array([index[kind] for kind in images.classes], np.int64)
        return Truth(head.name, np.arange(len(images), dtype=np.int64), values)
    if isinstance(head, Multilabel):
        rows = [i for i, name in enumerate(images.files) if head.labels[0] in images.objects.get(name, {})]
        if not rows or any(label not in images.objects[images.files[rows[0]]] for label in head.labels):
            return f"'{head.name}' needs {OBJECTS} with its {head.width} labels as columns"
        table = [[images.objects[images.files[i]][label] for label in head.labels] for i in rows]
        return Truth(head.name, np.array(rows, np.int64), np.array(table, np.float32))
    return f"'{head.name}' is a regression, which class folders cannot judge"


def from_columns(images: LabelledImages, head: Task) -> Truth | str:
    """What a table says of one head, from the rows in which every cell that it needs is filled; else why it says nothing."""
    names = [head_name(label) for label in head.labels] if isinstance(head, Multilabel) else [head.name]
    if absent := [name for name in names if name not in images.columns[images.files[0]]]:
        return f"'{head.name}' needs a column '{absent[0]}'"
    rows = [i for i, file in enumerate(images.files) if all(images.columns[file][name] for name in names)]
    cells = [[images.columns[images.files[i]][name] for name in names] for i in rows]
    if not rows:
        return f"'{head.name}' has no filled cell in its column"
    if isinstance(head, Multiclass):
        if unknown := sorted({cell for (cell,) in cells} - set(head.labels)):
            return f"'{head.name}' has no label {', '.join(repr(name) for name in unknown[:3])}"
        return Truth(head.name, np.array(rows, np.int64), np.array([head.labels.index(cell) for (cell,) in cells], np.int64))
    try:
        values = np.array([[float(cell) for cell in row] for row in cells], np.float32)
    except ValueError as error:
        return f"'{head.name}' needs numbers: {error}"
    return Truth(head.name, np.array(rows, np.int64), values)
