"""Validation images that nearly stand among the training images, and so are learnt by heart rather than recognised.

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
from rich.console import Console
from rich.table import Table

from spatialnet_edge.core.errors import MissingExtra
from spatialnet_edge.core.output_paths import to_be_written
from spatialnet_training.data.dataset_registry import data_sets
from spatialnet_training.data.datasets import load_split
from spatialnet_training.data.samples import STORED_SIDE
from spatialnet_training.data.taxonomy import load_taxonomy
from spatialnet_training.data.tiles import structured

BITS = 6
"""Two of 64-bit hashes that differ in no more than this many bits are near duplicates: by chance, one pair in 200 million."""


def hashes(images: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint64]:
    """The perceptual hash of each image, uint8 `[H, W, 3]`: uint64 `[N]`.

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
    bits = [imagehash.phash(Image.fromarray(image)).hash.ravel() for image in images]
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


def duplicates(
    data_root: Annotated[Path, typer.Option(help="The folder that holds the data sets.")],
    only: Annotated[str, typer.Option(help="Data sets, comma-separated; all by default.")] = "",
    json: Annotated[Path | None, typer.Option(help="Write the counts to this file.", callback=to_be_written)] = None,
) -> None:
    """Count validation images that nearly stand among the training images, by perceptual hash."""
    taxonomy, console = load_taxonomy(), Console(stderr=True)
    train: dict[str, NDArray[np.uint64]] = {}
    val: dict[str, tuple[int, NDArray[np.uint64]]] = {}
    for name, path in data_sets(data_root, only).items():
        with console.status(f"{name}: hashing"):
            parts = {split: load_split({name: path}, taxonomy, split, STORED_SIDE) for split in ("train", "holdout", "val")}
            train[name] = hashes(structured([*parts["train"].images, *parts["holdout"].images]))
            val[name] = len(parts["val"]), hashes(structured(parts["val"].images))
    found = overlaps(train, val)
    table = Table("data set", "val images", "with structure", "near duplicate in its own train", "in another's train")
    for each in found:
        share = f"{each.own} ({each.own / max(1, each.hashed):.1%})"
        table.add_row(each.data_set, str(each.images), str(each.hashed), share, str(each.elsewhere))
    Console().print(table)
    if json is not None:
        record = {each.data_set: {"images": each.images, "own": each.own, "elsewhere": each.elsewhere} for each in found}
        json.write_text(jsonlib.dumps(record, indent=1) + "\n", encoding="utf-8")
