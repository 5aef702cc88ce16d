"""Band groups: which bands there are, how they are read from a file, and bands derived from others where no sensor gave them."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.core.errors import MissingExtra, UsageError
from spatialnet_edge.core.pixels import decode_rgb
from spatialnet_edge.core.spec import RGB, BandGroup

GROUPS: dict[str, BandGroup] = {
    "rgb": RGB,
    "red": BandGroup(name="red", bands=("red",)),
    "green": BandGroup(name="green", bands=("green",)),
    "blue": BandGroup(name="blue", bands=("blue",)),
    "nir": BandGroup(name="nir", bands=("nir",)),
    "red_edge": BandGroup(name="red_edge", bands=("red_edge_1", "red_edge_2", "red_edge_3", "red_edge_4")),
    "swir": BandGroup(name="swir", bands=("swir_1", "swir_2")),
    "atmosphere": BandGroup(name="atmosphere", bands=("aerosol", "water_vapour", "cirrus")),
    "thermal": BandGroup(name="thermal", bands=("thermal",)),
    "sar": BandGroup(name="sar", bands=("vv", "vh")),
    "synthetic_thermal": BandGroup(name="synthetic_thermal", bands=("synthetic_thermal",)),
}
"""The groups that a configuration may name."""

SENTINEL_2 = (
    "aerosol", "blue", "green", "red", "red_edge_1", "red_edge_2", "red_edge_3", "nir", "red_edge_4", "water_vapour",
    "cirrus", "swir_1", "swir_2",
)  # fmt: skip
"""Band order of a 13-band Sentinel-2 level-1C GeoTIFF (B1 to B8, B8A, B9 to B12), as in EuroSAT's multispectral edition."""

FULL_SCALE = 4000
"""Sentinel-2 digital number (reflectance × 10,000) that becomes 255: bright soil and roofs are below, clouds saturate."""


def synthetic_thermal(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """NOT a measurement: a stand-in for a thermal camera, derived from colour, to train and test with a second modality.

    Vegetation and water are cool, dry and sealed ground is warm; blurred, as thermal cameras are coarser. Takes and gives uint8
    `[H, W, 3]` and `[H, W, 1]`.
    """
    from scipy.ndimage import gaussian_filter

    red, green, blue = (rgb[..., band].astype(np.float32) for band in range(3))
    cool = 2 * green - red - blue + np.maximum(blue - red, 0)
    warm = np.clip(110 + 0.35 * (red - 90) - 1.2 * cool, 0, 255)
    return gaussian_filter(warm, 1.5).round().astype(np.uint8)[..., None]


DERIVED: dict[str, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {"synthetic_thermal": synthetic_thermal}
"""Groups that are made from red, green and blue when a file has no such band."""


def groups_named(names: tuple[str, ...]) -> tuple[BandGroup, ...]:
    """The groups of a configuration.

    Raises:
        UsageError: there is no such group.
    """
    if unknown := [name for name in names if name not in GROUPS]:
        raise UsageError(f"no band group '{unknown[0]}'; there are {', '.join(GROUPS)}")
    return tuple(GROUPS[name] for name in names)


def decode(encoded: bytes, groups: tuple[BandGroup, ...]) -> NDArray[np.uint8] | None:
    """Decode a file to the bands of `groups`: uint8 `[H, W, bands]`; None if it is no image.

    A photograph gives red, green and blue; a TIFF of 13 bands is Sentinel-2's. A group that the file does not hold is derived
    where that is possible, else it is zero, which means "absent".

    Where colour is enough OpenCV reads first, as the runtime's own sources do: it knows every compression of TIFF, but no more
    than four bands.
    """
    colour_is_enough = all(group.name in DERIVED or set(group.bands) <= set(RGB.bands) for group in groups)
    first, second = (read_colour, read_tiff) if colour_is_enough else (read_tiff, read_colour)
    bands = first(encoded) or second(encoded)
    if not bands:
        return None
    shape = next(iter(bands.values())).shape
    parts: list[NDArray[np.uint8]] = []
    for group in groups:
        if all(band in bands for band in group.bands):
            parts.append(np.dstack([bands[band] for band in group.bands]).astype(np.uint8))
        elif group.name in DERIVED and "red" in bands:
            parts.append(DERIVED[group.name](np.dstack([bands[band] for band in RGB.bands]).astype(np.uint8)))
        else:
            parts.append(np.zeros((*shape, len(group.bands)), np.uint8))
    return np.concatenate(parts, axis=2)


def read_colour(encoded: bytes) -> dict[str, NDArray[np.uint8]] | None:
    """Red, green and blue, as the runtime decodes them; None if it does not."""
    try:
        image = decode_rgb(encoded)
    except ValueError:
        return None
    return {name: image[..., index] for index, name in enumerate(RGB.bands)}


def is_tiff(encoded: bytes) -> bool:
    return encoded[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_tiff(encoded: bytes) -> dict[str, NDArray[np.uint8]] | None:
    """The bands of a TIFF by name: 13 are Sentinel-2's, three or four are red, green, blue and near infrared; None for others.

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
        image = np.asarray(tifffile.imread(io.BytesIO(encoded)))
    except (ValueError, IndexError, tifffile.TiffFileError):
        return None
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    if image.ndim != 3:
        return None
    if image.shape[0] in (3, 4, 13) and image.shape[2] not in (3, 4, 13):
        image = image.transpose(1, 2, 0)  # planar: bands first
    if image.dtype != np.uint8:
        image = np.clip(image.astype(np.float32) * (255 / FULL_SCALE), 0, 255).round().astype(np.uint8)
    names = {13: SENTINEL_2, 4: (*RGB.bands, "nir"), 3: RGB.bands}.get(image.shape[2])
    return None if names is None else {name: image[..., index] for index, name in enumerate(names)}
