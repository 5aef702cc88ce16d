"""Find validation images that nearly duplicate training images.

Each image is hashed by its coarse structure (64 bits of the discrete cosine transform, by the library imagehash). Two images
are near duplicates if few bits differ. Images without structure (mostly water) are excluded, because their hash is noise.
Rotated or mirrored copies are not found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from spatialnet_edge.cli.json_file import console_beside, json_option, write_json
from spatialnet_edge.cli.printer import printer
from spatialnet_edge.core.errors import MissingExtra
from spatialnet_edge.core.frames import to_rgb
from spatialnet_training.data.samples import STORED_SIDE, Samples
from spatialnet_training.data.tiles import structured
from spatialnet_training.studies.study_data import DataRoot, DataSets, OwnData, StudySet, study_sets

BITS = 6
"""Largest number of different bits of near duplicates; by chance, one pair in 200 million is below it."""


MOST_SHOWN = 30
"""Number of near copies of a user's own data to print."""


def hashes(images: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint64]:
    """The perceptual hash of each image, uint8 `[H, W, bands]`, from its display bands: uint64 `[N]`.

    Raises:
        MissingExtra: imagehash is not installed.
    """
    try:
        import imagehash
        from PIL import Image
    except ModuleNotFoundError as error:
        if error.name not in ("imagehash", "PIL"):
            raise
        raise MissingExtra(error.name, "training") from error
    bits = [imagehash.phash(Image.fromarray(np.ascontiguousarray(to_rgb(image)))).hash.ravel() for image in images]
    packed = np.packbits(np.array(bits, bool).reshape(len(bits), -1), axis=1)
    return packed.view(np.uint64).ravel()


def nearest(own: NDArray[np.uint64], others: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The smallest Hamming distance of each hash to the others: `[N]`."""
    if not len(others):
        return np.full(len(own), 64, np.int64)
    return np.array([np.bitwise_count(each ^ others).min() for each in own], np.int64)


@dataclass(frozen=True, slots=True)
class Overlap:
    """Near duplicates of one data set's validation images among all training images.

    Attributes:
        hashed: number of validation images with structure.
        own, elsewhere: number of those with a near duplicate in the same data set's training images, in another's.
    """

    data_set: str
    images: int
    hashed: int
    own: int
    elsewhere: int


def overlaps(train: dict[str, NDArray[np.uint64]], val: dict[str, tuple[int, NDArray[np.uint64]]]) -> list[Overlap]:
    """Count near duplicates of each data set's validation images.

    Args:
        train: hashes of each data set's training images.
        val: number of validation images, and the hashes of those with structure.
    """
    found: list[Overlap] = []
    for name, (images, own) in val.items():
        others = [hashed for other, hashed in train.items() if other != name]
        elsewhere = nearest(own, np.concatenate(others)) if others else np.full(len(own), 64)
        found.append(
            Overlap(name, images, len(own), int((nearest(own, train[name]) <= BITS).sum()), int((elsewhere <= BITS).sum()))
        )
    return found


@dataclass(frozen=True, slots=True)
class NearCopy:
    """A validation image and its near duplicate among the training images.

    Attributes:
        bits: number of different hash bits.
    """

    val: str
    train: str
    bits: int


def near_copies(train: Samples, val: Samples) -> list[NearCopy]:
    """All validation images with a near duplicate among the training images, the nearest first; images without structure are
    excluded."""
    kept = [[row for row, image in enumerate(part.images) if structured([image])] for part in (train, val)]
    if not kept[0] or not kept[1]:
        return []
    known, own = (hashes([part.images[row] for row in rows]) for part, rows in zip((train, val), kept, strict=True))
    found: list[NearCopy] = []
    for row, each in zip(kept[1], own, strict=True):
        bits = np.bitwise_count(each ^ known)
        nearest_row = int(bits.argmin())
        if bits[nearest_row] <= BITS:
            found.append(NearCopy(val.names[row], train.names[kept[0][nearest_row]], int(bits[nearest_row])))
    return sorted(found, key=lambda copy: (copy.bits, copy.val))


def duplicates(
    data: OwnData = None,
    data_root: DataRoot = None,
    names: DataSets = "",
    json: Annotated[Path | None, json_option("the counts")] = None,
) -> None:
    """Count validation images that nearly duplicate training images, by perceptual hash."""
    sets = study_sets(data, data_root, names, STORED_SIDE)
    if data is not None:
        list_own_copies(sets[0], json)
        return
    train: dict[str, NDArray[np.uint64]] = {}
    val: dict[str, tuple[int, NDArray[np.uint64]]] = {}
    for each in sets:
        with printer(stderr=True).status(f"{each.name}: hashing"):
            train[each.name] = hashes(structured(each.train.images))
            val[each.name] = len(each.val), hashes(structured(each.val.images))
    found = overlaps(train, val)
    table = Table(
        "data set", "val images", "with structure", "near duplicate in its own training images", "in those of another set"
    )
    for each in found:
        share = f"{each.own} ({each.own / max(1, each.hashed):.1%})"
        table.add_row(each.data_set, str(each.images), str(each.hashed), share, str(each.elsewhere))
    console_beside(json).print(table)
    write_json(json, {each.data_set: {"images": each.images, "own": each.own, "elsewhere": each.elsewhere} for each in found})


def list_own_copies(each: StudySet, json: Path | None) -> None:
    """Print a user's own near copies by name, and write all of them to a file."""
    copies = near_copies(each.train, each.val)
    table = Table(
        "validation image",
        "training image",
        "bits",
        title=f"{len(copies)} of {len(each.val)} nearly duplicate training images",
    )
    for copy in copies[:MOST_SHOWN]:
        table.add_row(copy.val, copy.train, str(copy.bits))
    if len(copies) > MOST_SHOWN:
        table.add_row(f"… {len(copies) - MOST_SHOWN} more", "", "")
    console = console_beside(json)
    console.print(table)
    if copies:
        console.print(
            "frames of one flight or site in both splits make the validation accuracy too high: keep them together "
            "with train --group",
            soft_wrap=True,
        )
    write_json(json, [{"val": copy.val, "train": copy.train, "bits": copy.bits} for copy in copies])
