"""A georeferenced scene, read window by window: every tile becomes a frame that knows where it lies.

`scene:S2.tif?tile=256&overlap=0&bands=4,3,2&scale=3000` reads 256×256 pixels at a time, so that a scene of any size
fits into memory.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.errors import MissingExtra, SourceRefused, first_line
from spatialnet_edge.frames import Frame, Pose, Skipped
from spatialnet_edge.sources import options_of, regular_file

DEFAULTS = {"tile": "256", "overlap": "0", "bands": "", "scale": "0"}
WGS84 = "EPSG:4326"
LARGEST_TILE = 8192


@final
class SceneSource:
    """The tiles of a raster that GDAL reads, row by row; those at the right and lower edges reach back over their neighbours.

    Args:
        rest: path and options. `tile`: side in pixels; `overlap`: pixels that neighbours share; `bands`: which become red, green
            and blue, or, for a model of several groups of bands, its bands in their order (from 1; the first three by default);
            `scale`: the value that becomes 255, for rasters of more than 8 bits.

    Raises:
        MissingExtra: rasterio is not installed.
        SourceRefused: not a raster, or options that do not fit it.
    """

    live = False
    fps = None

    def __init__(self, rest: str) -> None:
        name, _, query = rest.partition("?")
        self.uri = f"scene:{rest}"
        options = self._options(query)
        path = regular_file(name)
        try:
            rasterio: Any = import_module("rasterio")
        except ModuleNotFoundError as error:
            raise MissingExtra("rasterio", "geo") from error
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            try:
                self._raster: Any = rasterio.open(path)
            except rasterio.errors.RasterioIOError as error:
                raise SourceRefused(f"{path}: GDAL does not read this raster: {first_line(error)}") from error
        self._path: Path = path
        self._side = min(int(options["tile"]), self._raster.width, self._raster.height)
        self._step = max(1, self._side - int(options["overlap"]))
        self._scale = float(options["scale"])
        self._bands = [int(band) for band in options["bands"].split(",") if band] or [1, 2, 3]
        if not all(1 <= band <= self._raster.count for band in self._bands):
            raise SourceRefused(f"{path}: has {self._raster.count} bands; bands={options['bands'] or '1,2,3'} names others")
        if self._raster.dtypes[0] != "uint8" and not self._scale:
            raise SourceRefused(
                f"{path}: holds {self._raster.dtypes[0]}; say with scale= which value becomes 255 (Sentinel-2 reflectance: 3000)"
            )
        self._corners = [(x, y) for y in starts(self._raster.height, self._side, self._step)
                         for x in starts(self._raster.width, self._side, self._step)]  # fmt: skip
        self.length = len(self._corners)

    def __iter__(self) -> Iterator[Frame | Skipped]:
        rasterio: Any = import_module("rasterio")
        windows: Any = import_module("rasterio.windows")
        for seq, (x, y) in enumerate(self._corners):
            window = windows.Window(x, y, self._side, self._side)
            try:
                values = self._raster.read(self._bands, window=window, masked=True)
            except rasterio.errors.RasterioIOError as error:
                yield Skipped(seq, "decode_error", f"{self._path}: tile at {x}, {y}: {first_line(error)}")
                continue
            if np.ma.getmaskarray(values).all():
                yield Skipped(seq, "no_data", f"{self._path}: tile at {x}, {y} is outside the scene")
                continue
            footprint = self._footprint(x, y)
            yield Frame(self._pixels(values), seq, self.uri, pose=centre(footprint), footprint=footprint)

    def close(self) -> None:
        self._raster.close()

    def _options(self, query: str) -> dict[str, str]:
        options = options_of(self.uri, query, DEFAULTS)
        try:
            tile, overlap, scale = int(options["tile"]), int(options["overlap"]), float(options["scale"])
            _ = [int(band) for band in options["bands"].split(",") if band]
        except ValueError as error:
            raise SourceRefused(f"{self.uri}: {error}; expected for instance scene:S2.tif?tile=256&bands=4,3,2") from error
        if not (8 <= tile <= LARGEST_TILE and 0 <= overlap < tile and scale >= 0):
            raise SourceRefused(
                f"{self.uri}: tile must be from 8 to {LARGEST_TILE}, overlap less than tile, scale not negative"
            )
        return options

    def _pixels(self, values: Any) -> NDArray[np.uint8]:
        """uint8 `[side, side, bands]`; no data is black."""
        image: NDArray[Any] = np.nan_to_num(np.moveaxis(values.filled(0), 0, 2), copy=False)
        if self._scale:
            image = np.minimum(np.maximum(image.astype(np.float32) * (255 / self._scale), 0), 255)
        return np.ascontiguousarray(image, np.uint8)

    def _footprint(self, x: int, y: int) -> tuple[tuple[float, float], ...]:
        """Anticlockwise from the lower left, as RFC 7946 wants it; empty for a raster without georeference."""
        if self._raster.crs is None:
            return ()
        warp: Any = import_module("rasterio.warp")
        transform: Any = import_module("rasterio.transform")
        side = self._side
        rows, columns = (y + side, y + side, y, y), (x, x + side, x + side, x)
        eastings, northings = transform.xy(self._raster.transform, rows, columns, offset="ul")
        longitudes, latitudes = warp.transform(self._raster.crs, WGS84, list(eastings), list(northings))
        return tuple((round(lon, 7), round(lat, 7)) for lon, lat in zip(longitudes, latitudes, strict=True))


def starts(length: int, side: int, step: int) -> list[int]:
    """Where tiles begin along one side: every `step` pixels, and at last so that the edge is covered."""
    inside = list(range(0, length - side + 1, step))
    return inside if inside[-1] + side == length else [*inside, length - side]


def centre(footprint: tuple[tuple[float, float], ...]) -> Pose | None:
    """The middle of a footprint, at height 0; None without one."""
    if not footprint:
        return None
    longitude = sum(corner[0] for corner in footprint) / len(footprint)
    latitude = sum(corner[1] for corner in footprint) / len(footprint)
    return Pose(round(latitude, 7), round(longitude, 7), 0.0)
