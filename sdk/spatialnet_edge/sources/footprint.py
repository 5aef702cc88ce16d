"""Where on Earth a window of a raster lies: an outline that GeoJSON can hold (RFC 7946), and its middle."""

from __future__ import annotations

import math
from importlib import import_module
from typing import Any, TypeAlias

from spatialnet_edge.core.frames import Pose

WGS84 = "EPSG:4326"
Ring: TypeAlias = tuple[tuple[float, float], ...]
POINTS_A_SIDE = 8
"""Of an outline round a pole, whose straight sides are curves in longitude and latitude."""


def place_of(data: Any, x: int, y: int, side: int) -> tuple[Ring, Pose | None]:
    """Outline and middle of a square window of a raster that rasterio has opened.

    Returns:
        The outline, (longitude, latitude) in degrees, anticlockwise from the lower left, the first corner not again; and the
        middle, at an unknown height. Empty and None for a raster that does not say where it lies: without coordinate system or
        with one of its own (a local one), or with the identity as its transform, which is what is left when nobody wrote one.
    """
    if data.crs is None or data.transform.is_identity:
        return (), None
    corners = [(x, y + side), (x + side, y + side), (x + side, y), (x, y)]
    try:
        ring = geographic(data, corners)
        ((longitude, latitude),) = geographic(data, [(x + side / 2, y + side / 2)])
        if encloses_a_pole(ring):
            ring = along_the_pole(geographic(data, outline(x, y, side)))
    except Exception:  # a position is extra: whatever PROJ finds wrong with it must not cost the picture
        return (), None
    return rounded(anticlockwise(unwrapped(ring))), Pose(round(latitude, 7), round(wrapped(longitude), 7))


def outline(x: int, y: int, side: int) -> list[tuple[float, float]]:
    """Points all round a window, in pixels."""
    steps = [side * step / POINTS_A_SIDE for step in range(POINTS_A_SIDE)]
    lower = [(x + step, float(y + side)) for step in steps]
    right = [(float(x + side), y + side - step) for step in steps]
    upper = [(x + side - step, float(y)) for step in steps]
    return [*lower, *right, *upper, *((float(x), y + step) for step in steps)]


def geographic(data: Any, pixels: list[tuple[float, float]] | list[tuple[int, int]]) -> Ring:
    """Points of a raster, (x, y) in pixels, as longitudes and latitudes.

    Raises:
        ValueError: they are nowhere on Earth. PROJ's own errors pass.
    """
    warp: Any = import_module("rasterio.warp")
    transform: Any = import_module("rasterio.transform")
    columns, rows = [x for x, _ in pixels], [y for _, y in pixels]
    eastings, northings = transform.xy(data.transform, rows, columns, offset="ul")
    longitudes, latitudes = warp.transform(data.crs, WGS84, list(eastings), list(northings))
    points = tuple(zip(longitudes, latitudes, strict=True))
    if not all(math.isfinite(longitude) and abs(latitude) <= 90 for longitude, latitude in points):
        raise ValueError("nowhere on Earth")
    return points


def turn(before: float, after: float) -> float:
    """The shorter way from one longitude to another, in degrees."""
    return (after - before + 180) % 360 - 180


def wrapped(longitude: float) -> float:
    """From -180 to 180."""
    return (longitude + 180) % 360 - 180


def encloses_a_pole(ring: Ring) -> bool:
    """Whether an outline goes round the globe: its turns sum to 360 degrees rather than to none."""
    following = (*ring[1:], ring[0])
    return abs(sum(turn(a[0], b[0]) for a, b in zip(ring, following, strict=True))) > 180


def along_the_pole(ring: Ring) -> Ring:
    """An outline round a pole, opened at the antimeridian and closed along the pole."""
    antimeridian: Any = import_module("antimeridian")
    fixed: Any = antimeridian.fix_polygon(import_module("shapely").Polygon(ring))
    return tuple((float(longitude), float(latitude)) for longitude, latitude in fixed.exterior.coords[:-1])


def unwrapped(ring: Ring) -> Ring:
    """Each point on the side of the antimeridian where the one before is: longitudes may go past 180.

    An outline along a pole has two points there, a whole turn apart, and stays as it is.
    """
    if any(abs(latitude) == 90 for _, latitude in ring):
        return ring
    points = [ring[0]]
    for longitude, latitude in ring[1:]:
        before = points[-1][0]
        points.append((before + turn(before, longitude), latitude))
    return tuple(points)


def anticlockwise(ring: Ring) -> Ring:
    """As RFC 7946 section 3.1.6 wants an outline; a raster whose first row lies in the south gives it the other way round."""
    following = (*ring[1:], ring[0])
    twice_area = sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(ring, following, strict=True))
    return ring if twice_area >= 0 else ring[::-1]


def rounded(ring: Ring) -> Ring:
    """To 1e-7 degrees, a centimetre."""
    return tuple((round(longitude, 7), round(latitude, 7)) for longitude, latitude in ring)
