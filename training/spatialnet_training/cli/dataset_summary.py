"""Summary of the data set before training: classes, splits, unused files, and possible mistakes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from spatialnet_edge.core.spec import Head, Multiclass, Regression
from spatialnet_training.data.datasets import TrainingData
from spatialnet_training.data.file_tree import Unused
from spatialnet_training.data.samples import Samples
from spatialnet_training.studies.near_duplicates import near_copies

ORIENTED = re.compile(
    r"(^|[\W_])(left|right|up|down|upright|north|south|east|west|top|bottom|horizon|oblique|clockwise)($|[\W_])"
)
"""Words in class names that refer to a direction."""

MOST_CLASSES_SHOWN = 60
MOST_COMPARED = 5000
"""Largest number of images for the check for near copies, which takes a millisecond each; for more, use the command
`duplicates`."""

IMBALANCE = 5
"""Ratio of class sizes from which a warning is printed."""


def describe(images: TrainingData, console: Console, flips: str, data: Path | None) -> None:
    """Print the number of images, and for a user's own data how they were interpreted.

    Args:
        flips: see `TrainConfig.flips`.
        data: the user's folder, zip or table; None: published data sets.
    """
    console.print(f"training on {', '.join(images.summary)}; {len(images.holdout)} held out for calibration", highlight=False)
    if data is None or images.own is None:
        return
    console.print(f"heads: {', '.join(map(in_words, images.heads))}", highlight=False)
    for head in images.heads:
        if isinstance(head, Multiclass):
            console.print(class_table(head, images))
            warn_of_imbalance(head, images.train, console)
            warn_of_directions(head, flips, console)
    for split, count in images.unseen.items():
        how = f"; spatialnet-edge evaluate BUNDLE {shlex.quote(str(data))} --split {split}" if images.own.said else ""
        console.print(f"for evaluation: {count} images of {split}{how}", highlight=False, soft_wrap=True)
    warn_of_near_copies(images, console)
    for note in images.own.notes:
        console.print(f"note: {note}", style="yellow", highlight=False)
    for line in unused_in_words(images.own.unused):
        console.print(line, style="yellow", highlight=False)
    for name in images.broken:
        console.print(f"skipped {name}: not an image", style="yellow", highlight=False)


def class_table(head: Multiclass, images: TrainingData) -> Table:
    """Table of the images per class for training, calibration and validation."""
    table = Table(head.name, "train", "calibrate", "validate")
    parts = [images.train, images.holdout, images.val]
    counts = [None if part is None else counts_of(head, part) for part in parts]
    for index, label in enumerate(head.labels[:MOST_CLASSES_SHOWN]):
        table.add_row(label, *("—" if each is None else str(each[index]) for each in counts))
    if head.width > MOST_CLASSES_SHOWN:
        table.add_row(f"… {head.width - MOST_CLASSES_SHOWN} more")
    return table


def counts_of(head: Multiclass, samples: Samples) -> list[int]:
    values = samples.targets[head.name].astype(np.int64)
    return np.bincount(values[values >= 0], minlength=head.width).tolist()


def warn_of_imbalance(head: Multiclass, train: Samples, console: Console) -> None:
    counts = counts_of(head, train)
    rarest, commonest = int(np.argmin(counts)), int(np.argmax(counts))
    if counts[commonest] > IMBALANCE * max(1, counts[rarest]):
        console.print(
            f"imbalance in {head.name}: {counts[commonest]} images of {head.labels[commonest]}, {counts[rarest]} of "
            f"{head.labels[rarest]}; the rare class will be missed more often; --balance auto can help",
            style="yellow",
            highlight=False,
        )


def warn_of_near_copies(images: TrainingData, console: Console) -> None:
    """Warn of validation images that nearly duplicate training images, mostly frames of one flight: they make the accuracy too
    high."""
    if images.val is None or len(images.train) + len(images.val) > MOST_COMPARED:
        return
    if copies := near_copies(images.train, images.val):
        console.print(
            f"near copies: {len(copies)} of {len(images.val)} validation images nearly duplicate training images, such as "
            f"{copies[0].val} and {copies[0].train}, so their accuracy is too high; keep frames of one flight or site "
            "together with --group; spatialnet-edge duplicates lists them",
            style="yellow",
            soft_wrap=True,
        )


def warn_of_directions(head: Multiclass, flips: str, console: Console) -> None:
    """Warn of class names with a direction, because training rotates and mirrors images."""
    named = [label for label in head.labels if ORIENTED.search(label.casefold())]
    if flips != "none" and named:
        console.print(
            f"hint: {', '.join(named[:3])} may depend on the image orientation, but training uses images in "
            f"{'all eight orientations' if flips == 'all' else 'mirror image'}; if so, give --flips none",
            style="yellow",
            highlight=False,
        )


def unused_in_words(unused: Sequence[Unused]) -> list[str]:
    """One line per reason, with the number of files and the first ones."""
    reasons: dict[str, list[str]] = {}
    for each in unused:
        reasons.setdefault(each.reason, []).append(each.name)
    return [
        f"not used: {len(names)} {'file' if len(names) == 1 else 'files'} ({reason}): {', '.join(names[:3])}"
        f"{' …' if len(names) > 3 else ''}"
        for reason, names in reasons.items()
    ]


def in_words(head: Head) -> str:
    """Describe a head, so that a misinterpreted column is noticed before training."""
    if isinstance(head, Regression):
        return f"{head.name} (a quantity, {head.low:g} to {head.high:g})"
    return f"{head.name} ({head.width} {'classes' if isinstance(head, Multiclass) else 'labels'})"
