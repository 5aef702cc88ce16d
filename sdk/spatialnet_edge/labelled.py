"""Labelled images on disk: a folder or a zip in which the folder above an image names its class.

    DIR/<class>/<name>.jpg      or      DIR/images/<class>/<name>.jpg

Beside them may stand `splits.csv` (`path,split`) and `objects.csv` (`path` and one 0/1 column for each label).
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.errors import DataRefused
from spatialnet_edge.sources import IMAGE_SUFFIXES
from spatialnet_edge.spec import ModelSpec, Multiclass, Multilabel

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
    """

    tree: Tree
    files: tuple[str, ...]
    classes: tuple[str, ...]
    objects: dict[str, dict[str, float]]
    has_splits: bool

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

    A multiclass head fits when the class folders are among its labels, a multilabel head when `objects.csv` has its labels.

    Args:
        task: this head alone; empty for every head that fits.

    Raises:
        DataRefused: the head asked for does not fit, or none does; the message says what differs.
    """
    wanted = [spec.task(task)] if task else list(spec.tasks)
    found: list[Truth] = []
    reasons: list[str] = []
    for head in wanted:
        if isinstance(head, Multiclass):
            unknown = [name for name in images.class_names if name not in head.labels]
            if unknown:
                reasons.append(f"'{head.name}' has no label {', '.join(repr(name) for name in unknown[:3])}")
                continue
            index = {label: position for position, label in enumerate(head.labels)}
            values = np.array([index[kind] for kind in images.classes], np.int64)
            found.append(Truth(head.name, np.arange(len(images), dtype=np.int64), values))
        elif isinstance(head, Multilabel):
            rows = [i for i, name in enumerate(images.files) if head.labels[0] in images.objects.get(name, {})]
            if not rows or any(label not in images.objects[images.files[rows[0]]] for label in head.labels):
                reasons.append(f"'{head.name}' needs {OBJECTS} with its {head.width} labels as columns")
                continue
            table = [[images.objects[images.files[i]][label] for label in head.labels] for i in rows]
            found.append(Truth(head.name, np.array(rows, np.int64), np.array(table, np.float32)))
        else:
            reasons.append(f"'{head.name}' is a regression, which class folders cannot judge")
    if not found:
        raise DataRefused(
            f"{images.tree.path}: its {len(images.class_names)} classes fit no head of {spec.name}: {'; '.join(reasons)}"
        )
    return found
