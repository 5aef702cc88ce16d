"""How a raster stores a band, and how its numbers become physical values and levels of the input.

Sources: scale, offset and unit are those of GDAL's raster bands (`GDALRasterBand`); integers of Sentinel-2 and of Harmonised
Landsat Sentinel are reflectance × 10000 (ESA, Sentinel-2 Products Specification Document; NASA, HLS Product User Guide).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.core.bands import RANGES, quantise
from spatialnet_edge.core.spec import PhysicalRange

DIGITAL_NUMBER = 1e-4
"""Reflectance of one step, where an optical raster of 16-bit integers states no scale."""

LEAST_POWER = 1e-5
"""Linear power below this counts as this, -50 dB: the logarithm of 0 has no value."""

LINEAR_POWER = ("1", "power", "linear", "linear power", "intensity")
"""Units of radar backscatter that is not in decibels."""

_SAME = (1.0, 0.0)
_UNITS: dict[str, dict[str, tuple[float, float]]] = {
    "reflectance": {"": _SAME, "reflectance": _SAME, "1": _SAME, "%": (0.01, 0.0), "percent": (0.01, 0.0)},
    "dB": {"": _SAME, "db": _SAME, "decibel": _SAME, **dict.fromkeys(LINEAR_POWER, _SAME)},
    "m": {"": _SAME, **dict.fromkeys(("m", "metre", "meter", "metres", "meters"), _SAME), "ft": (0.3048, 0.0)},
    "m/m": {"": _SAME, "m/m": _SAME, "1": _SAME},
    "K": {"": _SAME, "k": _SAME, "kelvin": _SAME, **dict.fromkeys(("c", "°c", "degc", "celsius"), (1.0, 273.15))},
}
"""Unit of a range to the units that rasters state, each with the factor and the term that convert it."""


@dataclass(frozen=True, slots=True)
class StoredBand:
    """One band of a raster: `stored * scale + offset` is the physical value, in the unit of `RANGES[name]`.

    Attributes:
        name: a key of `core.bands.RANGES`.
        levels: 8 bits without a scale, which are levels of the input already.
        linear: whether radar backscatter is linear power rather than decibels; None where the raster does not say.
        nodata: the stored number that stands for no data; None where there is none.
    """

    name: str
    scale: float = 1.0
    offset: float = 0.0
    levels: bool = False
    linear: bool | None = False
    nodata: float | None = None

    def settled(self, sample: NDArray[Any]) -> StoredBand:
        """The same band, `linear` decided by some of its stored numbers where the raster does not say.

        Decibels of land and water are nearly all below 0, and linear power never is.
        """
        if self.linear is not None:
            return self
        values = np.asarray(sample, np.float32) * np.float32(self.scale) + np.float32(self.offset)
        known = values[np.isfinite(values) & (True if self.nodata is None else sample != self.nodata)]
        return replace(self, linear=bool(len(known)) and float(np.median(known)) >= 0)

    def physical(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """Stored numbers of any shape as physical values, float32."""
        values: NDArray[np.float32] = np.asarray(stored, np.float32) * np.float32(self.scale) + np.float32(self.offset)
        if not self.linear:
            return values
        return np.asarray(10 * np.log10(np.maximum(values, np.float32(LEAST_POWER))), np.float32)

    def to_levels(
        self, stored: NDArray[Any], valid: NDArray[np.bool_] | None = None, span: PhysicalRange | None = None
    ) -> NDArray[np.uint8]:
        """Stored numbers `[H, W]` as levels of the input, uint8 `[H, W]`; 0 where there is no data.

        Args:
            valid: bool `[H, W]`; None where every finite number but `nodata` is valid.
            span: what the levels stand for; None for the band's own range.
        """
        known = np.isfinite(stored) if self.nodata is None else np.isfinite(stored) & (stored != self.nodata)
        if valid is not None:
            known &= valid
        if self.levels:
            return np.where(known, stored, 0).astype(np.uint8)
        return quantise(self.physical(stored), self.name, known, span)


def stored_band(
    name: str, dtype: str, scale: float = 1.0, offset: float = 0.0, unit: str = "", nodata: float | None = None
) -> StoredBand:
    """How a band is stored, from what its raster states.

    Args:
        name: a key of `core.bands.RANGES`.
        dtype: NumPy's name of the stored numbers' type.
        scale, offset: as the raster states them; 1 and 0 where it states none.
        unit: as the raster states it; empty where it states none, which means the unit of the band's range.
        nodata: as the raster states it; None where it states none, which is 0 for integers of reflectance.

    Raises:
        ValueError: the unit cannot be converted, or integers of radar state no scale.
    """
    wanted, stated, kind = RANGES[name].unit, unit.strip().casefold(), np.dtype(dtype)
    unscaled = (scale, offset) == _SAME
    if stated not in _UNITS[wanted]:
        known = ", ".join(each for each in _UNITS[wanted] if each)
        raise ValueError(f"band '{name}' is in '{unit}'; expected one of {known}, or no unit for {wanted}")
    if kind == np.uint8 and unscaled and not stated:
        return StoredBand(name, levels=True, nodata=nodata)
    integers = kind.kind in "iu"
    if integers and wanted == "dB" and unscaled:
        raise ValueError(
            f"band '{name}' holds {dtype} and states no scale; set the one that gives {wanted}: gdal_edit -scale 0.01"
        )
    if integers and wanted == "reflectance" and scale == 1.0 and stated not in ("%", "percent"):
        scale, offset = DIGITAL_NUMBER, offset * DIGITAL_NUMBER
    if integers and wanted == "reflectance" and nodata is None:
        nodata = 0.0
    factor, term = _UNITS[wanted][stated]
    linear = None if wanted == "dB" and not stated else stated in LINEAR_POWER and wanted == "dB"
    return StoredBand(name, scale * factor, offset * factor + term, linear=linear, nodata=nodata)
