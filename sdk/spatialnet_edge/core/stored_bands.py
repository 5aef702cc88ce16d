"""Storage of a band in a raster, and conversion to physical values and input levels.

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
"""Default scale to reflectance for an optical raster of 16-bit integers without a scale."""

LEAST_POWER = 1e-5
"""Smallest linear power (-50 dB), because the logarithm of 0 is undefined."""

LINEAR_POWER = ("1", "power", "linear", "linear power", "intensity")
"""Units of linear radar backscatter."""

_SAME = (1.0, 0.0)
_UNITS: dict[str, dict[str, tuple[float, float]]] = {
    "reflectance": {"": _SAME, "reflectance": _SAME, "1": _SAME, "%": (0.01, 0.0), "percent": (0.01, 0.0)},
    "dB": {"": _SAME, "db": _SAME, "decibel": _SAME, **dict.fromkeys(LINEAR_POWER, _SAME)},
    "m": {"": _SAME, **dict.fromkeys(("m", "metre", "meter", "metres", "meters"), _SAME), "ft": (0.3048, 0.0)},
    "m/m": {"": _SAME, "m/m": _SAME, "1": _SAME},
    "K": {"": _SAME, "k": _SAME, "kelvin": _SAME, **dict.fromkeys(("c", "°c", "degc", "celsius"), (1.0, 273.15))},
}
"""Unit of a range to the units of rasters, each with factor and offset for the conversion."""


@dataclass(frozen=True, slots=True)
class StoredBand:
    """One band of a raster: `stored * scale + offset` is the physical value, in the unit of `RANGES[name]`.

    Attributes:
        name: a key of `core.bands.RANGES`.
        levels: whether the stored values are input levels already (8 bits without a scale).
        linear: whether radar backscatter is linear power instead of decibels; None if unknown.
        nodata: the stored value for missing data; None if there is none.
    """

    name: str
    scale: float = 1.0
    offset: float = 0.0
    levels: bool = False
    linear: bool | None = False
    nodata: float | None = None

    def settled(self, sample: NDArray[Any]) -> StoredBand:
        """The same band; if `linear` is unknown, it is derived from some stored values.

        Decibels of land and water are nearly all negative; linear power never is.
        """
        if self.linear is not None:
            return self
        values = np.asarray(sample, np.float32) * np.float32(self.scale) + np.float32(self.offset)
        known = values[np.isfinite(values) & (True if self.nodata is None else sample != self.nodata)]
        return replace(self, linear=bool(len(known)) and float(np.median(known)) >= 0)

    def physical(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """Convert stored values of any shape to physical values, float32."""
        values: NDArray[np.float32] = np.asarray(stored, np.float32) * np.float32(self.scale) + np.float32(self.offset)
        if not self.linear:
            return values
        return np.asarray(10 * np.log10(np.maximum(values, np.float32(LEAST_POWER))), np.float32)

    def to_levels(
        self, stored: NDArray[Any], valid: NDArray[np.bool_] | None = None, span: PhysicalRange | None = None
    ) -> NDArray[np.uint8]:
        """Convert stored values `[H, W]` to input levels, uint8 `[H, W]`; 0: no data.

        Args:
            valid: bool `[H, W]`; None: every finite value except `nodata` is valid.
            span: physical range of the levels; None: the band's own range.
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
    """The storage of a band, from its raster's metadata.

    Args:
        name: a key of `core.bands.RANGES`.
        dtype: NumPy's name of the stored type.
        scale, offset: from the raster; 1 and 0 if not given.
        unit: from the raster; empty: the unit of the band's range.
        nodata: from the raster; None if not given, which means 0 for integers of reflectance.

    Raises:
        ValueError: the unit cannot be converted, or radar integers have no scale.
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
