"""A georeferenced raster as a grid of square tiles, at its own sampling distance or at a given one (rasterio)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.core.errors import DataRefused, MissingExtra, first_line

RASTERS = frozenset({".tif", ".tiff", ".vrt", ".jp2", ".img"})
WGS_84 = "EPSG:4326"


def rasters_beside(path: Path) -> list[Path]:
    """The rasters in the folder of a file and in the folders below it.

    Raises:
        DataRefused: there are none.
    """
    found = sorted(each for each in path.parent.rglob("*") if each.suffix.lower() in RASTERS and each.is_file())
    if not found:
        raise DataRefused(f"{path}: no raster beside it; expected {', '.join(sorted(RASTERS))} in {path.parent}")
    return found


class TileGrid:
    """Tiles of a raster, counted from the upper left. What is left over at the right and lower edge is no tile.

    A raster in degrees, or whose pixels are not as large as asked for, is resampled to the UTM zone of its centre, or in its own
    projection.

    Args:
        side: of a tile, in pixels.
        metres: of a pixel; None for the raster's own.

    Attributes:
        metres: of a pixel.

    Raises:
        MissingExtra: rasterio is not installed.
        DataRefused: it cannot be read, or has no coordinate system.
    """

    def __init__(self, path: Path, side: int, metres: float | None) -> None:
        try:
            import rasterio
            from rasterio.errors import RasterioIOError
        except ModuleNotFoundError as error:
            raise MissingExtra("rasterio", "polygons") from error
        self.path, self.side = path, side
        try:
            source: Any = rasterio.open(path)
        except RasterioIOError as error:
            raise DataRefused(f"{path}: no raster that can be read: {first_line(error)}") from error
        if source.crs is None:
            source.close()
            raise DataRefused(f"{path}: has no coordinate system, so polygons cannot be laid over it")
        self._raster: Any = source if fits(source, metres) else resampled(source, metres)
        self.metres = float(self._raster.res[0])

    def tiles(self) -> Iterator[tuple[int, int]]:
        """Row and column of every whole tile."""
        for row in range(self._raster.height // self.side):
            for column in range(self._raster.width // self.side):
                yield row, column

    def outline(self, row: int, column: int) -> Any:
        """The tile as a polygon in the raster's coordinates (shapely)."""
        from shapely import Polygon

        left, top = column * self.side, row * self.side
        corners = [(left, top), (left + self.side, top), (left + self.side, top + self.side), (left, top + self.side)]
        return Polygon([self._raster.transform * corner for corner in corners])

    def in_own_system(self, shapes: NDArray[Any], crs: str) -> NDArray[Any]:
        """Geometries of another coordinate system in the raster's."""
        import shapely
        from rasterio.warp import transform

        def moved(points: NDArray[np.float64]) -> NDArray[np.float64]:
            x, y = transform(crs, self._raster.crs, points[:, 0].tolist(), points[:, 1].tolist())[:2]
            return np.stack([x, y], axis=1)

        return shapely.make_valid(shapely.transform(shapes, moved))

    def has_gaps(self, row: int, column: int) -> bool:
        """Whether a pixel of the tile has no data."""
        return not bool(self._raster.dataset_mask(window=self._window(row, column)).all())

    def read(self, row: int, column: int) -> NDArray[np.generic]:
        """The tile's pixels as stored: `[side, side, bands]`, without a band of transparency."""
        from rasterio.enums import ColorInterp

        bands = [index for index, kind in enumerate(self._raster.colorinterp, 1) if kind != ColorInterp.alpha]
        return self._raster.read(bands, window=self._window(row, column)).transpose(1, 2, 0)

    def _window(self, row: int, column: int) -> Any:
        from rasterio.windows import Window

        return Window(column * self.side, row * self.side, self.side, self.side)  # pyright: ignore[reportCallIssue]


def fits(source: Any, metres: float | None) -> bool:
    """Whether a raster has square pixels of this size already."""
    width, height = source.res
    square = source.crs.is_projected and abs(width - height) < 1e-6 * width and not source.transform.b
    return square and (metres is None or abs(width - metres) < 1e-3 * metres)


def resampled(source: Any, metres: float | None) -> Any:
    """The raster with square pixels of this size, computed where it is read: means over areas where pixels grow."""
    from rasterio.enums import ColorInterp, Resampling
    from rasterio.vrt import WarpedVRT
    from rasterio.warp import calculate_default_transform

    crs = source.crs if source.crs.is_projected else utm_of(source)
    transform, width, height = calculate_default_transform(
        source.crs, crs, source.width, source.height, *source.bounds, resolution=metres
    )
    own = (abs(source.transform.a) + abs(source.transform.e)) / 2
    shrinks = metres is not None and source.crs.is_projected and metres > own
    marked = source.nodata is not None or ColorInterp.alpha in source.colorinterp
    return WarpedVRT(
        source,
        crs=crs,
        transform=transform,
        width=width,
        height=height,
        resampling=Resampling.average if shrinks else Resampling.bilinear,
        add_alpha=not marked,
    )


def utm_of(source: Any) -> str:
    """The UTM zone of the middle of a raster."""
    from rasterio.warp import transform_bounds

    left, bottom, right, top = transform_bounds(source.crs, WGS_84, *source.bounds)
    zone = min(60, int(((left + right) / 2 + 180) // 6) + 1)
    return f"EPSG:{(32600 if bottom + top >= 0 else 32700) + zone}"
