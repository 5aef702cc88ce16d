"""Groups of images of the same place or flight: all images of a group are in the same split."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from spatialnet_edge.core.deep_still import MOST_BANDS, TIFF
from spatialnet_edge.core.errors import UsageError
from spatialnet_edge.core.still_decoder import read_tiff_layout
from spatialnet_edge.sources.exif import degrees
from spatialnet_training.data.dataset_options import NO_GROUPS
from spatialnet_training.data.file_tree import Tree

EXIF_IFD, GPS_IFD = 0x8769, 0x8825
TIME_TAKEN = 0x9003
LATITUDE_REF, LATITUDE, LONGITUDE_REF, LONGITUDE = 1, 2, 3, 4
"""Tags of the Exif standard 2.32, tables 8 and 15."""

SAME_FLIGHT_S = 60.0
"""Photographs taken within this time of each other belong to one flight."""

SAME_PLACE_M = 100.0
"""Photographs taken within this distance of each other may show the same ground."""

MOST_OF_ALL = 1 / 20
"""A flight with more than this share of all images is cut into parts of that size, in time order."""

METRES_A_DEGREE = 111_320.0


@dataclass(frozen=True, slots=True)
class Shot:
    """Time and position of a photograph from its EXIF data.

    Attributes:
        seconds: since any fixed time.
        place: latitude and longitude in degrees.
    """

    seconds: float | None
    place: tuple[float, float] | None


def groups_of(tree: Tree, files: Sequence[str], group: str | None) -> tuple[str, ...]:
    """The group of each file.

    Args:
        group: see `DatasetOptions.group`; not a column.

    Raises:
        UsageError: not a regular expression, or no path matches it.
    """
    if group == NO_GROUPS:
        return tuple(files)
    if group is not None:
        return groups_by_pattern(files, group)
    shots = exif_of(tree, files)
    if sum(shot is not None for shot in shots) < len(files) / 2:
        return tuple(files)
    return groups_by_flight(files, shots)


def groups_by_pattern(files: Sequence[str], pattern: str) -> tuple[str, ...]:
    """Group by the match of a regular expression in each path; a path without a match is its own group.

    Raises:
        UsageError: not a regular expression, or no path matches it.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"--group {pattern}: not a regular expression ({error}); for example '(flight_[0-9]+)'") from error
    found = [expression.search(file) for file in files]
    if files and not any(found):
        raise UsageError(f"--group {pattern}: no path matches; the first path is {files[0]}")
    named = [None if match is None else next((part for part in match.groups() if part), match[0]) for match in found]
    return tuple(name or file for name, file in zip(named, files, strict=True))


def exif_of(tree: Tree, files: Sequence[str]) -> list[Shot | None]:
    """The EXIF data of each image; None if it has neither time nor position. Only headers are read."""
    with tree.opened() as opened:
        return [shot_of(opened, file) for file in files]


def shot_of(opened: Any, file: str) -> Shot | None:
    from PIL import Image

    try:
        with opened(file) as stream:
            if stream.read(4) in TIFF and read_tiff_layout(stream)[1] > MOST_BANDS:
                return None  # no photograph; Pillow would print that it cannot decode it
            stream.seek(0)
            with Image.open(stream) as image:
                exif = image.getexif()
                gps: dict[int, Any] = exif.get_ifd(GPS_IFD)
                taken = exif.get_ifd(EXIF_IFD).get(TIME_TAKEN)
    except Exception:  # an unreadable image is reported when it is decoded; here it only has no group
        return None
    seconds, place = time_of(taken), place_of(gps)
    return None if seconds is None and place is None else Shot(seconds, place)


def time_of(taken: Any) -> float | None:
    try:
        return (datetime.strptime(str(taken).strip("\0 "), "%Y:%m:%d %H:%M:%S") - datetime(2000, 1, 1)).total_seconds()
    except ValueError:
        return None


def place_of(gps: dict[int, Any]) -> tuple[float, float] | None:
    try:
        latitude = degrees(gps[LATITUDE]) * (-1 if gps.get(LATITUDE_REF) == "S" else 1)
        longitude = degrees(gps[LONGITUDE]) * (-1 if gps.get(LONGITUDE_REF) == "W" else 1)
    except (KeyError, TypeError, ValueError):
        return None
    return (latitude, longitude) if abs(latitude) <= 90 and abs(longitude) <= 180 else None


def groups_by_flight(files: Sequence[str], shots: Sequence[Shot | None]) -> tuple[str, ...]:
    """Group photographs that are close in time or position; a long flight is cut into parts.

    Without the cut, a data set of one flight would be a single group without a hold-out. Only the neighbours at a cut can be in
    different splits.
    """
    parent = list(range(len(files)))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for first, second in [*neighbours_in_time(shots), *neighbours_in_space(shots)]:
        parent[root(second)] = root(first)
    flights: dict[int, list[int]] = {}
    for row in sorted(range(len(files)), key=lambda row: (moment(shots[row]), files[row])):
        flights.setdefault(root(row), []).append(row)
    stretch = max(1, round(len(files) * MOST_OF_ALL))
    names = [""] * len(files)
    for rows in flights.values():
        for position, row in enumerate(rows):
            names[row] = f"{files[rows[0]]}#{position // stretch}"
    return tuple(names)


def moment(shot: Shot | None) -> float:
    return shot.seconds if shot is not None and shot.seconds is not None else math.inf


def neighbours_in_time(shots: Sequence[Shot | None]) -> list[tuple[int, int]]:
    """Pairs of photographs that follow each other within a minute."""
    timed = sorted((shot.seconds, row) for row, shot in enumerate(shots) if shot is not None and shot.seconds is not None)
    return [(first, second) for (before, first), (after, second) in pairwise(timed) if after - before <= SAME_FLIGHT_S]


def neighbours_in_space(shots: Sequence[Shot | None]) -> list[tuple[int, int]]:
    """Pairs of photographs in the same or neighbouring cells of a grid whose cell size is the distance."""
    cells: dict[tuple[int, int], list[int]] = {}
    for row, shot in enumerate(shots):
        if shot is not None and shot.place is not None:
            latitude, longitude = shot.place
            north = latitude * METRES_A_DEGREE
            east = longitude * METRES_A_DEGREE * math.cos(math.radians(round(latitude, 1)))
            cells.setdefault((int(north // SAME_PLACE_M), int(east // SAME_PLACE_M)), []).append(row)
    pairs = [(rows[0], row) for rows in cells.values() for row in rows[1:]]
    for (north, east), rows in cells.items():
        for step in ((0, 1), (1, -1), (1, 0), (1, 1)):
            if others := cells.get((north + step[0], east + step[1])):
                pairs.append((rows[0], others[0]))
    return pairs
