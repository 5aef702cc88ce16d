"""Accuracy with images split by place, beside images split at random.

Aerial data sets often cut several images from one place and number them in a row. A random split puts such neighbours on both
sides, so that a model may recognise the place instead of the class. Here each class is cut into folds of consecutive names, or
of whole groups, and the same features and classifier are judged by cross-validation on both kinds of folds.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.core.errors import DataRefused
from spatialnet_training.data.groups import groups_by_pattern
from spatialnet_training.studies.intervals import Interval, over_images

FOLDS = 5
Fold = NDArray[np.int64]
"""The fold of each image: `[N]`."""
Judge = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.int64]]
"""Trains on the rows of the first argument and returns the classes of those of the second."""


@dataclass(frozen=True, slots=True)
class ByPlace:
    """Accuracy by cross-validation on two kinds of folds, and the difference, with intervals over images.

    Attributes:
        neighbours: share of images whose nearest name of the same class is in training, with random folds and by place.
    """

    images: int
    random: Interval
    place: Interval
    difference: Interval
    neighbours: tuple[float, float]


def compare(names: tuple[str, ...], classes: NDArray[np.int64], judge: Judge, group: str | None = None) -> ByPlace:
    """Judge the same images with random folds and with folds by place.

    Args:
        classes: `[N]`.
        group: regular expression; images with the same match in their path are of one place. None: consecutive names are.

    Raises:
        DataRefused: a class has fewer than `FOLDS` images.
        UsageError: `group` is no regular expression, or no path matches it.
    """
    if (least := int(np.bincount(classes, minlength=1)[np.unique(classes)].min())) < FOLDS:
        raise DataRefused(f"a class has {least} images; a comparison by place needs at least {FOLDS} of each class")
    groups = () if group is None else groups_by_pattern(names, group)
    places = grouped(groups, classes) if groups else consecutive(names, classes)
    mixed = shuffled(classes)
    right = [cross_validated(fold, classes, judge) for fold in (mixed, places)]
    return ByPlace(
        len(names),
        over_images(right[0][None], groups),
        over_images(right[1][None], groups),
        over_images(right[1][None].astype(float) - right[0][None], groups),
        (beside(mixed, names, classes), beside(places, names, classes)),
    )


def cross_validated(fold: Fold, classes: NDArray[np.int64], judge: Judge) -> NDArray[np.bool_]:
    """Whether each image gets its class from a model that was trained on the other folds: `[N]`."""
    right = np.zeros(len(fold), bool)
    for each in range(FOLDS):
        train, test = np.flatnonzero(fold != each), np.flatnonzero(fold == each)
        if len(test):
            right[test] = judge(train, test) == classes[test]
    return right


def consecutive(names: tuple[str, ...], classes: NDArray[np.int64]) -> Fold:
    """Each class in the order of its names, numbers by value, cut into `FOLDS` stretches of equal length."""
    fold = np.zeros(len(names), np.int64)
    for rows in by_class(names, classes):
        fold[rows] = np.arange(len(rows)) * FOLDS // len(rows)
    return fold


def shuffled(classes: NDArray[np.int64]) -> Fold:
    """Random folds of the same size in every class; the same in every run."""
    fold, chance = np.zeros(len(classes), np.int64), np.random.default_rng(0)
    for each in np.unique(classes):
        rows = np.flatnonzero(classes == each)
        fold[rows] = chance.permutation(np.arange(len(rows)) * FOLDS // len(rows))
    return fold


def grouped(groups: tuple[str, ...], classes: NDArray[np.int64]) -> Fold:
    """Folds of whole groups, each class as evenly as groups allow."""
    from sklearn.model_selection import StratifiedGroupKFold

    fold = np.zeros(len(classes), np.int64)
    splits = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0).split(classes, classes, groups)
    for number, (_, test) in enumerate(splits):
        fold[test] = number
    return fold


def beside(fold: Fold, names: tuple[str, ...], classes: NDArray[np.int64]) -> float:
    """Share of images with a neighbour by name, in their class, that is in another fold."""
    apart = 0
    for rows in by_class(names, classes):
        differs = fold[rows][1:] != fold[rows][:-1]
        apart += int((np.r_[differs, False] | np.r_[False, differs]).sum())
    return apart / len(fold)


def by_class(names: tuple[str, ...], classes: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The rows of each class, in the order of their names."""
    order = sorted(range(len(names)), key=lambda row: natural(names[row]))
    return [np.array([row for row in order if classes[row] == each]) for each in np.unique(classes)]


def natural(name: str) -> list[tuple[int, str]]:
    """Sort key by which `b10` follows `b9`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
