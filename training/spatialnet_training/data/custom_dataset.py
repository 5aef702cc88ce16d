"""A user's own labelled images: a folder or zip with `<class>/<image>`, or a CSV of paths and columns."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path

import msgspec
import torch

from spatialnet_edge.core.errors import DataRefused
from spatialnet_edge.core.spec import RGB, BandGroup, Head, InputSpec, ModelSpec, Multiclass, Multilabel, Regression
from spatialnet_training.data.datasets import TrainingData
from spatialnet_training.data.labelled_dataset import (
    TEST,
    TRAIN,
    VAL,
    LabelledImages,
    head_name,
    open_folders,
    open_table,
    read_table,
)
from spatialnet_training.data.samples import Collector, Samples, load_image, set_aside
from spatialnet_training.losses.multitask import UNLABELLED, partly_labelled_rows

LOOKS_LIKE = 0.8
"""Two names this much alike (difflib's ratio) may be one name and a slip of the keyboard …"""

RARE = 0.05
"""… when one of them has less than this share of the other's images."""

GRANT = "as the owner of its images says"
"""The licence of weights that were trained on them, as far as we can know."""


@dataclass(frozen=True, slots=True)
class Row:
    """One image before it is read.

    Attributes:
        labels: head name to what `Collector.add` takes.
        split: `train`, `val` or `test`.
    """

    file: str
    labels: dict[str, object]
    split: str


def load_own(path: Path, longest: int, groups: tuple[BandGroup, ...] = (RGB,), labels: Sequence[str] = ()) -> TrainingData:
    """Read a user's images and labels; files that are no images are named in `TrainingData.broken`.

    Args:
        labels: the only class names to be accepted; empty to accept what is there, unless it looks like a typing error.

    Raises:
        DataRefused: no labelled images, a single class, a label that is not expected or looks mistyped, or too few images to hold
            any out.
    """
    table = read_table(path) if path.suffix.lower() == ".csv" else []
    images = open_table(path, table) if table else open_folders(path)
    check_splits(images)
    heads, rows = from_columns(path, images, table) if table else from_folders(path, images)
    check_heads(path, heads)
    for head in heads:
        if isinstance(head, Multiclass):
            counts = Counter(str(row.labels[head.name]) for row in rows if head.name in row.labels)
            check_labels(path, head.name, counts, labels)
    parts = {part: Collector(heads, (path.stem,)) for part in ("train", "holdout")}
    training = [row for row in rows if row.split == TRAIN]
    held_out = set_aside([row.file for row in training])
    chosen = [(row, "holdout" if row.file in held_out else "train") for row in training]
    for (row, part), encoded in zip(chosen, images.tree.read([row.file for row, _ in chosen]), strict=True):
        image = load_image(encoded, longest, groups)
        if image is None:
            parts[part].broken.append(f"{path}: {row.file}")
        else:
            parts[part].add(image, row.labels)
    train, holdout = (parts[part].samples() for part in ("train", "holdout"))
    if not len(train) or not len(holdout):
        raise DataRefused(
            f"{path}: {len(rows)} images leave {len(train)} to train and {len(holdout)} to calibrate on; "
            f"give at least a few dozen"
        )
    unseen = Counter(row.split for row in rows if row.split != TRAIN)
    return TrainingData(heads, train, whole(holdout), GRANT, (f"{path.name} (yours)",), unseen)


def from_folders(path: Path, images: LabelledImages) -> tuple[tuple[Head, ...], list[Row]]:
    """The folder above an image names its class; there is one head, `land_use`."""
    names = images.class_names
    if len(names) < 2:
        raise DataRefused(f"{path}: one class, '{''.join(names)}'; a classifier needs at least two class folders")
    each = zip(images.files, images.classes, images.splits, strict=True)
    return (Multiclass(name="land_use", labels=names),), [Row(file, {"land_use": kind}, split) for file, kind, split in each]


def from_columns(path: Path, images: LabelledImages, table: Sequence[Mapping[str, str]]) -> tuple[tuple[Head, ...], list[Row]]:
    """A table with a column `path` (relative to the table), perhaps `split`, and one column for each thing to learn.

    A column of words is a categorical head. Columns of only 0 and 1 together are the labels of one head, `objects`. Any other
    column of numbers is a quantity. An empty cell is an unknown label; the other labels of its row teach all the same, but neither
    calibrate nor judge.
    """
    columns = {name: [row[name] for row in table] for name in table[0] if name not in ("path", "split")}
    kinds = {name: kind_of(path, name, cells) for name, cells in columns.items()}
    binary = [name for name, kind in kinds.items() if kind == "binary"]
    heads: list[Head] = []
    for name, kind in kinds.items():
        known = [cell for cell in columns[name] if cell]
        if kind == "words":
            heads.append(Multiclass(name=head_name(name), labels=tuple(sorted(set(known)))))
        elif kind == "numbers":
            values = [float(cell) for cell in known]
            heads.append(Regression(name=head_name(name), unit=name, low=min(0.0, *values), high=max(values)))
    if binary:
        heads.append(Multilabel(name="objects", labels=tuple(binary), thresholds=(0.5,) * len(binary)))
    if not heads:
        raise DataRefused(f"{path}: has no column of labels beside 'path' and 'split'")
    split = dict(zip(images.files, images.splits, strict=True))
    rows: list[Row] = []
    for row in table:
        labels: dict[str, object] = {head_name(n): row[n] for n, kind in kinds.items() if kind != "binary" and row[n]}
        if present := {name: float(row[name]) for name in binary if row[name]}:
            labels["objects"] = present
        rows.append(Row(row["path"], labels, split[row["path"]]))
    return tuple(heads), rows


def whole(samples: Samples) -> Samples:
    """The images without the labels of a head that are known in part: they cannot calibrate it."""
    targets = {name: values.copy() for name, values in samples.targets.items()}
    for values in targets.values():
        values[partly_labelled_rows(torch.from_numpy(values)).numpy()] = UNLABELLED
    return replace(samples, targets=targets)


def kind_of(path: Path, name: str, cells: Sequence[str]) -> str:
    """`words`, `binary` or `numbers`.

    Raises:
        DataRefused: nothing is known in this column, or words stand among numbers.
    """
    known = [cell for cell in cells if cell]
    if len(set(known)) < 2:
        raise DataRefused(f"{path}: column '{name}' says the same everywhere; remove it, or give images that differ in it")
    numbers = [cell for cell in known if is_number(cell)]
    if not numbers:
        return "words"
    if len(numbers) < len(known):
        word = next(cell for cell in known if not is_number(cell))
        raise DataRefused(f"{path}: column '{name}' has numbers and '{word}'; give one or the other")
    return "binary" if {float(cell) for cell in known} == {0.0, 1.0} else "numbers"


def is_number(cell: str) -> bool:
    try:
        return isfinite(float(cell))
    except ValueError:
        return False


def check_splits(images: LabelledImages) -> None:
    """Find a split that would be left out without a word.

    Raises:
        DataRefused: there is one that is not of training, validation or test.
    """
    if unknown := sorted(set(images.splits) - {TRAIN, VAL, TEST}):
        count = images.splits.count(unknown[0])
        raise DataRefused(f"{images.tree.path}: {count} images are of the split '{unknown[0]}'; expected train, val or test")


def check_heads(path: Path, heads: Sequence[Head]) -> None:
    """Find what no manifest can hold, before hours are spent on it.

    Raises:
        DataRefused: a head or a label has a name that cannot be, two heads have the same, or a quantity has no range.
    """
    try:
        spec = ModelSpec(name="own", input=InputSpec(height=16, width=16, groups=(RGB,)), heads=tuple(heads))
        msgspec.convert(msgspec.to_builtins(spec), ModelSpec)
    except ValueError as error:
        raise DataRefused(
            f"{path}: its columns cannot be heads: {error}; a column is named with letters a to z, digits and underscores, "
            f"beginning with a letter; a label has at most 80 characters"
        ) from error


def check_labels(path: Path, head: str, counts: Counter[str], allowed: Sequence[str] = ()) -> None:
    """Find labels that nobody meant, before hours are spent on them.

    Raises:
        DataRefused: a label is not among those allowed, or is rare and nearly spelt as a common one.
    """
    if allowed:
        if unknown := sorted(set(counts) - set(allowed)):
            raise DataRefused(
                f"{path}: '{head}' has {counts[unknown[0]]} images of '{unknown[0]}', which --labels does not name"
            )
        return
    for name, count in counts.items():
        others = [other for other in counts if other != name and count < RARE * counts[other]]
        alike = [o for o in others if difflib.SequenceMatcher(None, name.casefold(), o.casefold()).ratio() >= LOOKS_LIKE]
        if alike:
            raise DataRefused(
                f"{path}: '{head}' has {count} images of '{name}' and {counts[alike[0]]} of '{alike[0]}'; if that is a typing "
                f"error, mend it; if not, name every label with --labels"
            )
