"""Rasters of one place as one input: each is read on the grid of the first, and each band comes from the first that has it."""

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
    """What of a raster becomes frames.

    Attributes:
        tile, overlap: side of a tile and what neighbours share, in pixels.
        bands: band numbers from 1, whatever their names; empty to go by names.
        scale: the stored value that becomes 255; 0 where the raster says so itself, or its numbers are levels already.
    """

    tile: int
    overlap: int
    bands: tuple[int, ...]
    scale: float

    @property
    def by_name(self) -> bool:
        """Whether bands go by their names and ranges rather than by numbers."""
        return not self.bands and not self.scale


@final
class RasterStack:
    """Rasters of one place. The first one's grid is that of the tiles.

    Raises:
        SourceRefused: one of them cannot be read, or cannot be put on the grid of the first.
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
        """Whether any band has a name that is known."""
        return any(raster.bands for raster in self.rasters)

    def check(self, tiling: Tiling, groups: Sequence[BandGroup] | None) -> None:
        """Find options and bands that do not fit these rasters.

        Args:
            groups: of the model; None where it is not known yet.

        Raises:
            SourceRefused: bands that are not there, or levels of more than 8 bits of which nothing says what they stand for.
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
                f"{shown(unnamed.path)}: its bands have no names that are known; rasters that are read together go by names; "
                f"describe them (rasterio: raster.descriptions = ('B04', …)), and leave bands= and scale= out"
            )
        bands = tiling.bands or FIRST_BANDS
        if not all(1 <= band <= data.count for band in bands):
            raise SourceRefused(f"{name}: has {data.count} bands; bands={','.join(map(str, bands))} is out of range")
        if data.dtypes[0] != "uint8" and not tiling.scale:
            raise SourceRefused(
                f"{name}: holds {data.dtypes[0]}; set scale= to the value that becomes 255 (Sentinel-2 reflectance: 4000), or "
                f"describe its bands in the file, such as B04, which then go by their physical ranges"
            )

    def sources(self, groups: Sequence[BandGroup]) -> dict[str, Raster]:
        """Each band of these groups that is there, and the raster that has it. The slope comes from the elevation."""
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
        """A square window as the input of a model, uint8 `[side, side, bands]`: zero where there is no data.

        Returns:
            None where no band has data.

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
        """One band, and the slope where it is the elevation."""
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
            None where no band has data.

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
"""Red, green and blue, of a raster whose bands have no names."""

BEFORE = {"slope": "elevation"}
"""Band to the one that it is computed from."""


def levels(values: Any, scale: float, scales: Sequence[float], offsets: Sequence[float]) -> NDArray[np.uint8]:
    """A masked `[bands, side, side]` as uint8 `[side, side, bands]`; no data is black.

    Args:
        scale: the stored value that becomes 255; 0 where the values are levels. The offset is taken into account first.
        scales, offsets: of each band, as the raster states them: `stored * scale + offset` is the physical value.
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
    """Number of `starts`, computed without generating them: a header may claim two thousand million pixels a side."""
    return len(range(0, length - side + step, step))
