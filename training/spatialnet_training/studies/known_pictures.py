"""Pictures for training and evaluating the output `known`: ordinary images of every data set, and pictures without land."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import default_rng
from numpy.typing import NDArray

from spatialnet_edge.core.spec import RGB, BandGroup
from spatialnet_training.data.all_bands import in_all_bands
from spatialnet_training.data.corruptions import CORRUPTIONS, corrupt
from spatialnet_training.data.dataset_registry import FILES
from spatialnet_training.data.datasets import load_split
from spatialnet_training.data.degradation import degrade
from spatialnet_training.data.labelled_dataset import TRAIN, open_labelled
from spatialnet_training.data.measured_sets import MEASURED, head_of
from spatialnet_training.data.not_land import generated
from spatialnet_training.data.samples import Samples, load_image, part_of
from spatialnet_training.data.taxonomy import load_taxonomy
from spatialnet_training.losses.multitask import UNLABELLED

Image = NDArray[np.uint8]
NOT_LAND, NWPU = "not_land.zip", "nwpu_resisc45"
WIDER = {**FILES, NWPU: "nwpu_resisc45.zip"}
PER_SET, PER_KIND = 1400, 150
"""Limit of ordinary images per data set, and of generated pictures per kind."""
DEGRADED, CORRUPTED, ALL_BANDS = " degraded", " corrupted", " in all bands"
"""Suffixes of group names."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """Pictures for training or evaluating the head.

    Attributes:
        groups: data set or kind of each picture, with a suffix for degraded and corrupted ones.
        classes: data set and class of each picture, or its kind; the units for balancing and evaluation.
        known: 1 or 0 for each picture.
        weights: of each picture in the loss; positives and negatives have the same sum.
        land_use: index of the land use of each picture; `UNLABELLED` for pictures without land.
    """

    images: list[Image]
    groups: list[str]
    classes: list[str]
    known: NDArray[np.float32]
    weights: NDArray[np.float32]
    land_use: NDArray[np.int64]

    @property
    def unmodified(self) -> NDArray[np.bool_]:
        """Which pictures are unmodified: bool `[N]`."""
        return np.array([not group.endswith((DEGRADED, CORRUPTED, ALL_BANDS)) for group in self.groups])


@dataclass(frozen=True, slots=True)
class OrdinaryImages:
    """Images of one data set, with class and land use indices."""

    images: list[Image]
    classes: list[int]
    land_use: list[int]


def ordinary(root: Path, split: str, side: int) -> dict[str, OrdinaryImages]:
    """The images of a split of each data set; of the training images at most `PER_SET`, balanced over the classes."""
    found: dict[str, OrdinaryImages] = {}
    for name, file in WIDER.items():
        samples = load_split({name: root / file}, load_taxonomy(), split, side)
        classes, land_use = class_indices(samples, name), samples.targets["land_use"].astype(int).tolist()
        chosen = balanced(classes, PER_SET if split == TRAIN else len(samples))
        found[name] = OrdinaryImages(
            [samples.images[row] for row in chosen], [classes[row] for row in chosen], [land_use[row] for row in chosen]
        )
    return found


def measured(
    root: Path, split: str, side: int, groups: tuple[BandGroup, ...], names: Sequence[str]
) -> dict[str, OrdinaryImages]:
    """The images of measured sets with all their bands; they have no land use."""
    found: dict[str, OrdinaryImages] = {}
    for name in names:
        samples = load_split({name: root / MEASURED[name].file}, load_taxonomy(), split, side, groups)
        classes = samples.targets[head_of(name)].astype(int).tolist()
        found[name] = OrdinaryImages(list(samples.images), classes, [UNLABELLED] * len(classes))
    return found


def class_indices(samples: Samples, name: str) -> list[int]:
    """The class index of each image in its data set, or its land use if the data set has no head."""
    own = samples.targets.get(f"land_use_{name}")
    return (samples.targets["land_use"] if own is None else own).astype(int).tolist()


def balanced(classes: Sequence[int], count: int) -> list[int]:
    """At most `count` rows, taken from the classes in turn."""
    seen: dict[int, int] = {}
    order: list[tuple[int, int]] = []
    for row, kind in enumerate(classes):
        seen[kind] = seen.get(kind, 0) + 1
        order.append((seen[kind], row))
    return [row for _, row in sorted(order)[:count]]


def real_not_land(root: Path, split: str, side: int) -> list[tuple[str, Image]]:
    """Real pictures without land: kind and image.

    Raises:
        DataRefused: the file does not exist.
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


def gather(
    root: Path, split: str, side: int, seed: int, groups_of_bands: tuple[BandGroup, ...] = (RGB,), sets: Sequence[str] = ()
) -> Pictures:
    """All pictures of one split, unmodified and degraded; ordinary images also with a corruption of random severity.

    Args:
        groups_of_bands: of the network. With several, pictures without land are also in all bands (`all_bands`).
        sets: measured sets, whose images are ordinary and stay unmodified.
    """
    known = ordinary(root, split, side) | measured(root, split, side, groups_of_bands, sets)
    images: list[Image] = []
    groups: list[str] = []
    labels: list[str] = []
    weights: list[float] = []
    land_use: list[int] = []

    def add(made: Sequence[tuple[str, Image, float]], group: str, label: str, kind: int, weight: float) -> None:
        for suffix, image, share in made:
            images.append(image)
            groups.append(group + suffix)
            labels.append(label)
            land_use.append(kind)
            weights.append(share * weight)

    for name, own in known.items():
        sizes = np.bincount(own.classes)
        for image, number, kind in zip(own.images, own.classes, own.land_use, strict=True):
            rng = default_rng([seed, len(images)])
            name_of, severity = str(rng.choice(list(CORRUPTIONS))), int(rng.integers(1, 6))
            made = [("", image, 1.0)]
            if name not in sets:
                made = [("", image, 0.6), (DEGRADED, degrade(image, rng), 0.2)]
                made.append((CORRUPTED, corrupt(image, name_of, severity, len(images)), 0.2))
            add(made, name, f"{name} {number}", kind, 1 / (len(known) * (sizes > 0).sum() * sizes[number]))
    first_unknown = len(images)
    backdrop = [image for name, own in known.items() if name not in sets for image in own.images[:60]]
    real = real_not_land(root, split, side)
    drawn = generated(PER_KIND if split == TRAIN else PER_KIND // 4, side, seed, backdrop)
    kinds = [kind for kind, _ in (*real, *drawn)]
    for kind, image in (*real, *drawn):
        rng = default_rng([seed, len(images)])
        made = [("", image, 0.6), (DEGRADED, degrade(image, rng), 0.4)]
        if len(groups_of_bands) > 1:
            made.append((ALL_BANDS, in_all_bands(image, groups_of_bands, rng), 0.6))
        add(made, kind, kind, UNLABELLED, 1 / (len(set(kinds)) * kinds.count(kind)))
    flags = np.arange(len(images)) < first_unknown
    return Pictures(
        images, groups, labels, flags.astype(np.float32), np.array(weights, np.float32), np.array(land_use, np.int64)
    )
