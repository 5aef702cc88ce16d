"""What is said of the images before training: classes, splits, what is not used, and what may be a mistake."""

from __future__ import annotations

import re
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
"""Words in the name of a class that speak of a direction."""

MOST_CLASSES_SHOWN = 60
MOST_COMPARED = 5000
"""With more images, near copies are looked for by the command `duplicates` alone: it takes a millisecond each."""

IMBALANCE = 5
"""A class with this many times the images of another one is worth a warning."""


def describe(images: TrainingData, console: Console, flips: str, data: Path | None) -> None:
    """Print how many images there are, and, of a user's own, how they were understood.

    Args:
        flips: see `TrainConfig.flips`.
        data: the user's folder, zip or table; None for published data sets.
    """
    console.print(f"training on {', '.join(images.summary)}; {len(images.holdout)} held out to calibrate", highlight=False)
    if data is None or images.own is None:
        return
    console.print(f"to learn: {', '.join(map(in_words, images.heads))}", highlight=False)
    for head in images.heads:
        if isinstance(head, Multiclass):
            console.print(class_table(head, images))
            warn_of_imbalance(head, images.train, console)
            warn_of_directions(head, flips, console)
    for split, count in images.unseen.items():
        how = f"; spatialnet-edge evaluate BUNDLE {data} --split {split}" if images.own.said else ""
        console.print(f"left to judge by: {count} images of {split}{how}", highlight=False, soft_wrap=True)
    warn_of_near_copies(images, console)
    for note in images.own.notes:
        console.print(f"note: {note}", style="yellow", highlight=False)
    for line in unused_in_words(images.own.unused):
        console.print(line, style="yellow", highlight=False)
    for name in images.broken:
        console.print(f"skipped {name}: not an image", style="yellow", highlight=False)


def class_table(head: Multiclass, images: TrainingData) -> Table:
    """How many images of each class train, calibrate and validate."""
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
            f"{head.labels[rarest]}; expect the rare class to be missed more often, or give --balance auto",
            style="yellow",
            highlight=False,
        )


def warn_of_near_copies(images: TrainingData, console: Console) -> None:
    """Validation images that nearly stand in training make every figure too good: frames of one flight, mostly."""
    if images.val is None or len(images.train) + len(images.val) > MOST_COMPARED:
        return
    if copies := near_copies(images.train, images.val):
        console.print(
            f"near copies: {len(copies)} of {len(images.val)} validation images nearly stand among the training images, such as "
            f"{copies[0].val} and {copies[0].train}, so figures on them are too good; keep frames of one flight or site together "
            f"with --group; spatialnet-edge duplicates lists them",
            style="yellow",
            soft_wrap=True,
        )


def warn_of_directions(head: Multiclass, flips: str, console: Console) -> None:
    """Names that speak of a direction cannot be learnt from images that are turned."""
    named = [label for label in head.labels if ORIENTED.search(label.casefold())]
    if flips != "none" and named:
        console.print(
            f"hint: {', '.join(named[:3])} may depend on which way is up or left, and training shows images in "
            f"{'all eight orientations' if flips == 'all' else 'mirror image'}; then give --flips none",
            style="yellow",
            highlight=False,
        )


def unused_in_words(unused: Sequence[Unused]) -> list[str]:
    """One line for each reason, with the number of files and the first of them."""
    reasons: dict[str, list[str]] = {}
    for each in unused:
        reasons.setdefault(each.reason, []).append(each.name)
    return [
        f"not used: {len(names)} {'file' if len(names) == 1 else 'files'} ({reason}): {', '.join(names[:3])}"
        f"{' …' if len(names) > 3 else ''}"
        for reason, names in reasons.items()
    ]


def in_words(head: Head) -> str:
    """What a head answers, so that a column that was taken for something else is seen before training."""
    if isinstance(head, Regression):
        return f"{head.name} (a quantity, {head.low:g} to {head.high:g})"
    return f"{head.name} ({head.width} {'classes' if isinstance(head, Multiclass) else 'labels'})"
