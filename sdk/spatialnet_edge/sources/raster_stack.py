"""Raster stack: rasters of one place as one input. All are read on the grid of the first; each band is read from the first
raster that has it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.core.bands import compose, quantise, slope
from spatialnet_edge.core.errors import SourceRefused
from spatialnet_edge.core.spec import BandGroup, PhysicalRange
from spatialnet_edge.core.stored_bands import StoredBand
from spatialnet_edge.sources.raster import Raster
from spatialnet_edge.sources.registry import shown

Levels = dict[str, NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class Tiling:
    """How rasters are cut into frames.

    Attributes:
        tile, overlap: side of a tile and overlap of neighbours, in pixels.
        bands: band numbers from 1; empty: select bands by name.
        scale: the stored value that becomes 255; 0 if the raster has a scale, or its values are levels already.
    """

    tile: int
    overlap: int
    bands: tuple[int, ...]
    scale: float

    @property
    def by_name(self) -> bool:
        """Whether bands are selected by their names and ranges instead of numbers."""
        return not self.bands and not self.scale


@final
class RasterStack:
    """Rasters of one place. The first one's grid is that of the tiles.

    Raises:
        SourceRefused: one of them cannot be read, or cannot be resampled to the grid of the first.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.rasters: list[Raster] = []
        try:
            for path in paths:
                self.rasters.append(Raster(path))
            for other in self.rasters[1:]:
                other.warp_to(self.grid)
        except BaseException:
            self.close()
            raise
        self._settled: dict[str, StoredBand] = {}

    @property
    def grid(self) -> Raster:
        return self.rasters[0]

    @property
    def named(self) -> bool:
        """Whether any band has a known name."""
        return any(raster.bands for raster in self.rasters)

    def check(self, tiling: Tiling, groups: Sequence[BandGroup] | None) -> None:
        """Check options and bands against these rasters.

        Args:
            groups: of the model; None if not known yet.

        Raises:
            SourceRefused: missing bands, or levels of more than 8 bits without a scale.
        """
        data, name = self.grid.data, shown(self.grid.path)
        if tiling.by_name and self.named:
            if groups is not None and not self.sources(groups):
                found = ", ".join(band for raster in self.rasters for band in raster.bands)
                wanted = ", ".join(band for group in groups for band in group.bands)
                raise SourceRefused(f"{name}: has the bands {found}; this model takes {wanted}")
            return
        if len(self.rasters) > 1:
            unnamed = next((each for each in self.rasters if not each.bands), self.grid)
            raise SourceRefused(
                f"{shown(unnamed.path)}: its bands have no known names; rasters that are read together are selected "
                "by name; describe them (rasterio: raster.descriptions = ('B04', …)), and remove bands= and scale="
            )
        bands = tiling.bands or FIRST_BANDS
        if not all(1 <= band <= data.count for band in bands):
            raise SourceRefused(f"{name}: has {data.count} bands; bands={','.join(map(str, bands))} is out of range")
        if data.dtypes[0] != "uint8" and not tiling.scale:
            raise SourceRefused(
                f"{name}: holds {data.dtypes[0]}; set scale= to the value that becomes 255 (Sentinel-2 reflectance: "
                "4000), or add band names such as B04 to the file, so that their physical ranges are used"
            )

    def sources(self, groups: Sequence[BandGroup]) -> dict[str, Raster]:
        """Each available band of these groups, and its raster. The slope is computed from the elevation."""
        wanted = [BEFORE.get(band, band) for group in groups for band in group.bands]
        pairs = [(band, next((each for each in self.rasters if band in each.bands), None)) for band in wanted]
        return {band: raster for band, raster in pairs if raster is not None}

    def corners(self, tiling: Tiling) -> Iterator[tuple[int, int]]:
        """Top-left corners of the tiles, `(x, y)` in pixels, row by row; generated lazily, because there may be very many."""
        data, side = self.grid.data, self.side(tiling)
        step = max(1, side - tiling.overlap)
        return ((x, y) for y in starts(data.height, side, step) for x in starts(data.width, side, step))

    def tiles(self, tiling: Tiling) -> int:
        """Number of tiles."""
        data, side = self.grid.data, self.side(tiling)
        step = max(1, side - tiling.overlap)
        return count_starts(data.height, side, step) * count_starts(data.width, side, step)

    def side(self, tiling: Tiling) -> int:
        """Side of a tile in pixels. A smaller raster is one tile, or several squares of its shorter side."""
        return min(tiling.tile, self.grid.data.width, self.grid.data.height)

    def by_name(self, x: int, y: int, side: int, groups: Sequence[BandGroup]) -> NDArray[np.uint8] | None:
        """A square window as the input of a model, uint8 `[side, side, bands]`; 0: no data.

        Returns:
            None if no band has data.

        Raises:
            SourceRefused: a file is damaged there.
        """
        spans = {band: span for group in groups for band, span in zip(group.bands, group.ranges, strict=False)}
        wanted = self.sources(groups)
        found: Levels = {}
        for raster in self.rasters:
            names = [band for band, owner in wanted.items() if owner is raster]
            if names:
                stored = raster.read([raster.bands[name][0] for name in names], x, y, side)
                for name, values in zip(names, stored, strict=True):
                    found |= self._levels(name, raster, values, spans)
        return compose(found, groups) if any(levels.any() for levels in found.values()) else None

    def _levels(self, name: str, raster: Raster, values: Any, spans: dict[str, PhysicalRange]) -> Levels:
        """The levels of one band, and of the slope if it is the elevation."""
        valid: NDArray[np.bool_] = ~np.ma.getmaskarray(values)
        stored: NDArray[Any] = values.data
        band = self._settled.get(name) or raster.bands[name][1]
        if band.linear is None and valid.any():
            band = self._settled[name] = band.settled(stored[valid])
        found = {name: band.to_levels(stored, valid, spans.get(name))}
        spacing = self.grid.metres_per_pixel if name == "elevation" and not band.levels else None
        if spacing is not None:
            found["slope"] = quantise(slope(band.physical(stored), spacing), "slope", valid, spans.get("slope"))
        return found

    def by_number(self, x: int, y: int, side: int, tiling: Tiling) -> NDArray[np.uint8] | None:
        """A square window of the first raster's bands by their numbers, uint8 `[side, side, bands]`; no data is black.

        Returns:
            None if no band has data.

        Raises:
            SourceRefused: the file is damaged there.
        """
        numbers, data = [*(tiling.bands or FIRST_BANDS)], self.grid.data
        values = self.grid.read(numbers, x, y, side)
        if np.ma.getmaskarray(values).all():
            return None
        scales = [data.scales[number - 1] for number in numbers]
        offsets = [data.offsets[number - 1] for number in numbers]
        return levels(values, tiling.scale, scales, offsets)

    def close(self) -> None:
        for raster in reversed(self.rasters):
            raster.close()


FIRST_BANDS = (1, 2, 3)
"""Red, green and blue, for a raster without band names."""

BEFORE = {"slope": "elevation"}
"""Derived band to its source band."""


def levels(values: Any, scale: float, scales: Sequence[float], offsets: Sequence[float]) -> NDArray[np.uint8]:
    """Convert a masked `[bands, side, side]` to uint8 `[side, side, bands]`; missing data are black.

    Args:
        scale: the stored value that becomes 255; 0 if the values are levels. The offset is applied first.
        scales, offsets: per band, from the raster: `stored * scale + offset` is the physical value.
    """
    image: NDArray[Any] = np.moveaxis(values.filled(0), 0, 2)
    if scale:
        stored = np.asarray(image, np.float32)
        factors = np.array([each / scales[0] for each in scales], np.float32)
        shifts = np.array([offset / scales[0] for offset in offsets], np.float32)
        physical = np.where(np.moveaxis(np.ma.getmaskarray(values), 0, 2), 0, stored * factors + shifts)
        image = np.minimum(np.maximum(physical * (255 / scale), 0), 255)
    return np.ascontiguousarray(np.nan_to_num(image), np.uint8)


def starts(length: int, side: int, step: int) -> Iterator[int]:
    """Start positions of tiles along one side: every `step` pixels, the last one so that the edge is covered."""
    return (min(start, length - side) for start in range(0, length - side + step, step))


def count_starts(length: int, side: int, step: int) -> int:
    """Number of `starts`, computed without generating them: a header may claim two thousand million pixels per side."""
    return len(range(0, length - side + step, step))
