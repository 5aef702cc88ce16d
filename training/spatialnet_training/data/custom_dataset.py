"""A user's own labelled images as training data: a folder or zip with `<class>/<image>`, or a CSV of paths and columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from spatialnet_edge.core.errors import DataRefused
from spatialnet_edge.core.spec import RGB, BandGroup, Head, Multiclass, Multilabel, Regression
from spatialnet_training.data.dataset_options import DEFAULTS, DatasetOptions
from spatialnet_training.data.datasets import TrainingData
from spatialnet_training.data.label_checks import check_heads, check_labels, check_splits
from spatialnet_training.data.labelled_dataset import TRAIN, VAL, LabelledImages, head_name, open_labelled
from spatialnet_training.data.samples import Collector, Samples, shrunk
from spatialnet_training.data.splits import calibration_quota, hold_out
from spatialnet_training.data.tables import is_integer, kind_of
from spatialnet_training.losses.multitask import UNLABELLED, partly_labelled_rows

GRANT = "as given by the owner of the images"
"""Licence text for weights that were trained on a user's own images."""

HOLDOUT = "holdout"


@dataclass(frozen=True, slots=True)
class Row:
    """One image and its labels, before decoding.

    Attributes:
        labels: head name to a label for `Collector.add`.
        split: `train`, `val` or `test`.
    """

    file: str
    labels: dict[str, object]
    split: str
    group: str


def load_own(
    path: Path, longest: int, groups: tuple[BandGroup, ...] = (RGB,), options: DatasetOptions = DEFAULTS
) -> TrainingData:
    """Load a user's images and labels. Files that cannot be decoded are listed in `TrainingData.broken`.

    Args:
        path: a folder, a zip, a table, or a run's `dataset.json`, which has its own options.
        longest: largest side of the images in memory, in pixels.

    Raises:
        DataRefused: no labelled images, a single class, an unexpected or probably misspelt label, a class without training
            images, an image of more than 8 bits without a range, or too few images for a hold-out.
        UsageError: an option does not match the data.
    """
    images = open_labelled(path, options=options)
    check_splits(images)
    heads, rows = from_columns(path, images) if images.columns else from_folders(path, images)
    check_heads(path, heads)
    for head in heads:
        if isinstance(head, Multiclass):
            check_labels(path, head.name, counts_by_split(rows, head.name), images.options.labels)
    parts = load_parts(images, rows, heads, longest, groups)
    train, holdout, val = (parts[part].samples() for part in (TRAIN, HOLDOUT, VAL))
    if not len(train) or not len(holdout):
        distinct = len({row.group for row in rows if row.split == TRAIN})
        grouped = f", which are {distinct} groups, too large to hold one out" if distinct < len(train) else ""
        raise DataRefused(
            f"{path}: {len(rows)} images leave {len(train)} for training and {len(holdout)} for calibration{grouped}; "
            f"give {'smaller groups with --group, or --group none' if grouped else 'at least a few dozen'}"
        )
    unseen = Counter(row.split for row in rows if row.split != TRAIN)
    return TrainingData(
        heads,
        train,
        whole(holdout),
        GRANT,
        (f"{path.name} (yours)",),
        unseen,
        val=whole(val) if len(val) else None,
        own=images,
        own_path=path,
    )


def counts_by_split(rows: Sequence[Row], head: str) -> dict[str, Counter[str]]:
    """Split to the number of images per label of a head."""
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        if head in row.labels:
            counts.setdefault(row.split, Counter())[str(row.labels[head])] += 1
    return counts


def load_parts(
    images: LabelledImages, rows: Sequence[Row], heads: Sequence[Head], longest: int, groups: tuple[BandGroup, ...]
) -> dict[str, Collector]:
    """Decode the images for training, calibration and validation."""
    parts = {part: Collector(heads, (images.name,)) for part in (TRAIN, HOLDOUT, VAL)}
    held_out = set_aside(rows, heads)
    chosen = [(row, HOLDOUT if row.file in held_out else row.split) for row in rows if row.split in (TRAIN, VAL)]
    for (row, part), encoded in zip(chosen, images.tree.read([row.file for row, _ in chosen]), strict=True):
        image = images.decode(row.file, encoded, groups)
        if image is None:
            parts[part].broken.append(f"{images.tree.path}: {row.file}")
        else:
            parts[part].add(shrunk(image, longest), row.labels, name=row.file)
    return parts


def set_aside(rows: Sequence[Row], heads: Sequence[Head]) -> frozenset[str]:
    """Choose the training images for calibration: some of each class, in complete groups, always the same ones."""
    first = next((head.name for head in heads if isinstance(head, Multiclass)), None)
    training = [row for row in rows if row.split == TRAIN]
    kinds = [str(row.labels.get(first, "")) if first else "" for row in training]
    held = hold_out(kinds, [row.group for row in training], calibration_quota(kinds))
    return frozenset(training[index].file for index in held)


def from_folders(path: Path, images: LabelledImages) -> tuple[tuple[Head, ...], list[Row]]:
    """One head `land_use`, with the class folders as labels."""
    names = images.class_names
    if len(names) < 2:
        raise DataRefused(f"{path}: one class, '{''.join(names)}'; a classifier needs at least two class folders")
    each = zip(images.files, images.classes, images.splits, images.groups, strict=True)
    rows = [Row(file, {"land_use": kind}, split, group) for file, kind, split, group in each]
    return (Multiclass(name="land_use", labels=names),), rows


def from_columns(path: Path, images: LabelledImages) -> tuple[tuple[Head, ...], list[Row]]:
    """One head per column of words, integers or decimal numbers, and one head for all columns of 0 and 1.

    A column of words or integers is a categorical head. Columns of only 0 and 1 together are the labels of one head, `objects`.
    A column of other numbers, or one in `options.regression`, is a quantity. An empty cell is an unknown label. The other
    labels of its row are used for training, but not for calibration or evaluation.
    """
    columns = {name: [images.columns[file][head_name(name)] for file in images.files] for name in images.column_names}
    kinds = {name: kind_of(path, name, cells, name in images.options.regression) for name, cells in columns.items()}
    binary = [name for name, kind in kinds.items() if kind == "binary"]
    heads: list[Head] = []
    for name, kind in kinds.items():
        known = [cell for cell in columns[name] if cell]
        if kind == "words":
            heads.append(Multiclass(name=head_name(name), labels=in_order(set(known))))
        elif kind == "numbers":
            values = [float(cell) for cell in known]
            heads.append(Regression(name=head_name(name), unit=name, low=min(0.0, *values), high=max(values)))
    if binary:
        heads.append(Multilabel(name="objects", labels=tuple(binary), thresholds=(0.5,) * len(binary)))
    if not heads:
        raise DataRefused(f"{path}: has no label column besides 'path' and 'split'")
    rows: list[Row] = []
    for file, split, group in zip(images.files, images.splits, images.groups, strict=True):
        cells = {name: images.columns[file][head_name(name)] for name in kinds}
        labels: dict[str, object] = {head_name(n): cells[n] for n, kind in kinds.items() if kind != "binary" and cells[n]}
        if present := {name: float(cells[name]) for name in binary if cells[name]}:
            labels["objects"] = present
        rows.append(Row(file, labels, split, group))
    return tuple(heads), rows


def in_order(labels: set[str]) -> tuple[str, ...]:
    """Sort labels numerically if they are integers, otherwise alphabetically."""
    return tuple(sorted(labels, key=int) if all(map(is_integer, labels)) else sorted(labels))


def whole(samples: Samples) -> Samples:
    """Remove partial labels of a head: they cannot calibrate it."""
    targets = {name: values.copy() for name, values in samples.targets.items()}
    for values in targets.values():
        values[partly_labelled_rows(torch.from_numpy(values)).numpy()] = UNLABELLED
    return replace(samples, targets=targets)
