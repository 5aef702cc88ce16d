"""Position and attitude of a photograph, from its file's metadata.

Position: EXIF 2.32, GPS IFD, tags 1 to 6 and 9. Attitude: DJI's XMP (`drone-dji:GimbalYawDegree` and others), because EXIF has
no attitude.
"""

from __future__ import annotations

import io
import math
import re
from typing import Any

from spatialnet_edge.core.frames import Pose
from spatialnet_edge.core.still_decoder import FORMATS

GPS_IFD = 0x8825
LATITUDE_REF, LATITUDE, LONGITUDE_REF, LONGITUDE, ALTITUDE_REF, ALTITUDE = range(1, 7)
STATUS = 9
BELOW = (1, 3)
"""Values of the altitude reference for below sea level and below the ellipsoid (EXIF 3.0)."""
XMP_ANGLE = rb"drone-dji:%s%sDegree\s*(?:=\s*[\"']|>)\s*([+-]?[0-9.]+)"


def exif_pose(encoded: bytes) -> Pose | None:
    """The pose in an image file's metadata; None if the position is missing, void or invalid.

    A position needs both references, because without them the hemisphere is unknown. Other missing values are None.
    """
    from PIL import Image

    try:
        opened: Any = Image.open(io.BytesIO(encoded), formats=FORMATS)
        with opened as image:
            gps: dict[int, Any] = image.getexif().get_ifd(GPS_IFD)
            xmp = image.info.get("xmp", b"")
        latitude = degrees(gps[LATITUDE]) * sign(gps[LATITUDE_REF], "N", "S")
        longitude = degrees(gps[LONGITUDE]) * sign(gps[LONGITUDE_REF], "E", "W")
        void = text_of(gps.get(STATUS, "A")).upper().startswith("V")
    except Exception:  # the position is optional: an error in it must not cost the picture
        return None
    # a receiver without a fix writes 0/0 (not a number) or zeros
    if void or not (abs(latitude) <= 90 and abs(longitude) <= 180) or latitude == longitude == 0:
        return None
    roll, pitch, yaw = attitude(xmp if isinstance(xmp, bytes) else str(xmp).encode())
    return Pose(latitude, longitude, altitude_of(gps), roll, pitch, yaw)


def altitude_of(gps: dict[int, Any]) -> float | None:
    """Metres above sea level; None if missing or not a number."""
    try:
        reference = gps.get(ALTITUDE_REF, 0)
        below = (reference[0] if isinstance(reference, bytes) else int(reference)) in BELOW
        metres = number(gps[ALTITUDE]) * (-1 if below else 1)
    except Exception:  # as above
        return None
    return metres if math.isfinite(metres) else None


def attitude(xmp: bytes) -> tuple[float | None, float | None, float | None]:
    """Roll, pitch and yaw in degrees: those of the gimbal (the camera), otherwise of the aircraft; None if missing."""
    return angle(xmp, b"Roll"), angle(xmp, b"Pitch"), angle(xmp, b"Yaw")


def angle(xmp: bytes, name: bytes) -> float | None:
    for whose in (b"Gimbal", b"Flight"):
        found = re.search(XMP_ANGLE % (whose, name), xmp)
        if found is not None:
            try:
                value = float(found[1])
            except ValueError:
                continue
            return value if abs(value) <= 360 else None
    return None


def sign(reference: Any, positive: str, negative: str) -> int:
    """The sign of a reference such as `N`, `s` or `South`.

    Raises:
        ValueError: another text.
    """
    first = text_of(reference)[:1].upper()
    if first not in (positive, negative):
        raise ValueError(f"a reference of {reference!r}; expected {positive} or {negative}")
    return 1 if first == positive else -1


def text_of(value: Any) -> str:
    return (value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)).strip("\0 ")


def degrees(parts: Any) -> float:
    """Degrees, minutes and seconds as one number."""
    whole, minutes, seconds = map(number, parts)
    return whole + minutes / 60 + seconds / 3600


def number(value: Any) -> float:
    """A rational as a float. Pillow returns NaN or raises for 0/0, depending on its version."""
    try:
        return float(value)
    except ZeroDivisionError:
        return math.nan
