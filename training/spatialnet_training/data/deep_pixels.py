"""Images of more than 8 bits per channel: detected by their header and scaled by a given range.

Image libraries return only the upper eight of sixteen bits. A 12-bit sensor's picture is then nearly black, and
values from 0 to 1 are all zero.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.core.deep_still import decode_deep, depth_of, scaled
from spatialnet_edge.core.errors import DataRefused
from spatialnet_edge.core.spec import RGB, BandGroup
from spatialnet_edge.core.still_decoder import NotDecoded, tiff_layout
from spatialnet_training.data.bands import SENTINEL_2, decode
from spatialnet_training.data.tiff_files import is_tiff, named_bands


def decode_with_range(
    name: str, encoded: bytes, groups: tuple[BandGroup, ...], value_range: tuple[float, float] | None
) -> NDArray[np.uint8] | None:
    """Decode a file to the bands of `groups`: uint8 `[H, W, bands]`; None if it is not an image.

    Args:
        name: of the file, for messages.
        value_range: pixel values that become 0 and 255, for images of more than 8 bits.

    Raises:
        DataRefused: the image has more than 8 bits and no range was given, or the meaning of its bands is unknown.
    """
    if not encoded:
        return None
    depth = deep_type(encoded)
    if depth is None or (value_range is None and named_bands(encoded)):
        return decode(encoded, groups)
    if value_range is None:
        raise DataRefused(
            f"{name}: its pixels are {depth}; expected 8 bits per channel; give the values for black and white with "
            f"--range LOW,HIGH, such as --range 0,4095 for a 12-bit sensor or --range 0,1 for reflectances, or name its "
            f"bands in the file (GDAL's band descriptions, such as B04, nir or VV): their physical ranges then apply"
        )
    pixels = read_deep(encoded)
    return None if pixels is None else bands_of(name, scaled(pixels, value_range), groups)


def deep_type(encoded: bytes) -> str | None:
    """What the pixels are when they have more than 8 bits, such as `uint16`; None for others, for what is no image, and for
    Sentinel-2 products of 13 bands, whose scale is known."""
    if (depth := depth_of(encoded)) is not None or not is_tiff(encoded):
        return depth
    try:
        bits, bands, kind = tiff_layout(encoded)
    except NotDecoded:
        return None
    return f"{kind}{bits}" if bits > 8 and bands != len(SENTINEL_2) else None


def read_deep(encoded: bytes) -> NDArray[np.float32] | None:
    """The numbers in a TIFF or PNG as they are: float32 `[H, W, bands]`; None if it cannot be read.

    What the runtime's decoder does not read, such as many bands, tifffile may.
    """
    if depth_of(encoded) is None:
        return tiff_values(encoded) if is_tiff(encoded) else None
    try:
        return decode_deep(encoded)
    except NotDecoded:
        return tiff_values(encoded) if is_tiff(encoded) else None


def tiff_values(encoded: bytes) -> NDArray[np.float32] | None:
    """The numbers in a TIFF, by tifffile: float32 `[H, W, bands]`; None if it cannot be read."""
    import tifffile

    try:
        found = np.asarray(tifffile.imread(io.BytesIO(encoded)), np.float32)
    except (ValueError, IndexError, tifffile.TiffFileError):
        return None
    if found.ndim == 2:
        return found[..., None]
    if found.ndim != 3:
        return None
    return found.transpose(1, 2, 0) if found.shape[0] < found.shape[2] and found.shape[0] <= 16 else found


def bands_of(name: str, levels: NDArray[np.uint8], groups: tuple[BandGroup, ...]) -> NDArray[np.uint8]:
    """Select the bands of the groups: one band is grey, three are red, green and blue, the fourth is near infrared.

    Raises:
        DataRefused: the file has another number of bands, or lacks required ones.
    """
    count = levels.shape[2]
    names = {1: RGB.bands, 3: RGB.bands, 4: (*RGB.bands, "nir")}.get(count, ())
    wanted = [band for group in groups for band in group.bands]
    if missing := [band for band in wanted if band not in names]:
        raise DataRefused(f"{name}: has {count} unnamed bands; the network needs {', '.join(missing)}")
    return np.ascontiguousarray(levels[..., [min(names.index(band), count - 1) for band in wanted]])
