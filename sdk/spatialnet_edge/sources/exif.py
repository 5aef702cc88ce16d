"""Where a photograph was taken, from the file itself (EXIF 2.32, GPS IFD, tags 1 to 6)."""

from __future__ import annotations

import io
import math
from importlib import import_module
from typing import Any

from spatialnet_edge.core.frames import Pose

GPS_IFD = 0x8825
LATITUDE_REF, LATITUDE, LONGITUDE_REF, LONGITUDE, ALTITUDE_REF, ALTITUDE = range(1, 7)
BELOW_SEA = 1


def exif_pose(encoded: bytes) -> Pose | None:
    """The pose in an image file's EXIF data; None when there is none."""
    images: Any = import_module("PIL.Image")
    try:
        with images.open(io.BytesIO(encoded)) as image:
            gps: dict[int, Any] = image.getexif().get_ifd(GPS_IFD)
        latitude = degrees(gps[LATITUDE]) * (-1 if gps.get(LATITUDE_REF) == "S" else 1)
        longitude = degrees(gps[LONGITUDE]) * (-1 if gps.get(LONGITUDE_REF) == "W" else 1)
        altitude = number(gps.get(ALTITUDE, 0.0)) * (-1 if gps.get(ALTITUDE_REF) in (BELOW_SEA, b"\x01") else 1)
    except Exception:  # a position is extra: whatever is wrong with it must not cost the picture
        return None
    if not (abs(latitude) <= 90 and abs(longitude) <= 180):  # a receiver without a fix writes 0/0, which is no number
        return None
    return Pose(latitude, longitude, altitude if math.isfinite(altitude) else 0.0)


def degrees(parts: Any) -> float:
    """Degrees, minutes and seconds as one number."""
    whole, minutes, seconds = map(number, parts)
    return whole + minutes / 60 + seconds / 3600


def number(value: Any) -> float:
    """A rational as a float; 0/0 is no number, which newer versions of Pillow say and older ones raise."""
    try:
        return float(value)
    except ZeroDivisionError:
        return math.nan
