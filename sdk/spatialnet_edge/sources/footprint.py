"""The footprint of a raster window: an outline for GeoJSON (RFC 7946), and its centre."""

from __future__ import annotations

import math
from importlib import import_module
from typing import Any, TypeAlias

from spatialnet_edge.core.frames import Pose

WGS84 = "EPSG:4326"
Ring: TypeAlias = tuple[tuple[float, float], ...]
POINTS_A_SIDE = 8
"""Points per side of an outline around a pole, whose straight sides are curves in longitude and latitude."""


def place_of(data: Any, x: int, y: int, side: int) -> tuple[Ring, Pose | None]:
    """Outline and centre of a square window of an open rasterio raster.

    Returns:
        The outline, (longitude, latitude) in degrees, anticlockwise from the lower left, the first corner not repeated; and
            the centre, with unknown height. Empty and None for a raster without georeference: no coordinate system, a local
            one, or an identity transform (the default when none was written).
    """
    if data.crs is None or data.transform.is_identity:
        return (), None
    corners = [(x, y + side), (x + side, y + side), (x + side, y), (x, y)]
    try:
        ring = geographic(data, corners)
        ((longitude, latitude),) = geographic(data, [(x + side / 2, y + side / 2)])
        if encloses_a_pole(ring):
            ring = along_the_pole(geographic(data, outline(x, y, side)))
    except Exception:  # the position is optional: a PROJ error must not cost the picture
        return (), None
    return rounded(anticlockwise(unwrapped(ring))), Pose(round(latitude, 7), round(wrapped(longitude), 7))


def outline(x: int, y: int, side: int) -> list[tuple[float, float]]:
    """Points around a window, in pixels."""
    steps = [side * step / POINTS_A_SIDE for step in range(POINTS_A_SIDE)]
    lower = [(x + step, float(y + side)) for step in steps]
    right = [(float(x + side), y + side - step) for step in steps]
    upper = [(x + side - step, float(y)) for step in steps]
    return [*lower, *right, *upper, *((float(x), y + step) for step in steps)]


def geographic(data: Any, pixels: list[tuple[float, float]] | list[tuple[int, int]]) -> Ring:
    """Convert points of a raster, (x, y) in pixels, to longitudes and latitudes.

    Raises:
        ValueError: the points are not on Earth. PROJ's own errors are passed on.
    """
    warp: Any = import_module("rasterio.warp")
    transform: Any = import_module("rasterio.transform")
    columns, rows = [x for x, _ in pixels], [y for _, y in pixels]
    eastings, northings = transform.xy(data.transform, rows, columns, offset="ul")
    longitudes, latitudes = warp.transform(data.crs, WGS84, list(eastings), list(northings))
    points = tuple(zip(longitudes, latitudes, strict=True))
    if not all(math.isfinite(longitude) and abs(latitude) <= 90 for longitude, latitude in points):
        raise ValueError("not on Earth")
    return points


def turn(before: float, after: float) -> float:
    """The shorter difference between two longitudes, in degrees."""
    return (after - before + 180) % 360 - 180


def wrapped(longitude: float) -> float:
    """A longitude in -180 to 180."""
    return (longitude + 180) % 360 - 180


def encloses_a_pole(ring: Ring) -> bool:
    """Whether an outline goes around a pole: its longitude differences sum to 360 degrees instead of 0."""
    following = (*ring[1:], ring[0])
    return abs(sum(turn(a[0], b[0]) for a, b in zip(ring, following, strict=True))) > 180


def along_the_pole(ring: Ring) -> Ring:
    """An outline around a pole, opened at the antimeridian and closed along the pole."""
    antimeridian: Any = import_module("antimeridian")
    fixed: Any = antimeridian.fix_polygon(import_module("shapely").Polygon(ring))
    return tuple((float(longitude), float(latitude)) for longitude, latitude in fixed.exterior.coords[:-1])


def unwrapped(ring: Ring) -> Ring:
    """Make longitudes continuous: each point follows the previous one across the antimeridian, so values may exceed 180.

    An outline along a pole has two points a full turn apart there; it is not changed.
    """
    if any(abs(latitude) == 90 for _, latitude in ring):
        return ring
    points = [ring[0]]
    for longitude, latitude in ring[1:]:
        before = points[-1][0]
        points.append((before + turn(before, longitude), latitude))
    return tuple(points)


def anticlockwise(ring: Ring) -> Ring:
    """The outline in anticlockwise order (RFC 7946, section 3.1.6). A raster whose first row is in the south has the opposite
    order."""
    following = (*ring[1:], ring[0])
    twice_area = sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(ring, following, strict=True))
    return ring if twice_area >= 0 else ring[::-1]


def rounded(ring: Ring) -> Ring:
    """Round to 1e-7 degrees, a centimetre."""
    return tuple((round(longitude, 7), round(latitude, 7)) for longitude, latitude in ring)
