"""What is said of the images before training: classes, splits, what is not used, and what may be a mistake."""

from __future__ import annotations

import numpy as np
from rich.console import Console

from spatialnet_edge.core.spec import Head, Multiclass, Regression
from spatialnet_training.data.datasets import TrainingData


def describe(images: TrainingData, console: Console, own: bool) -> None:
    """How many images there are, and, of a user's own, what is learnt of them and how unevenly the classes are filled."""
    console.print(f"training on {', '.join(images.summary)}; {len(images.holdout)} held out to calibrate", highlight=False)
    if not own:
        return
    console.print(f"to learn: {', '.join(map(in_words, images.heads))}", highlight=False)
    for split, count in images.unseen.items():
        console.print(
            f"left to judge by: {count} images; spatialnet-edge evaluate BUNDLE DATA --split {split}", highlight=False
        )
    for head in images.heads:
        if not isinstance(head, Multiclass):
            continue
        values = images.train.targets[head.name].astype(np.int64)
        counts = np.bincount(values[values >= 0], minlength=head.width)
        rarest, commonest = int(counts.argmin()), int(counts.argmax())
        if counts[commonest] > 5 * max(1, counts[rarest]):
            console.print(
                f"imbalance in {head.name}: {counts[commonest]} images of {head.labels[commonest]}, {counts[rarest]} of "
                f"{head.labels[rarest]}; expect the rare class to be missed more often",
                style="yellow",
                highlight=False,
            )


def in_words(head: Head) -> str:
    """What a head answers, so that a column that was taken for something else is seen before training."""
    if isinstance(head, Regression):
        return f"{head.name} (a quantity, {head.low:g} to {head.high:g})"
    return f"{head.name} ({head.width} {'classes' if isinstance(head, Multiclass) else 'labels'})"
