"""Band groups: reading bands from files, and deriving bands that no sensor measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.core.bands import GROUPS, RANGES, SENTINEL_2, compose, quantise, slope
from spatialnet_edge.core.errors import UsageError
from spatialnet_edge.core.pixels import decode_rgb
from spatialnet_edge.core.spec import RGB, BandGroup
from spatialnet_training.data.tiff_files import read_named, tiff_array


def synthetic_thermal(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Synthetic thermal band, derived from colour. NOT a measurement: for training and testing with a second modality.

    Vegetation and water are cool, dry and sealed ground is warm; the result is blurred, because thermal cameras are coarser.
    Takes uint8 `[H, W, 3]`, returns uint8 `[H, W, 1]`.
    """
    from scipy.ndimage import gaussian_filter

    red, green, blue = (rgb[..., band].astype(np.float32) for band in range(3))
    cool = 2 * green - red - blue + np.maximum(blue - red, 0)
    warm = np.clip(110 + 0.35 * (red - 90) - 1.2 * cool, 0, 255)
    return gaussian_filter(warm, 1.5).round().astype(np.uint8)[..., None]


DERIVED: dict[str, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {"synthetic_thermal": synthetic_thermal}
"""Groups that are derived from red, green and blue if a file does not have them."""


def groups_named(names: tuple[str, ...]) -> tuple[BandGroup, ...]:
    """The groups of a configuration.

    Raises:
        UsageError: there is no such group.
    """
    if unknown := [name for name in names if name not in GROUPS]:
        raise UsageError(f"no band group '{unknown[0]}'; available: {', '.join(GROUPS)}")
    return tuple(GROUPS[name] for name in names)


Layout = Mapping[str, float]
"""Bands of a raster in order, each with the factor from stored integers to physical values."""

SENTINEL_2_LAYOUT: Layout = dict.fromkeys(SENTINEL_2, 1e-4)


def decode(
    encoded: bytes, groups: tuple[BandGroup, ...], layout: Layout | None = None, metres_per_pixel: float | None = None
) -> NDArray[np.uint8] | None:
    """Decode a file to the bands of `groups`: uint8 `[H, W, bands]`; None if it is not an image.

    A photograph has red, green and blue. A TIFF has the bands that it names; a TIFF of 13 bands without names is from Sentinel-2.
    A missing group is derived if possible, otherwise it is zero, which means "absent".

    If colour suffices, OpenCV reads first, as in the runtime's sources: it supports every TIFF compression, but at most four
    bands.

    Args:
        layout: of a TIFF with measured bands; None: the names in the file, or else derived from the number of bands.
        metres_per_pixel: of a TIFF with elevation, to compute the slope.

    Raises:
        DataRefused: a TIFF names a band whose values cannot be converted.
    """
    if layout is not None:
        bands = read_measured(encoded, layout, metres_per_pixel)
    else:
        colour_is_enough = all(group.name in DERIVED or set(group.bands) <= set(RGB.bands) for group in groups)
        first, second = (read_colour, read_tiff) if colour_is_enough else (read_tiff, read_colour)
        bands = read_named(encoded) or first(encoded) or second(encoded)
    if not bands:
        return None
    if "red" in bands:
        colour = np.dstack([bands[band] for band in RGB.bands])
        bands |= {name: make(colour)[..., 0] for name, make in DERIVED.items() if any(group.name == name for group in groups)}
    return compose(bands, groups)


def read_colour(encoded: bytes) -> dict[str, NDArray[np.uint8]] | None:
    """Red, green and blue, decoded as in the runtime; None if that fails."""
    try:
        image = decode_rgb(encoded)
    except ValueError:
        return None
    return {name: image[..., index] for index, name in enumerate(RGB.bands)}


def read_tiff(encoded: bytes) -> dict[str, NDArray[np.uint8]] | None:
    """The bands of a TIFF by name: 13 bands are Sentinel-2's, three or four are red, green, blue and near infrared; None for
    others."""
    image = tiff_array(encoded)
    if image is None:
        return None
    names = {13: SENTINEL_2, 4: (*RGB.bands, "nir"), 3: RGB.bands}.get(image.shape[2])
    if names is None:
        return None
    bands = {name: image[..., index] for index, name in enumerate(names)}
    if image.dtype == np.uint8:
        return {name: values.astype(np.uint8) for name, values in bands.items()}
    return {name: quantise(values * np.float32(SENTINEL_2_LAYOUT[name]), name) for name, values in bands.items()}


def read_measured(encoded: bytes, layout: Layout, metres_per_pixel: float | None) -> dict[str, NDArray[np.uint8]] | None:
    """The bands of a TIFF with a known layout, and the slope if it has elevation; None for another number of bands."""
    image = tiff_array(encoded)
    if image is None or image.shape[2] != len(layout):
        return None
    physical = {name: image[..., index] * np.float32(factor) for index, (name, factor) in enumerate(layout.items())}
    if "elevation" in physical and metres_per_pixel is not None:
        physical["slope"] = slope(physical["elevation"], metres_per_pixel)
    return {name: quantise(values, name) for name, values in physical.items() if name in RANGES}
