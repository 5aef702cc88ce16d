"""The pictures that a known head learns from and is judged by: ordinary images of every data set, and pictures without land."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import default_rng
from numpy.typing import NDArray

from spatialnet_training.data.dataset_registry import FILES
from spatialnet_training.data.datasets import load_split
from spatialnet_training.data.degradation import degrade
from spatialnet_training.data.labelled_dataset import TRAIN, open_labelled
from spatialnet_training.data.not_land import generated
from spatialnet_training.data.samples import Samples, load_image, part_of
from spatialnet_training.data.taxonomy import load_taxonomy

Image = NDArray[np.uint8]
NOT_LAND, NWPU = "not_land.zip", "nwpu_resisc45"
WIDER = {**FILES, NWPU: "nwpu_resisc45.zip"}
PER_SET, PER_KIND = 1400, 150
"""Ordinary images of a data set, and generated pictures of a kind, at most."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """What the head learns from or is judged by.

    Attributes:
        groups: of each picture, its data set or its kind.
        classes: of each, its data set and class, or its kind: pictures that are balanced and judged together.
        known: of each, 1 or 0.
        weights: of each in the loss; of the known ones and of the others they sum to the same.
    """

    images: list[Image]
    groups: list[str]
    classes: list[str]
    known: NDArray[np.float32]
    weights: NDArray[np.float32]


def ordinary(root: Path, split: str, side: int) -> dict[str, tuple[list[Image], list[int]]]:
    """Each data set's images of a split, with the index of each one's class; at most `PER_SET`, of all classes alike."""
    found: dict[str, tuple[list[Image], list[int]]] = {}
    for name, file in WIDER.items():
        samples = load_split({name: root / file}, load_taxonomy(), split, side)
        chosen = balanced(class_indices(samples, name), PER_SET if split == TRAIN else len(samples))
        classes = class_indices(samples, name)
        found[name] = ([samples.images[row] for row in chosen], [classes[row] for row in chosen])
    return found


def class_indices(samples: Samples, name: str) -> list[int]:
    """Of each image its class in its own data set, or its land use where the set has no head of its own."""
    own = samples.targets.get(f"land_use_{name}")
    return (samples.targets["land_use"] if own is None else own).astype(int).tolist()


def balanced(classes: Sequence[int], count: int) -> list[int]:
    """At most `count` rows, a further one of every class in turn."""
    seen: dict[int, int] = {}
    order: list[tuple[int, int]] = []
    for row, kind in enumerate(classes):
        seen[kind] = seen.get(kind, 0) + 1
        order.append((seen[kind], row))
    return [row for _, row in sorted(order)[:count]]


def real_not_land(root: Path, split: str, side: int) -> list[tuple[str, Image]]:
    """Real pictures without land: kind and image.

    Raises:
        DataRefused: the file is not there.
    """
    pairs: list[tuple[str, Image]] = []
    for file, kinds in ((NOT_LAND, None), (WIDER[NWPU], {"cloud"})):
        labelled = open_labelled(root / file)
        rows = [
            row
            for row, (path, said) in enumerate(zip(labelled.files, labelled.splits, strict=True))
            if part_of(path, said) == split and (kinds is None or labelled.classes[row] in kinds)
        ]
        chosen = labelled.chosen(rows)
        for kind, encoded in zip(chosen.classes, labelled.tree.read(chosen.files), strict=True):
            if (image := load_image(encoded, side)) is not None:
                pairs.append((kind, image))
    return pairs


def gather(root: Path, split: str, side: int, seed: int) -> Pictures:
    """Everything of one split, each picture as it is and degraded."""
    known = ordinary(root, split, side)
    images: list[Image] = []
    groups: list[str] = []
    labels: list[str] = []
    weights: list[float] = []

    def add(image: Image, group: str, label: str, weight: float) -> None:
        rng = default_rng([seed, len(images)])
        images.extend((image, degrade(image, rng)))
        groups.extend((group, f"{group} degraded"))
        labels.extend((label, label))
        weights.extend((0.6 * weight, 0.4 * weight))

    for name, (chosen, classes) in known.items():
        sizes = np.bincount(classes)
        for image, kind in zip(chosen, classes, strict=True):
            add(image, name, f"{name} {kind}", 1 / (len(known) * (sizes > 0).sum() * sizes[kind]))
    first_unknown = len(images)
    backdrop = [image for chosen, _ in known.values() for image in chosen[:60]]
    real = real_not_land(root, split, side)
    made = generated(PER_KIND if split == TRAIN else PER_KIND // 4, side, seed, backdrop)
    kinds = [kind for kind, _ in (*real, *made)]
    for kind, image in (*real, *made):
        add(image, kind, kind, 1 / (len(set(kinds)) * kinds.count(kind)))
    flags = np.arange(len(images)) < first_unknown
    return Pictures(images, groups, labels, flags.astype(np.float32), np.array(weights, np.float32))
