"""TIFF files: their pixels, and the band metadata in GDAL's tags (names, scale, offset, unit, no data).

The tags are `GDAL_METADATA` (XML) and `GDAL_NODATA` (text); see GDAL's documentation of its GeoTIFF driver.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.core.bands import band_of, quantise, slope
from spatialnet_edge.core.errors import DataRefused, MissingExtra
from spatialnet_edge.core.stored_bands import StoredBand, stored_band

GDAL_METADATA, GDAL_NODATA = 42112, 42113
BAND_COUNTS = (3, 4, 13)
"""Largest number of pages for a file with one page per band."""
PROJECTED = 1
"""`GTModelTypeGeoKey` of coordinates in metres rather than degrees (OGC 19-008r4)."""

_ITEM = re.compile(r"<Item\s([^>]*)>([^<]*)</Item>")
_ATTRIBUTE = re.compile(r'(\w+)="([^"]*)"')


def is_tiff(encoded: bytes) -> bool:
    return encoded[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@contextmanager
def first_page(encoded: bytes) -> Generator[Any, None, None]:
    """tifffile's first page of a TIFF; None if the bytes are not a TIFF.

    Raises:
        MissingExtra: tifffile is not installed.
    """
    if not is_tiff(encoded):
        yield None
        return
    try:
        import tifffile
    except ModuleNotFoundError as error:
        raise MissingExtra("tifffile", "optimize") from error
    try:
        file = tifffile.TiffFile(io.BytesIO(encoded))
        page = file.pages[0]
    except (ValueError, IndexError, KeyError, TypeError, tifffile.TiffFileError):
        yield None
        return
    with file:
        yield page


def tiff_array(encoded: bytes) -> NDArray[Any] | None:
    """The pixels of a TIFF, `[H, W, bands]`; None if it is not a TIFF or has another number of dimensions.

    Raises:
        MissingExtra: tifffile is not installed.
    """
    if not is_tiff(encoded):
        return None
    try:
        import tifffile
    except ModuleNotFoundError as error:
        raise MissingExtra("tifffile", "optimize") from error
    try:
        with tifffile.TiffFile(io.BytesIO(encoded)) as file:
            image, planar = np.asarray(file.asarray()), file.pages[0].planarconfig == tifffile.PLANARCONFIG.SEPARATE
    except (ValueError, IndexError, tifffile.TiffFileError):
        return None
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    if image.ndim != 3:
        return None
    bands_first = planar or (image.shape[0] in BAND_COUNTS and image.shape[2] not in BAND_COUNTS)
    return image.transpose(1, 2, 0) if bands_first else image


def named_bands(encoded: bytes) -> dict[int, StoredBand]:
    """Band number (from 0) to its storage, for a TIFF with band names; only known names.

    Raises:
        MissingExtra: tifffile is not installed.
        DataRefused: the storage of a band is not supported; see `stored_band`.
    """
    with first_page(encoded) as page:
        return {} if page is None else bands_of_page(page)


def bands_of_page(page: Any) -> dict[int, StoredBand]:
    tag = page.tags.get(GDAL_METADATA)
    stated: dict[int, dict[str, str]] = {}
    for attributes, text in _ITEM.findall("" if tag is None else str(tag.value)):
        found = dict(_ATTRIBUTE.findall(attributes))
        if found.get("sample", "").isdigit() and "role" in found:
            stated.setdefault(int(found["sample"]), {})[found["role"]] = html.unescape(text)
    nodata = nodata_of(page)
    names = {number: band_of(each.get("description", "")) for number, each in sorted(stated.items())}
    try:
        return {
            number: stored_band(
                name,
                str(page.dtype),
                float(each.get("scale", 1)),
                float(each.get("offset", 0)),
                each.get("unittype", ""),
                nodata,
            )
            for number, each in sorted(stated.items())
            if (name := names[number]) is not None and number < page.samplesperpixel
        }
    except ValueError as error:
        raise DataRefused(f"a TIFF whose bands cannot be read: {error}") from error


def read_named(encoded: bytes, metres_per_pixel: float | None = None) -> dict[str, NDArray[np.uint8]] | None:
    """The bands of a TIFF by its band names, as input levels, and the slope if there is elevation.

    Args:
        metres_per_pixel: for the slope; None: read from the file.

    Returns:
        Band name to uint8 `[H, W]`; None if no band has a known name.

    Raises:
        MissingExtra, DataRefused: as `named_bands`.
    """
    with first_page(encoded) as page:
        if page is None or not (bands := bands_of_page(page)):
            return None
        spacing = spacing_of(page) if metres_per_pixel is None else metres_per_pixel
        single = page.samplesperpixel == 1
    image = tiff_array(encoded)
    if image is None:
        return None
    found: dict[str, NDArray[np.uint8]] = {}
    for number, band in bands.items():
        stored = image[..., 0 if single else number]
        found[band.name] = band.settled(stored).to_levels(stored)
        if band.name == "elevation" and spacing is not None and not band.levels:
            found["slope"] = quantise(slope(band.physical(stored), spacing), "slope", found["elevation"] > 0)
    return found


def nodata_of(page: Any) -> float | None:
    """The value for missing data; None if the file has none."""
    tag = page.tags.get(GDAL_NODATA)
    try:
        return None if tag is None else float(str(tag.value).strip("\0 "))
    except ValueError:
        return None


def spacing_of(page: Any) -> float | None:
    """Pixel spacing in metres; None for a raster in degrees or without a georeference."""
    place = page.geotiff_tags or {}
    if int(place.get("GTModelTypeGeoKey", 0)) != PROJECTED or "ModelPixelScale" not in place:
        return None
    return float(place["ModelPixelScale"][0])
