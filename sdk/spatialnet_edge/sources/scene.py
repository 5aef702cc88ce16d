"""Georeferenced rasters, read tile by tile: every tile is a frame with its footprint.

`scene:S2.tif?tile=256` reads 256×256 pixels at a time, so a scene of any size fits into memory. The model's bands are found by
their names in the file, and read with the file's scale, offset and no-data value. `scene:S2.tif+S1.tif+DEM.tif` reads rasters
of one place on the grid of the first. `scene:chips/` reads every raster below a folder, one after the other. For files without
band names, `bands=4,3,2&scale=4000` selects bands by number.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import final

from spatialnet_edge.core.errors import MissingExtra, SourceRefused
from spatialnet_edge.core.frames import Frame, Skipped
from spatialnet_edge.core.spec import RGB, BandGroup
from spatialnet_edge.core.still_decoder import SUFFIXES
from spatialnet_edge.sources.footprint import place_of
from spatialnet_edge.sources.raster_stack import RasterStack, Tiling
from spatialnet_edge.sources.registry import options_of, regular_file, shown
from spatialnet_edge.sources.stills import find_images

DEFAULTS = {"tile": "256", "overlap": "0", "bands": "", "scale": "0"}
LARGEST_TILE = 8192
RASTER_SUFFIXES = SUFFIXES | {".img"}
"""Suffixes of rasters below a folder; a single file may have any name."""


@final
class SceneSource:
    """The tiles of rasters, row by row. Tiles at the right and lower edges overlap their neighbours.

    Below a folder, a raster that cannot be read or does not match the options is skipped and reported. The options are checked
    against the first readable raster at once. The total number of tiles is unknown until all rasters are read.

    Args:
        rest: path, or several paths joined by `+`, and options. `tile`: side in pixels. `overlap`: pixels that neighbours
            share. For a raster without band names: `bands`: the raster bands (from 1) for red, green and blue, or for the
            bands of a model with several groups, in order; default: the first three. `scale`: the stored value that becomes
            255, for more than 8 bits; the raster's offset (such as -1000 of Sentinel-2 since 2022) is added before.

    Raises:
        MissingExtra: rasterio is not installed.
        SourceRefused: not a raster, no raster below the folder, or options that do not match it.
    """

    live = False
    fps = None

    def __init__(self, rest: str) -> None:
        names, query = split_scene(rest)
        self.uri = f"scene:{shown(rest)}"
        self._tiling = tiling_of(self.uri, query)
        self._groups: tuple[BandGroup, ...] = (RGB,)
        folder = len(names) == 1 and Path(names[0]).is_dir()
        self._scenes = (
            [[path] for path in find_images(Path(names[0]), RASTER_SUFFIXES)] if folder else [[*map(regular_file, names)]]
        )
        if not self._scenes:
            raise SourceRefused(
                f"{shown(names[0])}: no raster in this folder or below; looked for {', '.join(sorted(RASTER_SUFFIXES))}"
            )
        try:
            import_module("rasterio")
        except ModuleNotFoundError as error:
            raise MissingExtra("rasterio", "geo") from error
        with closing(self._first_readable()) as first:
            first.check(self._tiling, None)
            self.length = None if folder else first.tiles(self._tiling)

    def for_groups(self, groups: tuple[BandGroup, ...]) -> None:
        """Deliver the bands of these groups, in order, from now on. Without this call: red, green and blue.

        Raises:
            SourceRefused: the first raster has none of them.
        """
        self._groups = groups
        with closing(self._first_readable()) as first:
            first.check(self._tiling, groups)

    def _first_readable(self) -> RasterStack:
        for paths in self._scenes[:-1]:
            try:
                return RasterStack(paths)
            except SourceRefused:
                continue
        return RasterStack(self._scenes[-1])

    def __iter__(self) -> Iterator[Frame | Skipped]:
        seq = count()
        for paths in self._scenes:
            source = self.uri if self.length is not None else shown(paths[0])
            try:
                with closing(RasterStack(paths)) as stack:
                    stack.check(self._tiling, self._groups)
                    for corner in stack.corners(self._tiling):
                        yield self._tile(stack, corner, next(seq), source)
            except SourceRefused as error:
                yield Skipped(next(seq), "decode_error", str(error))

    def _tile(self, stack: RasterStack, corner: tuple[int, int], seq: int, source: str) -> Frame | Skipped:
        """The frame at a corner."""
        (x, y), side = corner, stack.side(self._tiling)
        try:
            if self._tiling.by_name and stack.named:
                image = stack.by_name(x, y, side, self._groups)
            else:
                image = stack.by_number(x, y, side, self._tiling)
        except SourceRefused as error:
            return Skipped(seq, "decode_error", str(error))
        if image is None:
            return Skipped(seq, "no_data", f"{shown(stack.grid.path)}: tile at {x}, {y} is outside the scene")
        footprint, middle = place_of(stack.grid.data, x, y, side)
        return Frame(image, seq, source, pose=middle, footprint=footprint)

    def close(self) -> None:
        pass


def split_scene(rest: str) -> tuple[Sequence[str], str]:
    """Split `A.tif+B.tif?OPTIONS` into names and options. Names of existing files may contain `+` and `?`."""
    ends = [len(rest), *(at for at in range(len(rest) - 1, -1, -1) if rest[at] == "?")]
    for end in ends:
        if names := names_there(rest[:end]):
            return names, rest[end + 1 :]
    name, _, query = rest.partition("?")
    parts = name.split("+")
    return (parts if any(map(os.path.lexists, parts)) else [name]), query


def names_there(text: str) -> list[str]:
    """Names of existing files that, joined by `+`, give this text; the longest first. Empty if there are none."""
    if os.path.lexists(text):
        return [text]
    for at in range(len(text) - 1, 0, -1):
        if text[at] == "+" and os.path.lexists(text[:at]) and (others := names_there(text[at + 1 :])):
            return [text[:at], *others]
    return []


def parse_scene(rest: str) -> Tiling:
    """Check the URI of a scene without opening anything.

    Raises:
        SourceRefused: no raster, an unknown option, or an invalid value.
    """
    names, query = split_scene(rest)
    if not all(names):
        raise SourceRefused(f"scene:{shown(rest)}: no raster; example: scene:S2.tif?tile=256&bands=4,3,2")
    return tiling_of(f"scene:{shown(rest)}", query)


def tiling_of(uri: str, query: str) -> Tiling:
    """Parse the options of a scene's URI.

    Raises:
        SourceRefused: an unknown option, or an invalid value.
    """
    options = options_of(uri, query, DEFAULTS)
    try:
        bands = tuple(int(band) for band in options["bands"].split(",") if band)
        tiling = Tiling(int(options["tile"]), int(options["overlap"]), bands, float(options["scale"]))
    except ValueError as error:
        raise SourceRefused(f"{uri}: {error}; example: scene:S2.tif?tile=256&bands=4,3,2") from error
    if not (8 <= tiling.tile <= LARGEST_TILE and 0 <= tiling.overlap < tiling.tile):
        raise SourceRefused(f"{uri}: tile must be from 8 to {LARGEST_TILE}, overlap less than tile")
    if not (0 <= tiling.scale < math.inf and min(bands, default=1) > 0):
        raise SourceRefused(f"{uri}: bands count from 1, and scale must be a finite number that is not negative")
    return tiling
