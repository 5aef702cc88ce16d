"""Bands: their names, and the physical range of the 256 input levels.

Level 0 is the lower end of a band's range, level 255 the upper end. A valid pixel is never 0 in every band of
a group, because only zeros mean that the group is absent (decision 8). So valid pixels use levels 1 to 255.

Reflectance is a fraction (the integers of Sentinel-2 and HLS × 0.0001), radar backscatter is in decibels, elevation in metres.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.core.spec import RGB, BandGroup, PhysicalRange

REFLECTANCE = PhysicalRange(unit="reflectance", low=0.0, high=0.4)
"""Ranges of the optical bands. Bright soil and roofs are below the upper end; clouds saturate, and so do a few per cent of
bright vegetation in near infrared. `scene:` with `scale=4000` gives the same levels from Sentinel-2's integers."""
INFRARED = REFLECTANCE
VV = PhysicalRange(unit="dB", low=-30.0, high=5.0)
VH = PhysicalRange(unit="dB", low=-35.0, high=0.0)
ELEVATION = PhysicalRange(unit="m", low=-100.0, high=4000.0)
SLOPE = PhysicalRange(unit="m/m", low=0.0, high=1.0)
THERMAL = PhysicalRange(unit="K", low=240.0, high=340.0)


def _group(name: str, **bands: PhysicalRange) -> BandGroup:
    return BandGroup(name=name, bands=tuple(bands), ranges=tuple(bands.values()))


GROUPS: dict[str, BandGroup] = {
    "rgb": RGB,
    "red": BandGroup(name="red", bands=("red",)),
    "green": BandGroup(name="green", bands=("green",)),
    "blue": BandGroup(name="blue", bands=("blue",)),
    "nir": _group("nir", nir=INFRARED),
    "red_edge": _group("red_edge", red_edge_1=INFRARED, red_edge_2=INFRARED, red_edge_3=INFRARED, red_edge_4=INFRARED),
    "swir": _group("swir", swir_1=INFRARED, swir_2=INFRARED),
    "atmosphere": _group("atmosphere", aerosol=REFLECTANCE, water_vapour=INFRARED, cirrus=INFRARED),
    "thermal": _group("thermal", thermal=THERMAL),
    "sar": _group("sar", vv=VV, vh=VH),
    "vv": _group("vv", vv=VV),
    "vh": _group("vh", vh=VH),
    "elevation": _group("elevation", elevation=ELEVATION, slope=SLOPE),
    "synthetic_thermal": BandGroup(name="synthetic_thermal", bands=("synthetic_thermal",)),
}
"""The band groups that a configuration may name. A group without ranges has camera levels."""

RANGES: dict[str, PhysicalRange] = {
    **dict.fromkeys(RGB.bands, REFLECTANCE),
    **{band: each for group in GROUPS.values() for band, each in zip(group.bands, group.ranges, strict=False)},
}
"""The physical range of each measured band. Camera colours are already levels and need no range."""

SENTINEL_2 = (
    "aerosol", "blue", "green", "red", "red_edge_1", "red_edge_2", "red_edge_3", "nir", "red_edge_4", "water_vapour",
    "cirrus", "swir_1", "swir_2",
)  # fmt: skip
"""Band order of a 13-band Sentinel-2 level-1C GeoTIFF (B1 to B8, B8A, B9 to B12), as in EuroSAT's multispectral edition."""

_DESCRIPTIONS: dict[str, str] = {
    # Sentinel-2 MSI (ESA, Sentinel-2 Products Specification Document)
    "b1": "aerosol", "b2": "blue", "b3": "green", "b4": "red", "b5": "red_edge_1", "b6": "red_edge_2", "b7": "red_edge_3",
    "b8": "nir", "b8a": "red_edge_4", "b9": "water_vapour", "b10": "cirrus", "b11": "swir_1", "b12": "swir_2",
    # common names
    "coastal": "aerosol", "nir08": "nir", "nir1": "nir", "near infrared": "nir", "near-infrared": "nir", "nir narrow": "red_edge_4",
    "swir16": "swir_1", "swir1": "swir_1", "swir22": "swir_2", "swir2": "swir_2", "dem": "elevation", "height": "elevation",
    "altitude": "elevation", "sigma0_vv": "vv", "sigma0_vh": "vh", "gamma0_vv": "vv", "gamma0_vh": "vh", "lwir": "thermal",
    "dsm": "elevation", "dtm": "elevation",
}  # fmt: skip


def band_of(description: str) -> str | None:
    """The band for a raster's band description, such as `B04`, `Red` or `VV`; None if unknown."""
    text = description.strip().casefold().replace("band ", "b").replace("band_", "b")
    if text.startswith("b0"):
        text = "b" + text[2:]
    text = text.partition(" (")[0].partition(",")[0].strip()
    name = _DESCRIPTIONS.get(text, text.replace(" ", "_").replace("-", "_"))
    return name if name in RANGES else None


def quantise(
    values: NDArray[Any], band: str, valid: NDArray[np.bool_] | None = None, span: PhysicalRange | None = None
) -> NDArray[np.uint8]:
    """Convert physical values of one band to input levels.

    Args:
        values: `[H, W]` in the unit of the band's range.
        band: a key of `RANGES`.
        valid: bool `[H, W]`; False where there is no data. None: every finite value is valid.
        span: what levels 0 and 255 stand for; None for `RANGES[band]`.

    Returns:
        uint8 `[H, W]`: 1 to 255 where there is data, 0 elsewhere.
    """
    span = RANGES[band] if span is None else span
    known = np.isfinite(values) if valid is None else valid & np.isfinite(values)
    physical: NDArray[np.float32] = np.where(known, values, span.low).astype(np.float32)
    levels = np.round((physical - span.low) * np.float32(255 / (span.high - span.low)))
    return np.where(known, np.minimum(np.maximum(levels, 1), 255), 0).astype(np.uint8)


def slope(elevation: NDArray[Any], metres_per_pixel: float) -> NDArray[np.float32]:
    """Metres of height per metre of distance, float32 `[H, W]`: central differences."""
    around: NDArray[np.float32] = np.pad(elevation.astype(np.float32), 1, mode="edge")
    rows = (around[2:, 1:-1] - around[:-2, 1:-1]) / np.float32(2 * metres_per_pixel)
    columns = (around[1:-1, 2:] - around[1:-1, :-2]) / np.float32(2 * metres_per_pixel)
    return np.sqrt(rows**2 + columns**2)


def compose(bands: Mapping[str, NDArray[np.uint8]], groups: Sequence[BandGroup]) -> NDArray[np.uint8]:
    """Compose the input of a model: uint8 `[H, W, channels]`, the bands of the groups in order.

    A missing band is zero. A group without any of its bands is zero everywhere, which means "absent".

    Args:
        bands: band name to uint8 `[H, W]`, all of one shape; at least one.
    """
    empty = np.zeros_like(next(iter(bands.values())))
    return np.ascontiguousarray(np.dstack([bands.get(band, empty) for group in groups for band in group.bands]))


def absent_parts(pixels: NDArray[np.uint8], groups: Sequence[BandGroup]) -> tuple[str, ...]:
    """What a model's input lacks: names of groups, by the rule of the deployed graph, and single measured bands of the others.

    An input without any group is a dark picture, and one of a single group without measured bands lacks nothing: both give
    nothing. A band is named with its group, such as `sar.vh`. The network reads such a group with that band as zeros.

    Args:
        pixels: uint8 `[H, W, channels]`.
    """
    if len(groups) == 1 and not groups[0].ranges:
        return ()
    present = seen_bands(pixels[None], groups)
    if not any(seen.any() for seen in present):
        return ()
    found: list[str] = []
    for group, seen in zip(groups, present, strict=True):
        if not seen.any():
            found.append(group.name)
        elif group.ranges:
            found += [f"{group.name}.{band}" for band, there in zip(group.bands, seen[0], strict=True) if not there]
    return tuple(found)


def present_bands(sample: NDArray[np.uint8], groups: Sequence[BandGroup], absent: Sequence[str]) -> NDArray[np.uint8]:
    """The columns of a sample of pixels, uint8 `[pixels, channels]`, that belong to groups which are there."""
    if not absent:
        return sample
    kept = [group.name not in absent for group in groups for _ in group.bands]
    return np.ascontiguousarray(sample[:, kept])


def present_groups(images: NDArray[np.uint8], groups: Sequence[BandGroup]) -> NDArray[np.float32]:
    """Which groups each image has: float32 `[N, groups]` of 0 and 1, by the rule of the deployed graph.

    Args:
        images: uint8 `[N, H, W, channels]`.
    """
    return np.stack([seen.any(axis=1) for seen in seen_bands(images, groups)], axis=1).astype(np.float32)


def seen_bands(images: NDArray[np.uint8], groups: Sequence[BandGroup]) -> list[NDArray[np.bool_]]:
    """Which bands of each group each image has: bool `[N, bands]` for each group."""
    ends = np.cumsum([len(group.bands) for group in groups])[:-1]
    return np.split(images.max(axis=(1, 2)) > 0, ends, axis=1)
