"""Georeferenced scenes, read window by window: every tile becomes a frame that knows where it lies.

`scene:S2.tif?tile=256&overlap=0&bands=4,3,2&scale=3000` reads 256×256 pixels at a time, so that a scene of any size
fits into memory. `scene:chips/?scale=4000&bands=…` reads every raster below a folder, one after the other.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.core.errors import MissingExtra, SourceRefused, first_line
from spatialnet_edge.core.frames import Frame, Pose, Skipped
from spatialnet_edge.sources.registry import IMAGE_SUFFIXES, options_of, regular_file, shown, split_options
from spatialnet_edge.sources.stills import find_images

DEFAULTS = {"tile": "256", "overlap": "0", "bands": "", "scale": "0"}
WGS84 = "EPSG:4326"
LARGEST_TILE = 8192
RASTER_SUFFIXES = IMAGE_SUFFIXES | {".jp2", ".vrt", ".img"}
"""What is read below a folder; a single file may have any that GDAL knows."""


@final
class SceneSource:
    """The tiles of rasters that GDAL reads, row by row; those at the right and lower edges reach back over their neighbours.

    Below a folder, a raster that cannot be read or does not fit the options is skipped and named. Its first one that can be read
    is held against the options at once; how many tiles there will be nobody knows before all are read.

    Args:
        rest: path and options. `tile`: side in pixels; `overlap`: pixels that neighbours share; `bands`: which become red, green
            and blue, or, for a model of several groups of bands, its bands in their order (from 1; the first three by default);
            `scale`: the value that becomes 255, for rasters of more than 8 bits.

    Raises:
        MissingExtra: rasterio is not installed.
        SourceRefused: not a raster, no raster below the folder, or options that do not fit it.
    """

    live = False
    fps = None

    def __init__(self, rest: str) -> None:
        name, query = split_options(rest)
        self.uri = f"scene:{shown(rest)}"
        self._tiling = tiling_of(self.uri, query)
        folder = Path(name).is_dir()
        self._paths = find_images(Path(name), RASTER_SUFFIXES) if folder else [regular_file(name)]
        if not self._paths:
            raise SourceRefused(
                f"{shown(name)}: no raster in this folder or below; looked for {', '.join(sorted(RASTER_SUFFIXES))}"
            )
        try:
            import_module("rasterio")
        except ModuleNotFoundError as error:
            raise MissingExtra("rasterio", "geo") from error
        with closing(self._first_readable()) as first:
            first.check(self._tiling)
            self.length = None if folder else len(first.corners(self._tiling))

    def _first_readable(self) -> Raster:
        for path in self._paths[:-1]:
            try:
                return Raster(path)
            except SourceRefused:
                continue
        return Raster(self._paths[-1])

    def __iter__(self) -> Iterator[Frame | Skipped]:
        seq = count()
        for path in self._paths:
            source = self.uri if self.length is not None else shown(path)
            try:
                with closing(Raster(path)) as raster:
                    raster.check(self._tiling)
                    for corner in raster.corners(self._tiling):
                        yield raster.tile(corner, self._tiling, next(seq), source)
            except SourceRefused as error:
                yield Skipped(next(seq), "decode_error", str(error))

    def close(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Tiling:
    """What of a raster becomes frames; `scale` is 0 where the levels are those of 8 bits already."""

    tile: int
    overlap: int
    bands: tuple[int, ...]
    scale: float


def tiling_of(uri: str, query: str) -> Tiling:
    """The options of a scene's URI.

    Raises:
        SourceRefused: one that there is not, or a value that cannot be.
    """
    options = options_of(uri, query, DEFAULTS)
    try:
        bands = tuple(int(band) for band in options["bands"].split(",") if band) or (1, 2, 3)
        tiling = Tiling(int(options["tile"]), int(options["overlap"]), bands, float(options["scale"]))
    except ValueError as error:
        raise SourceRefused(f"{uri}: {error}; expected for instance scene:S2.tif?tile=256&bands=4,3,2") from error
    if not (8 <= tiling.tile <= LARGEST_TILE and 0 <= tiling.overlap < tiling.tile and tiling.scale >= 0):
        raise SourceRefused(f"{uri}: tile must be from 8 to {LARGEST_TILE}, overlap less than tile, scale not negative")
    return tiling


@final
class Raster:
    """One file that GDAL has opened.

    Raises:
        SourceRefused: GDAL does not read it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rasterio: Any = import_module("rasterio")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", self._rasterio.errors.NotGeoreferencedWarning)
            try:
                self._data: Any = self._rasterio.open(path)
            except self._rasterio.errors.RasterioIOError as error:
                raise SourceRefused(f"{shown(path)}: GDAL does not read this raster: {first_line(error)}") from error

    def check(self, tiling: Tiling) -> None:
        """Find options that do not fit this raster.

        Raises:
            SourceRefused: bands that it does not have, or levels of more than 8 bits and no scale.
        """
        if not all(1 <= band <= self._data.count for band in tiling.bands):
            asked = ",".join(map(str, tiling.bands))
            raise SourceRefused(f"{shown(self._path)}: has {self._data.count} bands; bands={asked} names others")
        if self._data.dtypes[0] != "uint8" and not tiling.scale:
            raise SourceRefused(
                f"{shown(self._path)}: holds {self._data.dtypes[0]}; say with scale= which value becomes 255 "
                f"(Sentinel-2 reflectance: 3000)"
            )

    def side(self, tiling: Tiling) -> int:
        """Of a tile, in pixels: a raster that is smaller is one tile, or several squares of its shorter side."""
        return min(tiling.tile, self._data.width, self._data.height)

    def corners(self, tiling: Tiling) -> list[tuple[int, int]]:
        """Where tiles begin, `(x, y)` in pixels, row by row."""
        side = self.side(tiling)
        step = max(1, side - tiling.overlap)
        rows, columns = starts(self._data.height, side, step), starts(self._data.width, side, step)
        return [(x, y) for y in rows for x in columns]

    def tile(self, corner: tuple[int, int], tiling: Tiling, seq: int, source: str) -> Frame | Skipped:
        """The frame at a corner."""
        windows: Any = import_module("rasterio.windows")
        (x, y), side = corner, self.side(tiling)
        try:
            values = self._data.read(list(tiling.bands), window=windows.Window(x, y, side, side), masked=True)
        except self._rasterio.errors.RasterioIOError as error:
            return Skipped(seq, "decode_error", f"{shown(self._path)}: tile at {x}, {y}: {first_line(error)}")
        if np.ma.getmaskarray(values).all():
            return Skipped(seq, "no_data", f"{shown(self._path)}: tile at {x}, {y} is outside the scene")
        footprint = self._footprint(x, y, side)
        return Frame(levels(values, tiling.scale), seq, source, pose=centre(footprint), footprint=footprint)

    def close(self) -> None:
        self._data.close()


def levels(values: Any, tiling: Tiling, scales: Sequence[float], offsets: Sequence[float]) -> NDArray[np.uint8]:
    """A masked `[bands, side, side]` as uint8 `[side, side, bands]`; no data is black.

    Args:
        scales, offsets: of each band, as the raster states them: `stored * scale + offset` is the physical value. With
            `Tiling.scale`, which is in stored units, the offset is taken into account first, so that nothing is 0.
    """
    image: NDArray[Any] = np.moveaxis(values.filled(0), 0, 2)
    if tiling.scale:
        stored = np.asarray(image, np.float32)
        factors = np.array([scale / scales[0] for scale in scales], np.float32)
        shifts = np.array([offset / scales[0] for offset in offsets], np.float32)
        physical = np.where(np.moveaxis(np.ma.getmaskarray(values), 0, 2), 0, stored * factors + shifts)
        image = np.clip(physical * (255 / tiling.scale), 0, 255)
    return np.ascontiguousarray(np.nan_to_num(image), np.uint8)


def starts(length: int, side: int, step: int) -> range:
    """Where tiles begin along one side, every `step` pixels; the last one, which `last_start` moves back, covers the edge."""
    return range(0, max(1, length - side + step), step)
