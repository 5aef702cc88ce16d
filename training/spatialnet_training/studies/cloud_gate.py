"""False alarms of a cloud gate: how many labelled tiles of land the cloud networks of `ukis-csmask` call cloud or shadow.

    pip install --no-deps ukis-csmask==1.0.0
    python -m spatialnet_training.studies.cloud_gate DATA_ROOT [--tiles 30]

The networks (Apache-2.0, German Aerospace Center) take reflectances of four or six bands in pictures of 256 pixels. Smaller tiles
are mirrored to this size. The data sets have no labels of clouds, so missed clouds are not measured.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Annotated

import numpy as np
import typer
from numpy.random import default_rng
from numpy.typing import NDArray
from rich.table import Table

from spatialnet_edge.cli.printer import printer
from spatialnet_edge.core.errors import NotInstalled, UsageError
from spatialnet_training.data.measured_sets import MEASURED, MeasuredSet
from spatialnet_training.studies.bit_depth import Values, read

SIDE = 256
"""Side of the networks' input in pixels."""

NAMES = {"blue": "blue", "green": "green", "red": "red", "nir": "nir", "swir_1": "swir16", "swir_2": "swir22"}
"""Our names of bands, and the package's."""


def import_csmask() -> ModuleType:
    """Import `ukis_csmask.mask`.

    Raises:
        NotInstalled: the package is missing.
    """
    try:
        from ukis_csmask import mask  # pyright: ignore[reportMissingImports] (no extra installs it)
    except ModuleNotFoundError as error:
        raise NotInstalled("ukis-csmask is not installed: pip install --no-deps ukis-csmask==1.0.0") from error
    return mask


def cloudy(csmask: ModuleType, tile: Values, bands: Sequence[str], level: str) -> float:
    """The share of a tile that is cloud or shadow, 0 to 1.

    Args:
        tile: reflectances, float32 `[H, W, bands]`.
        bands: our names, in its order.
        level: Sentinel-2's product level, `l1c` or `l2a`.
    """
    height, width, _ = tile.shape
    known = [index for index, band in enumerate(bands) if band in NAMES]
    mirrored = np.pad(tile[..., known], ((0, SIDE - height), (0, SIDE - width), (0, 0)), mode="symmetric")
    order = [NAMES[bands[index]] for index in known]
    found = csmask.CSmask(img=mirrored.astype(np.float32), band_order=order, product_level=level, intra_op_num_threads=1)
    return float((found.csm[:height, :width] > 0).mean())


def gated(csmask: ModuleType, root: Path, row: MeasuredSet, tiles: int) -> dict[str, NDArray[np.float64]]:
    """The cloudy share of validation tiles drawn at random: class to float64 `[tiles]`."""
    val = read(root / row.file, row, "val")
    drawn = default_rng(0).permutation(len(val.images))[:tiles]
    shares = {index: cloudy(csmask, val.images[index], row.bands, row.level) for index in drawn}
    classes = sorted({val.classes[index] for index in drawn})
    return {name: np.array([share for index, share in shares.items() if val.classes[index] == name]) for name in classes}


def cloud_gate(
    data_root: Annotated[Path, typer.Argument(help="The folder that holds the data sets.")],
    tiles: Annotated[int, typer.Option(min=1, help="Validation tiles per data set.")] = 30,
) -> None:
    """Print the share of tiles that a gate at half a cloudy tile would refuse, per class."""
    csmask = import_csmask()
    sets = {
        name: row
        for name, row in MEASURED.items()
        if {"blue", "green", "red", "nir"} <= row.layout.keys() and (data_root / row.file).exists()
    }
    if not sets:
        raise UsageError(f"{data_root}: has no data set with blue, green, red and near infrared bands")
    table = Table("data set", "class", "tiles", "mean cloudy share", "tiles with half or more")
    for name, row in sets.items():
        begun = time.monotonic()
        found = gated(csmask, data_root, row, tiles)
        for label, shares in (("all", np.concatenate([*found.values()])), *found.items()):
            table.add_row(name, label, str(len(shares)), f"{shares.mean():.1%}", f"{(shares >= 0.5).mean():.1%}")
        printer(stderr=True).print(f"{name}: {(time.monotonic() - begun) / sum(map(len, found.values())):.2f} s per tile")
    printer().print(table)


if __name__ == "__main__":
    typer.run(cloud_gate)
