"""Images of a study: a user's own, or published data sets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from spatialnet_edge.core.errors import DataRefused, UsageError
from spatialnet_edge.core.spec import Multiclass
from spatialnet_training.data.custom_dataset import load_own
from spatialnet_training.data.dataset_registry import data_sets
from spatialnet_training.data.datasets import load_split
from spatialnet_training.data.samples import Samples
from spatialnet_training.data.taxonomy import load_taxonomy

OwnData = Annotated[Path | None, typer.Option(help="Your own images: a folder, zip or table, or the dataset.json of a run.")]
DataSets = Annotated[str, typer.Option("--data-set", help="Published data sets, comma-separated. Default: all.")]
DataRoot = Annotated[Path | None, typer.Option(help="The folder that holds the published data sets.")]


OWN_OR_PUBLISHED = "give either --data with your own images, or --data-root with the published data sets"


@dataclass(frozen=True, slots=True)
class StudySet:
    """One data set with its training and validation images.

    Attributes:
        head: the categorical head of its classes.
        train: all training images, including those held out for calibration.
    """

    name: str
    head: str
    train: Samples
    val: Samples


def study_sets(own: Path | None, root: Path | None, only: str, longest: int) -> list[StudySet]:
    """The data sets of a study.

    Args:
        only: names of published data sets, comma-separated; empty: all.
        longest: images are kept no larger than this, in pixels.

    Raises:
        UsageError: both or neither of `own` and `root`.
        DataRefused: the images cannot be used, or there are no validation images.
    """
    if (own is None) == (root is None):
        raise UsageError(OWN_OR_PUBLISHED)
    if own is not None:
        return own_sets(own, longest)
    assert root is not None
    taxonomy, found = load_taxonomy(), list[StudySet]()
    for name, path in data_sets(root, only).items():
        head = f"land_use_{name}"
        parts = {split: load_split({name: path}, taxonomy, split, longest) for split in ("train", "holdout", "val")}
        found.append(StudySet(name, head, joined([parts["train"], parts["holdout"]], head), parts["val"]))
    return found


def own_sets(path: Path, longest: int) -> list[StudySet]:
    """A user's own data set, once per categorical head.

    Raises:
        DataRefused: it has no categorical head, or no validation images.
    """
    data = load_own(path, longest)
    heads = [head for head in data.heads if isinstance(head, Multiclass)]
    if not heads:
        raise DataRefused(f"{path}: has no classes, only quantities or objects; the study compares classes")
    if data.val is None:
        raise DataRefused(
            f"{path}: no validation images; give some in a folder val/<class>, or at least five images of a class"
        )
    found: list[StudySet] = []
    for head in heads:
        name = data.train.data_sets[0] if len(heads) == 1 else f"{data.train.data_sets[0]}: {head.name}"
        train, val = labelled(joined([data.train, data.holdout], head.name), head.name), labelled(data.val, head.name)
        found.append(StudySet(name, head.name, train, val))
    return found


def labelled(samples: Samples, head: str) -> Samples:
    """The images with a label for a categorical head."""
    return samples.subset(np.flatnonzero(samples.targets[head] >= 0).tolist())  # type: ignore[operator]  # class indices


def joined(parts: list[Samples], head: str) -> Samples:
    """Join several parts of one data set, with one head's targets."""
    images = [image for part in parts for image in part.images]
    owners = np.concatenate([part.data_set for part in parts])
    names = tuple(name for part in parts for name in part.names)
    targets = {head: np.concatenate([part.targets[head] for part in parts])}
    return Samples(images, targets, owners, parts[0].data_sets, names=names)
