"""Images of more than 8 bits per channel: detected by their header and scaled by a given range.

Image libraries return only the upper eight of sixteen bits. A 12-bit sensor's picture is then nearly black, and
values from 0 to 1 are all zero.
"""

from __future__ import annotations

import io
import struct

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.core.errors import DataRefused
from spatialnet_edge.core.spec import RGB, BandGroup
from spatialnet_training.data.bands import SENTINEL_2, decode
from spatialnet_training.data.tiff_files import is_tiff, named_bands

PNG = b"\x89PNG\r\n\x1a\n"
PNG_DEPTH_AT = 24
"""Offset of the bit depth in a PNG file (ISO/IEC 15948, section 11.2.2)."""

BITS_PER_SAMPLE, SAMPLES_PER_PIXEL, SAMPLE_FORMAT = 258, 277, 339
"""Tags of TIFF 6.0."""


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
            f"bands in the file (GDAL's band descriptions, such as B04, nir or VV): they then go by their physical ranges"
        )
    pixels = read_deep(encoded)
    return None if pixels is None else bands_of(name, scaled(pixels, value_range), groups)


def deep_type(encoded: bytes) -> str | None:
    """The pixel type if it has more than 8 bits, such as `uint16`. None for other images, for files that are not images, and
    for Sentinel-2 products of 13 bands, whose scale is known."""
    if encoded.startswith(PNG):
        return "uint16" if encoded[PNG_DEPTH_AT : PNG_DEPTH_AT + 1] == b"\x10" else None
    if not is_tiff(encoded):
        return None
    from PIL import Image, TiffImagePlugin

    try:
        ifd = TiffImagePlugin.ImageFileDirectory_v2(encoded[:16] if encoded[2:4] in (b"+\0", b"\0+") else encoded[:8])
        stream = io.BytesIO(encoded)
        stream.seek(ifd.next)
        ifd.load(stream)
    except (OSError, SyntaxError, ValueError, struct.error, KeyError, Image.DecompressionBombError):
        return None
    bits, formats = ifd.get(BITS_PER_SAMPLE, (1,)), ifd.get(SAMPLE_FORMAT, (1,))
    most = max(bits if isinstance(bits, tuple) else (bits,))
    if most <= 8 or int(ifd.get(SAMPLES_PER_PIXEL, 1)) == len(SENTINEL_2):
        return None
    kinds = {1: "uint", 2: "int", 3: "float"}
    first = formats[0] if isinstance(formats, tuple) else formats
    return f"{kinds.get(first, 'of unknown type, ')}{most}"


def read_deep(encoded: bytes) -> NDArray[np.float32] | None:
    """The stored values of a TIFF or PNG: float32 `[H, W, bands]`; None if it cannot be read."""
    import cv2

    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is not None:
        found = np.asarray(image, np.float32)
        if found.ndim == 2:
            return found[..., None]
        return found[..., [2, 1, 0, *range(3, found.shape[2])]] if found.shape[2] >= 3 else found
    if not is_tiff(encoded):
        return None
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


def scaled(pixels: NDArray[np.float32], value_range: tuple[float, float]) -> NDArray[np.uint8]:
    """Scale a range to grey levels 0 to 255; values outside are clipped, NaN becomes 0."""
    low, high = value_range
    levels = (np.nan_to_num(pixels, nan=low) - low) * (255 / (high - low))
    return levels.clip(0, 255).round().astype(np.uint8)


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
