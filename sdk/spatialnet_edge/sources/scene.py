"""Georeferenced rasters, read tile by tile: every tile is a frame with its footprint.

`scene:S2.tif?tile=256&overlap=0&bands=4,3,2&scale=3000` reads 256×256 pixels at a time, so a scene of any size
fits into memory. `scene:chips/?scale=4000&bands=…` reads every raster below a folder, one after the other.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.core.errors import MissingExtra, SourceRefused, first_line
from spatialnet_edge.core.frames import Frame, Skipped
from spatialnet_edge.core.still_decoder import SUFFIXES
from spatialnet_edge.sources.footprint import place_of
from spatialnet_edge.sources.registry import options_of, regular_file, shown, split_options
from spatialnet_edge.sources.stills import find_images

DEFAULTS = {"tile": "256", "overlap": "0", "bands": "", "scale": "0"}
LARGEST_TILE = 8192
RASTER_SUFFIXES = SUFFIXES | {".img"}
"""Suffixes of rasters below a folder; a single file may have any name."""
DRIVERS = ("GTiff", "JP2OpenJPEG", "JPEG", "PNG", "WEBP", "GIF", "BMP", "HFA")
"""Allowed GDAL drivers. Drivers that refer to other files or addresses, such as VRT and WMS, are excluded."""
LARGEST_BLOCK = 512 << 20
"""Bytes per pixel that GDAL may have to decode."""


@final
class SceneSource:
    """The tiles of rasters, row by row. Tiles at the right and lower edges overlap their neighbours.

    Below a folder, a raster that cannot be read or does not match the options is skipped and reported. The options are checked
    against the first readable
    raster at once. The total number of tiles is unknown until all rasters are read.

    Args:
        rest: path and options. `tile`: side in pixels. `overlap`: pixels that neighbours share. `bands`: the raster bands
            (from 1) for red, green and blue, or for the bands of a model with several groups, in order; default: the first
            three. `scale`: the stored value that becomes 255, for rasters of more than 8 bits; the raster's offset (such as
            -1000 of Sentinel-2 since 2022) is added before.

    Raises:
        MissingExtra: rasterio is not installed.
        SourceRefused: not a raster, no raster below the folder, or options that do not match it.
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
            self.length = None if folder else first.tiles(self._tiling)

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
    """How a raster is cut into frames; `scale` is 0 if the levels have 8 bits already."""

    tile: int
    overlap: int
    bands: tuple[int, ...]
    scale: float


def tiling_of(uri: str, query: str) -> Tiling:
    """Parse the options of a scene's URI.

    Raises:
        SourceRefused: an unknown option, or an invalid value.
    """
    options = options_of(uri, query, DEFAULTS)
    try:
        bands = tuple(int(band) for band in options["bands"].split(",") if band) or (1, 2, 3)
        tiling = Tiling(int(options["tile"]), int(options["overlap"]), bands, float(options["scale"]))
    except ValueError as error:
        raise SourceRefused(f"{uri}: {error}; example: scene:S2.tif?tile=256&bands=4,3,2") from error
    if not (8 <= tiling.tile <= LARGEST_TILE and 0 <= tiling.overlap < tiling.tile and tiling.scale >= 0):
        raise SourceRefused(f"{uri}: tile must be from 8 to {LARGEST_TILE}, overlap less than tile, scale not negative")
    return tiling


@final
class Raster:
    """A file opened by GDAL.

    Raises:
        SourceRefused: GDAL cannot read it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._rasterio: Any = import_module("rasterio")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", self._rasterio.errors.NotGeoreferencedWarning)
            try:
                with self._rasterio.Env():  # GDAL registers its drivers in an environment
                    self._data: Any = self._rasterio.DatasetReader(self._gdal_name(), driver=list(DRIVERS))
            except self._rasterio.errors.RasterioError as error:
                self._release()
                raise SourceRefused(
                    f"{shown(path)}: GDAL cannot read this raster: {first_line(error)}; supported: {', '.join(DRIVERS)}"
                ) from error

    def check(self, tiling: Tiling) -> None:
        """Check the options against this raster.

        Raises:
            SourceRefused: bands that it does not have, or levels of more than 8 bits without `scale`.
        """
        value = np.dtype(self._data.dtypes[0]).itemsize
        block = max(height * width for height, width in self._data.block_shapes) * self._data.count * value
        if block > LARGEST_BLOCK:
            raise SourceRefused(
                f"{shown(self._path)}: is stored in blocks of {self._data.block_shapes[0]} pixels; one of them would take "
                f"more than {LARGEST_BLOCK >> 20} MiB; convert it to tiles: gdal_translate -co TILED=YES"
            )
        if not all(1 <= band <= self._data.count for band in tiling.bands):
            asked = ",".join(map(str, tiling.bands))
            raise SourceRefused(f"{shown(self._path)}: has {self._data.count} bands; bands={asked} is out of range")
        if self._data.dtypes[0] != "uint8" and not tiling.scale:
            raise SourceRefused(
                f"{shown(self._path)}: holds {self._data.dtypes[0]}; set scale= to the value that becomes 255 "
                f"(Sentinel-2 reflectance: 3000)"
            )

    def side(self, tiling: Tiling) -> int:
        """Side of a tile in pixels. A smaller raster is one tile, or several squares of its shorter side."""
        return min(tiling.tile, self._data.width, self._data.height)

    def corners(self, tiling: Tiling) -> Iterator[tuple[int, int]]:
        """Top-left corners of the tiles, `(x, y)` in pixels, row by row; generated lazily, because there may be very many."""
        side = self.side(tiling)
        step = max(1, side - tiling.overlap)
        return ((x, y) for y in starts(self._data.height, side, step) for x in starts(self._data.width, side, step))

    def tiles(self, tiling: Tiling) -> int:
        """Number of tiles."""
        side = self.side(tiling)
        step = max(1, side - tiling.overlap)
        return count_starts(self._data.height, side, step) * count_starts(self._data.width, side, step)

    def tile(self, corner: tuple[int, int], tiling: Tiling, seq: int, source: str) -> Frame | Skipped:
        """The frame of the tile at a corner."""
        windows: Any = import_module("rasterio.windows")
        (x, y), side = corner, self.side(tiling)
        try:
            values = self._data.read(list(tiling.bands), window=windows.Window(x, y, side, side), masked=True)
        except self._rasterio.errors.RasterioIOError as error:
            return Skipped(seq, "decode_error", f"{shown(self._path)}: tile at {x}, {y}: {first_line(error)}")
        if np.ma.getmaskarray(values).all():
            return Skipped(seq, "no_data", f"{shown(self._path)}: tile at {x}, {y} is outside the scene")
        scales = [self._data.scales[band - 1] for band in tiling.bands]
        offsets = [self._data.offsets[band - 1] for band in tiling.bands]
        footprint, middle = place_of(self._data, x, y, side)
        return Frame(levels(values, tiling, scales, offsets), seq, source, pose=middle, footprint=footprint)

    def _gdal_name(self) -> str:
        """The file's absolute name, so that GDAL does not parse it as a URI. A name that is not UTF-8 is opened by its
        descriptor."""
        name = str(self._path.absolute())
        if name.encode("utf-8", "ignore").decode() == name:
            return name
        self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        return f"/proc/self/fd/{self._descriptor}"

    def _release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def close(self) -> None:
        self._data.close()
        self._release()


def levels(values: Any, tiling: Tiling, scales: Sequence[float], offsets: Sequence[float]) -> NDArray[np.uint8]:
    """Convert a masked `[bands, side, side]` to uint8 `[side, side, bands]`; missing data are black.

    Args:
        scales, offsets: per band, from the raster: `stored * scale + offset` is the physical value. `Tiling.scale` is in
            stored units; the offset is applied first. Valid pixels are never 0.
    """
    image: NDArray[Any] = np.moveaxis(values.filled(0), 0, 2)
    if tiling.scale:
        stored = np.asarray(image, np.float32)
        factors = np.array([scale / scales[0] for scale in scales], np.float32)
        shifts = np.array([offset / scales[0] for offset in offsets], np.float32)
        physical = np.where(np.moveaxis(np.ma.getmaskarray(values), 0, 2), 0, stored * factors + shifts)
        image = np.minimum(np.maximum(physical * (255 / tiling.scale), 0), 255)
    return np.ascontiguousarray(np.nan_to_num(image), np.uint8)


def starts(length: int, side: int, step: int) -> Iterator[int]:
    """Start positions of tiles along one side: every `step` pixels, the last one so that the edge is covered."""
    return (min(start, length - side) for start in range(0, length - side + step, step))


def count_starts(length: int, side: int, step: int) -> int:
    """Number of `starts`, computed without generating them: a header may claim two thousand million pixels per side."""
    return len(range(0, length - side + step, step))
