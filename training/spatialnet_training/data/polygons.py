"""Labelled polygons over georeferenced rasters: tiles of a fixed number of pixels at a fixed sampling distance.

    FOLDER/fields.geojson (or .gpkg, .shp, .fgb)        FOLDER/*.tif

A tile has the label of the polygons that cover at least half of it. Tiles are grouped by area, so that a split never parts
neighbours within an area. pyogrio reads polygons, rasterio reads and resamples rasters, shapely intersects.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.core.errors import DataRefused, MissingExtra, first_line
from spatialnet_training.data.dataset_options import DatasetOptions
from spatialnet_training.data.file_tree import Unused
from spatialnet_training.data.image_store import FetchedImages, Row, StoredImages, encoded
from spatialnet_training.data.table_formats import cell_of
from spatialnet_training.data.tables import PATH, SPLIT
from spatialnet_training.data.tile_grid import TileGrid, rasters_beside

VECTORS = frozenset({".geojson", ".gpkg", ".shp", ".fgb"})
LEAST_COVERED = 0.5
"""A tile has a label where polygons with it cover at least this share of the tile."""

AREAS = 40
"""About so many areas; fewer tiles than that are an area each."""

MOST_ACROSS = 16
"""An area has at most so many tiles on a side."""


@dataclass(frozen=True, slots=True)
class Polygons:
    """Polygons with their attributes.

    Attributes:
        shapes: shapely geometries.
        columns: attribute to the cell of each polygon, as a CSV would have it.
        crs: of the coordinates, as rasterio understands it.
    """

    shapes: NDArray[Any]
    columns: dict[str, list[str]]
    crs: str


def is_polygons(path: Path) -> bool:
    return path.suffix.lower() in VECTORS


def open_polygons(path: Path, options: DatasetOptions) -> StoredImages:
    """Cut the rasters beside a file of polygons into labelled tiles.

    Raises:
        MissingExtra: pyogrio, rasterio or shapely is not installed.
        DataRefused: no polygons, no rasters, or polygons that cover half of no tile.
    """
    polygons = read_polygons(path, options)
    grids = [TileGrid(raster, options.tile, options.metres_per_pixel) for raster in rasters_beside(path)]
    rows: list[Row] = []
    places: dict[str, tuple[TileGrid, int, int]] = {}
    unused: list[Unused] = []
    for grid in grids:
        labels = cover(grid, polygons)
        if not labels:
            unused.append(Unused(grid.path.name, "polygons cover half of none of its tiles"))
        for (row, column), cells in labels.items():
            name = f"{grid.path.relative_to(path.parent).as_posix()}/{row}_{column}"
            if grid.has_gaps(row, column):
                unused.append(Unused(name, "a tile with pixels without data"))
                continue
            places[name] = (grid, row, column)
            rows.append({PATH: name, **cells})
    if not rows:
        raise DataRefused(
            f"{path}: no tile of {options.tile} pixels is covered by half by a polygon with a label, in {len(grids)} rasters; give "
            f"smaller tiles with --tile, or a finer sampling distance with --gsd"
        )

    def fetch(names: Sequence[str]) -> Iterator[bytes]:
        for name in names:
            grid, row, column = places[name]
            yield encoded(grid.read(row, column))

    across = tiles_across(len(rows))
    groups = tuple(f"{places[row[PATH]][0].path.name}#{area_of(*places[row[PATH]][1:], across)}" for row in rows)
    note = f"tiles of {options.tile} pixels, {grids[0].metres:g} m a pixel; areas of {across}×{across} tiles are never split"
    return StoredImages(FetchedImages(path, fetch), rows, path.stem, groups, tuple(unused), (note,))


def read_polygons(path: Path, options: DatasetOptions) -> Polygons:
    """The polygons and their columns of words; numbers where `columns` or `regression` names them.

    Raises:
        MissingExtra: pyogrio or shapely is not installed.
        DataRefused: it cannot be read, or has no polygon with a label.
    """
    try:
        import pyogrio.raw  # pyright: ignore[reportMissingTypeStubs]
        import shapely
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "polygons") from error
    try:
        read: Any = pyogrio.raw.read(path)
    except Exception as error:  # GDAL's errors, and those of the file
        raise DataRefused(f"{path}: no polygons that can be read: {first_line(error)}") from error
    found, _, shapes, values = read
    asked = {*options.columns, *options.regression}
    columns = {
        (f"{name}_" if name in (PATH, SPLIT) else str(name)): [cell_of(plain(each)) for each in cells]
        for name, cells in zip(found["fields"], values, strict=True)
        if name in asked or cells.dtype == object
    }
    if not len(shapes) or not columns:
        raise DataRefused(f"{path}: {len(shapes)} polygons with {len(columns)} columns of words; expected a column of classes")
    if found["crs"] is None:
        raise DataRefused(f"{path}: says no coordinate system; write one into it")
    return Polygons(shapely.make_valid(shapely.from_wkb(shapes)), columns, str(found["crs"]))


def plain(value: Any) -> Any:
    """A NumPy value as Python's own."""
    return value.item() if isinstance(value, np.generic) else value


def cover(grid: TileGrid, polygons: Polygons) -> dict[tuple[int, int], dict[str, str]]:
    """Row and column of each labelled tile to its cells; a column that no label covers by half is empty."""
    import shapely

    shapes = grid.in_own_system(polygons.shapes, polygons.crs)
    tree = shapely.STRtree(shapes)
    found: dict[tuple[int, int], dict[str, str]] = {}
    for row, column in grid.tiles():
        outline = grid.outline(row, column)
        near = [int(index) for index in tree.query(outline, predicate="intersects")]
        parts = {index: shapes[index].intersection(outline) for index in near}
        cells = {name: label_of(parts, values, outline.area) for name, values in polygons.columns.items()}
        if any(cells.values()):
            found[row, column] = cells
    return found


def label_of(parts: dict[int, Any], values: Sequence[str], whole: float) -> str:
    """The label that covers at least half of a tile; empty where none does."""
    import shapely

    by_label: dict[str, list[Any]] = {}
    for index, part in parts.items():
        if values[index]:
            by_label.setdefault(values[index], []).append(part)
    areas = {label: shapely.union_all(each).area for label, each in by_label.items()}
    best = max(areas, key=areas.__getitem__, default="")
    return best if best and areas[best] >= LEAST_COVERED * whole else ""


def tiles_across(tiles: int) -> int:
    """Tiles on the side of an area, so that there are about `AREAS`."""
    return int(np.clip(np.sqrt(tiles / AREAS), 1, MOST_ACROSS))


def area_of(row: int, column: int, across: int) -> str:
    return f"{row // across}_{column // across}"
