"""What an input of 8 bits costs: random forests on the same bands with 256 levels, with 65,536 levels, and as stored.

    python -m spatialnet_training.studies.bit_depth DATA_ROOT [--seeds 3]

The forest gets each band's mean, deviation and quantiles. The levels of 8 and 16 bits are clipped to the same physical range, so
their difference is due to rounding alone; the difference to the stored values also shows the clipping.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.table import Table

from spatialnet_edge.cli.printer import printer
from spatialnet_edge.core.bands import RANGES
from spatialnet_edge.core.errors import UsageError
from spatialnet_training.data.datasets import SPLITS
from spatialnet_training.data.file_tree import Tree
from spatialnet_training.data.labelled_dataset import class_of
from spatialnet_training.data.measured_sets import MEASURED, MeasuredSet, scene_of
from spatialnet_training.data.tiff_files import tiff_array
from spatialnet_training.studies.intervals import over_images, points
from spatialnet_training.studies.trained_alone import forest_right, statistics

BITS = (8, 16, None)
"""Depths that are compared; None: the stored values, not clipped."""

Values = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Split:
    """Physical values of the images of one split, each float32 `[H, W, bands]`, with their classes and scenes."""

    images: list[Values]
    classes: list[str]
    scenes: list[str]


def physical(encoded: bytes, row: MeasuredSet) -> Values:
    """The bands of a file that models take, in physical units: float32 `[H, W, bands]`."""
    stored = tiff_array(encoded)
    assert stored is not None, "a published set has TIFF files only"
    factors = np.array(list(row.layout.values()), np.float32)
    kept = [index for index, band in enumerate(row.layout) if band in row.bands]
    return (stored * factors)[..., kept].astype(np.float32)


def read(path: Path, row: MeasuredSet, split: str) -> Split:
    """One split of a data set."""
    tree = Tree(path)
    files = tree.names()
    split_of = {each["path"]: each["split"] for each in tree.table(SPLITS, ["split"], files)}
    chosen = [file for file in files if split_of.get(file) == split]
    images = [physical(encoded, row) for encoded in tree.read(chosen)]
    return Split(images, [class_of(file) for file in chosen], [scene_of(file) for file in chosen])


def rounded(image: Values, row: MeasuredSet, bits: int | None) -> Values:
    """The values as levels of `bits` bits over each band's range; unchanged without."""
    if bits is None:
        return image
    spans = [RANGES[band] for band in row.bands]
    low, high = (np.array([getattr(span, end) for span in spans], np.float32) for end in ("low", "high"))
    most = 2**bits - 1
    return np.clip(np.round((image - low) / (high - low) * most), 0, most).astype(np.float32)


def forest(train: Split, val: Split, row: MeasuredSet, bits: int | None, seeds: int) -> NDArray[np.bool_]:
    """The correctly classified images of `val`: bool `[seeds, images]`."""
    features = [np.stack([statistics(rounded(image, row, bits)) for image in each.images]) for each in (train, val)]
    labels, truth = np.array(train.classes), np.array(val.classes)
    return np.stack([forest_right(features[0], labels, features[1], truth, seed) for seed in range(seeds)])


def bit_depth(
    data_root: Annotated[Path, typer.Argument(help="The folder that holds the data sets.")],
    seeds: Annotated[int, typer.Option(min=1, help="Forests per depth.")] = 3,
) -> None:
    """Compare the accuracy with 8 bits, 16 bits and stored values on every measured data set."""
    sets = {name: row for name, row in MEASURED.items() if row.head is not None and (data_root / row.file).exists()}
    if not sets:
        raise UsageError(
            f"{data_root}: has none of {', '.join(row.file for row in MEASURED.values() if row.head is not None)}"
        )
    table = Table(
        "data set", "images", "8 bits", "16 bits", "as stored", "16 minus 8 bits (points)", title="val, random forest"
    )
    for name, row in sets.items():
        train, val = (read(data_root / row.file, row, split) for split in ("train", "val"))
        right = [forest(train, val, row, bits, seeds) for bits in BITS]
        gain = over_images(right[1].astype(np.float64) - right[0], val.scenes)
        table.add_row(name, str(len(val.classes)), *(f"{100 * each.mean():.1f} %" for each in right), points(gain))
    printer().print(table)


if __name__ == "__main__":
    typer.run(bit_depth)
