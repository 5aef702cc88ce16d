"""A raster read by GDAL: its bands by name, and windows of its pixels.

A band's name is its description in the file (`B04`, `nir`, `VV`). A file of one band may have it in its file name instead,
like products of Sentinel-2 and elevation models (`T33UUP_20200101_B04.jp2`, `DEM.tif`). Thirteen bands of 16 bits without
descriptions are those of Sentinel-2's level 1C in order.
"""

from __future__ import annotations

import os
import re
import warnings
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, final

import numpy as np

from spatialnet_edge.core.bands import SENTINEL_2, band_of
from spatialnet_edge.core.errors import SourceRefused, first_line
from spatialnet_edge.core.spec import RGB
from spatialnet_edge.core.stored_bands import StoredBand, stored_band
from spatialnet_edge.sources.registry import shown

DRIVERS = ("GTiff", "JP2OpenJPEG", "JPEG", "PNG", "WEBP", "GIF", "BMP", "HFA")
"""Allowed GDAL drivers. Drivers that refer to other files or addresses, such as VRT and WMS, are excluded."""
LARGEST_BLOCK = 512 << 20
"""Bytes per pixel that GDAL may have to decode."""
METRES_A_DEGREE = 111_320.0

LANDSAT = re.compile(r"L[COTEM]\d\d_|HLS\.L30")
"""File names of Landsat, whose band numbers differ from Sentinel-2's."""


@final
class Raster:
    """A file opened by GDAL.

    Attributes:
        path: of the file.
        data: rasterio's dataset; on another raster's grid after `warp_to`.
        bands: band name to its number in the file (from 1) and its storage; only bands with known names.

    Raises:
        SourceRefused: GDAL cannot read it, or its blocks are too large.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None
        self._rasterio: Any = import_module("rasterio")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", self._rasterio.errors.NotGeoreferencedWarning)
            try:
                with self._rasterio.Env():  # GDAL registers its drivers in an environment
                    self.data: Any = self._rasterio.DatasetReader(self._gdal_name(), driver=list(DRIVERS))
            except self._rasterio.errors.RasterioError as error:
                self._release()
                raise SourceRefused(
                    f"{shown(path)}: GDAL cannot read this raster: {first_line(error)}; supported: {', '.join(DRIVERS)}"
                ) from error
        self._file: Any = self.data
        try:
            self._check_blocks()
            self.bands = named_bands(self.data, path)
        except SourceRefused:
            self.close()
            raise

    def _check_blocks(self) -> None:
        value = np.dtype(self.data.dtypes[0]).itemsize
        block = max(height * width for height, width in self.data.block_shapes) * self.data.count * value
        if block > LARGEST_BLOCK:
            raise SourceRefused(
                f"{shown(self.path)}: is stored in blocks of {self.data.block_shapes[0]} pixels; one of them would take more "
                f"than {LARGEST_BLOCK >> 20} MiB; convert it to tiles: gdal_translate -co TILED=YES"
            )

    def warp_to(self, grid: Raster) -> None:
        """Resample to another raster's grid (bilinear) in later reads; pixels outside of the file have no data.

        Raises:
            SourceRefused: one of the two has no georeference, or cannot be transformed to the other.
        """
        for each in (grid, self):
            if each.data.crs is None or each.data.transform.is_identity:
                raise SourceRefused(
                    f"{shown(each.path)}: has no georeference; rasters that are read together need a coordinate "
                    "system and a transform"
                )
        vrt: Any = import_module("rasterio.vrt")
        resampling: Any = import_module("rasterio.enums").Resampling.bilinear
        target = {name: getattr(grid.data, name) for name in ("crs", "transform", "width", "height")}
        try:
            self.data = vrt.WarpedVRT(
                self._file, resampling=resampling, nodata=self._file.nodata, add_alpha=self._file.nodata is None, **target
            )
        except (self._rasterio.errors.RasterioError, ValueError) as error:
            raise SourceRefused(
                f"{shown(self.path)}: cannot be resampled to the grid of {shown(grid.path)}: {first_line(error)}"
            ) from error

    def read(self, numbers: list[int], x: int, y: int, side: int) -> Any:
        """Bands by their numbers in a square window: a masked array `[bands, side, side]` of stored numbers.

        Raises:
            SourceRefused: the file is damaged there.
        """
        windows: Any = import_module("rasterio.windows")
        window = windows.Window(x, y, side, side)
        try:
            if self.data is self._file or self._file.nodata is not None:
                return self.data.read(numbers, window=window, masked=True)
            *values, covered = self.data.read(
                [*numbers, self.data.count], window=window
            )  # the last band is where the file reaches
        except self._rasterio.errors.RasterioError as error:
            raise SourceRefused(f"{shown(self.path)}: tile at {x}, {y}: {first_line(error)}") from error
        return np.ma.array(np.stack(values), mask=np.broadcast_to(covered == 0, (len(values), side, side)))

    @property
    def metres_per_pixel(self) -> float | None:
        """Pixel spacing from row to row; None without a georeference."""
        crs, spacing = self.data.crs, abs(float(self.data.transform.e))
        if crs is None or self.data.transform.is_identity or not (crs.is_geographic or crs.is_projected):
            return None
        return spacing * (METRES_A_DEGREE if crs.is_geographic else float(crs.linear_units_factor[1]))

    def _gdal_name(self) -> str:
        """The file's absolute name, so that GDAL does not parse it as a URI. A name that is not UTF-8 is opened by its
        descriptor."""
        name = str(self.path.absolute())
        if name.encode("utf-8", "ignore").decode() == name:
            return name
        self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        return f"/proc/self/fd/{self._descriptor}"

    def _release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def close(self) -> None:
        if self.data is not self._file:
            self.data.close()
        self._file.close()
        self._release()


def named_bands(data: Any, path: Path) -> dict[str, tuple[int, StoredBand]]:
    """Band name to its number (from 1) and its storage; of two bands with the same name the first.

    Raises:
        SourceRefused: the storage of a band is not supported.
    """
    found: dict[str, tuple[int, StoredBand]] = {}
    for index, name in enumerate(band_names(data, path)):
        if name is None or name in found:
            continue
        try:
            stored = stored_band(
                name,
                data.dtypes[index],
                data.scales[index],
                data.offsets[index],
                data.units[index] or "",
                data.nodatavals[index],
            )
        except ValueError as error:
            raise SourceRefused(f"{shown(path)}: {error}") from error
        found[name] = (index + 1, stored)
    return found


def band_names(data: Any, path: Path) -> list[str | None]:
    """The name of each band; None if unknown."""
    described = [band_of(text or "") for text in data.descriptions]
    if any(described):
        return described
    if data.dtypes[0] == "uint8":
        colours = [band_of(each.name) for each in data.colorinterp]
        if set(RGB.bands) <= set(colours):
            return colours
    elif data.count == len(SENTINEL_2):
        return [*SENTINEL_2]
    return [name_in_file_name(path)] if data.count == 1 else []


def name_in_file_name(path: Path) -> str | None:
    """The band in a file name such as `…_B04_10m.jp2` or `DEM.tif`; None if there is none.

    In a longer name, only capital letters count as a band name, as in product names.
    """
    with suppress(UnicodeError):
        if LANDSAT.match(path.name) is None:
            words = [word for word in re.split(r"[^A-Za-z0-9]+", path.stem) if word.isupper()]
            return band_of(path.stem) or next((name for word in reversed(words) if (name := band_of(word))), None)
    return None
