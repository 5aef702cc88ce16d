"""Data sets with measured bands: near and short-wave infrared, elevation, radar. Each one has labels for its own head.

The factors of a set's layout convert stored integers to physical values; the ranges of `spatialnet_edge.core.bands` convert
these to input levels. Tiles of one scene overlap, so scenes are held out as a whole.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from spatialnet_edge.core.bands import RANGES
from spatialnet_edge.core.spec import Multiclass
from spatialnet_training.data.bands import SENTINEL_2_LAYOUT, Layout


@dataclass(frozen=True, slots=True)
class MeasuredSet:
    """A data set with measured bands.

    Attributes:
        file: its zip below the data root.
        head: the head of its classes; None if its classes are those of `taxonomy`.
        layout: its bands in order.
        metres_per_pixel: ground sampling distance.
        terms: title and licence.
        level: Sentinel-2's product level: `l2a`, reflectance at the surface, or `l1c`, at the top of the atmosphere.
        taxonomy: the data set of the taxonomy whose classes it shares.
    """

    file: str
    head: Multiclass | None
    layout: Layout
    metres_per_pixel: float
    terms: str
    taxonomy: str | None = None
    level: Literal["l1c", "l2a"] = "l2a"

    @property
    def bands(self) -> tuple[str, ...]:
        """The bands that models take, in the order of the layout."""
        return tuple(band for band in self.layout if band in RANGES)


HLS_BANDS = ("aerosol", "blue", "green", "red", "nir", "swir_1", "swir_2")
LAND_COVER = ("Bare", "Built", "Cropland", "Flooded", "Forest", "Grassland", "Shrubland", "Water")

MEASURED: dict[str, MeasuredSet] = {
    "hls": MeasuredSet(
        file="hls_landcover.zip",
        head=Multiclass(name="land_cover", labels=LAND_COVER),
        layout={**dict.fromkeys(HLS_BANDS, 1e-4), "elevation": 1.0},
        metres_per_pixel=30.0,
        terms="HLS, ESA WorldCover, Copernicus DEM (CC BY 4.0 and attribution)",
    ),
    "burned": MeasuredSet(
        file="s2_burned_area.zip",
        head=Multiclass(name="burned", labels=("Burned", "Unburned")),
        layout=dict.fromkeys(("blue", "green", "red", "nir", "swir_2"), 1e-4),
        metres_per_pixel=10.0,
        terms="Sentinel-2 with perimeters of CAL FIRE",
    ),
    "flood": MeasuredSet(
        file="s1_flood.zip",
        head=Multiclass(name="flood", labels=("Land", "Mixed", "Water")),
        layout=dict.fromkeys(("vv", "vh"), 0.01),
        metres_per_pixel=10.0,
        terms="Sen1Floods11 (Bonafilia et al. 2020)",
    ),
    "eurosat_ms": MeasuredSet(
        file="eurosat_ms_sample.zip",
        head=None,
        layout=SENTINEL_2_LAYOUT,
        metres_per_pixel=10.0,
        terms="EuroSAT (MIT)",
        taxonomy="eurosat",
        level="l1c",
    ),
}


def measured_file(path: Path) -> MeasuredSet | None:
    """The set whose zip this is, by its file name; None for any other file."""
    return next((row for row in MEASURED.values() if row.file == path.name), None)


def head_of(data_set: str) -> str:
    """The head that a data set's classes label."""
    row = MEASURED.get(data_set)
    if row is None:
        return f"land_use_{data_set}"
    return row.head.name if row.head is not None else f"land_use_{row.taxonomy}"


def scene_of(path: str) -> str:
    """The scene of a tile: the file name without row and column, `hls138_0_16.tif` → `hls138`."""
    return re.sub(r"_\d+_\d+$", "", PurePosixPath(path).stem)
