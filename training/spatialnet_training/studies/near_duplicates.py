"""Find validation images that nearly duplicate training images: they are remembered rather than recognised.

Each image is hashed by its coarse structure (64 bits of the discrete cosine transform, by the library imagehash); two images are
near duplicates when few bits differ. What is so even that its hash is noise (water, mostly) is left out. A copy that was turned or
mirrored is not found.
"""

from __future__ import annotations

import json as jsonlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.table import Table

from spatialnet_edge.cli.printer import echo, printer
from spatialnet_edge.core.errors import MissingExtra
from spatialnet_edge.core.frames import to_rgb
from spatialnet_edge.core.output_paths import to_be_written
from spatialnet_training.data.samples import STORED_SIDE, Samples
from spatialnet_training.data.tiles import structured
from spatialnet_training.studies.study_data import DataRoot, OwnData, StudySet, study_sets

BITS = 6
"""Two of 64-bit hashes that differ in no more than this many bits are near duplicates: by chance, one pair in 200 million."""


MOST_SHOWN = 30
"""Near copies of a user's own data that are printed."""


def hashes(images: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint64]:
    """The perceptual hash of each image, uint8 `[H, W, bands]`, by what people are shown of it: uint64 `[N]`.

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
    """For each hash the number of bits by which the nearest of the others differs: `[N]`."""
    if not len(others):
        return np.full(len(own), 64, np.int64)
    return np.array([np.bitwise_count(each ^ others).min() for each in own], np.int64)


@dataclass(frozen=True, slots=True)
class Overlap:
    """One data set's validation images against all training images.

    Attributes:
        hashed: validation images with enough structure.
        own, elsewhere: those with a near duplicate among the training images of the same data set, of another one.
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
        val: number of validation images, and the hashes of those with enough structure.
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
    """A validation image and the training image that it nearly is.

    Attributes:
        bits: in which their hashes differ.
    """

    val: str
    train: str
    bits: int


def near_copies(train: Samples, val: Samples) -> list[NearCopy]:
    """Every validation image that nearly stands among the training images, the nearest first; images without structure have
    none."""
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
    only: Annotated[str, typer.Option(help="Published data sets, comma-separated; all by default.")] = "",
    json: Annotated[Path | None, typer.Option(help="Write the counts to this file.", callback=to_be_written)] = None,
) -> None:
    """Count validation images that nearly stand among the training images, by perceptual hash."""
    sets = study_sets(data, data_root, only, STORED_SIDE)
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
    table = Table("data set", "val images", "with structure", "near duplicate in its own train", "in another's train")
    for each in found:
        share = f"{each.own} ({each.own / max(1, each.hashed):.1%})"
        table.add_row(each.data_set, str(each.images), str(each.hashed), share, str(each.elsewhere))
    printer().print(table)
    if json is not None:
        record = {each.data_set: {"images": each.images, "own": each.own, "elsewhere": each.elsewhere} for each in found}
        json.write_text(jsonlib.dumps(record, indent=1) + "\n", encoding="utf-8")


def list_own_copies(each: StudySet, json: Path | None) -> None:
    """Print a user's own near copies by name, so that they can be looked at, and write all of them to a file."""
    copies = near_copies(each.train, each.val)
    table = Table(
        "validation image", "training image", "bits", title=f"{len(copies)} of {len(each.val)} nearly stand in training"
    )
    for copy in copies[:MOST_SHOWN]:
        table.add_row(copy.val, copy.train, str(copy.bits))
    if len(copies) > MOST_SHOWN:
        table.add_row(f"… {len(copies) - MOST_SHOWN} more", "", "")
    printer().print(table)
    if copies:
        echo("frames of one flight or site on both sides make validation too good: keep them together with train --group")
    if json is not None:
        record = [{"val": copy.val, "train": copy.train, "bits": copy.bits} for copy in copies]
        json.write_text(jsonlib.dumps(record, indent=1) + "\n", encoding="utf-8", errors="backslashreplace")
