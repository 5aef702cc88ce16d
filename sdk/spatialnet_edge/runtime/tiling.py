"""Cut a large frame into square tiles at the scale that the model was taught, and make one answer of theirs.

A frame of 1280×720 that is squeezed into 96×96 shows the model a scene at a scale that it may never have seen. With a known ground
sampling distance (GSD) each tile has as many metres to a pixel of the model's input as the training images had.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.core.errors import UsageError
from spatialnet_edge.core.frames import NO_PICTURE, Frame
from spatialnet_edge.core.predictions import Probabilities, decode
from spatialnet_edge.core.results import TileResult, no_label_reason
from spatialnet_edge.core.spec import KNOWN, ModelSpec

MOST_TILES = 64
"""Of one frame. A larger frame gets larger tiles."""


@dataclass(frozen=True, slots=True)
class Scale:
    """What is known of a frame's scale.

    Attributes:
        gsd: metres on the ground per pixel of the frame at its full size; None to take it from the pose.
        fov_deg: horizontal field of view of a camera that looks straight down, in degrees.
        ground_m: height of the ground, on the scale of the pose's altitude, in metres.
    """

    gsd: float | None = None
    fov_deg: float | None = None
    ground_m: float = 0.0

    def of(self, frame: Frame, width: int) -> float | None:
        """The GSD of a frame that is `width` pixels wide; None where it is not known."""
        if self.gsd is not None:
            return self.gsd
        if self.fov_deg is None or frame.pose is None or frame.pose.altitude is None:
            return None
        height = frame.pose.altitude - self.ground_m
        return 2 * height * math.tan(math.radians(self.fov_deg) / 2) / width if height > 0 else None


@dataclass(frozen=True, slots=True)
class Tile:
    """A square part of a frame: its left upper corner and its side, in pixels of the frame."""

    x: int
    y: int
    side: int


@dataclass(frozen=True, slots=True, eq=False)
class TileOutput:
    """What the engine gave for a tile: one row for each output, and the picture's flags."""

    tile: Tile
    rows: Probabilities
    quality: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tiling:
    """How the frames of a stream are cut.

    Attributes:
        taught: metres on the ground per pixel of the model's input, the smallest and the largest that it was taught at.
        side: of the model's input in pixels.
    """

    scale: Scale
    taught: tuple[float, float]
    side: int

    def tiles(self, frame: Frame) -> tuple[Tile, ...]:
        """The tiles of a frame, in rows from the left upper corner; empty where its scale is not known."""
        height, width = size_of(frame)
        gsd = self.scale.of(frame, width)
        return () if gsd is None else tiles_of(height, width, gsd, self.taught, self.side)


def tiling_for(spec: ModelSpec, scale: Scale) -> Tiling:
    """How to cut frames for a model.

    Raises:
        UsageError: the model does not state the scale that it was taught at.
    """
    taught = next((head.gsd for head in spec.heads if head.gsd is not None), None)
    if taught is None:
        raise UsageError(
            f"{spec.name}: its manifest does not state the ground sampling distance that it was taught at; export it with this "
            f"version, or leave out gsd and fov"
        )
    return Tiling(scale, taught, max(spec.input.height, spec.input.width))


def tiles_of(height: int, width: int, gsd: float, taught: tuple[float, float], side: int) -> tuple[Tile, ...]:
    """Square tiles that cover a frame, each at a scale that was taught, as few as possible.

    Where the whole frame shows less than the smallest scene that was taught, a tile is as large as the frame's shorter side.

    Args:
        gsd: metres per pixel of the frame.
        taught: metres per pixel of the model's input.
        side: of the model's input in pixels.
    """
    shorter = min(height, width)
    scale = min(max(shorter * gsd / side, taught[0]), taught[1])
    tile = min(shorter, max(1, round(scale * side / gsd)))
    while math.ceil(height / tile) * math.ceil(width / tile) > MOST_TILES and tile < shorter:
        tile = min(shorter, math.ceil(tile * 1.1))
    return tuple(Tile(x, y, tile) for y in starts(height, tile) for x in starts(width, tile))


def starts(length: int, tile: int) -> list[int]:
    """Where tiles begin along a side: evenly, the first at the start and the last at the end."""
    count = math.ceil(length / tile)
    return [round(index * (length - tile) / (count - 1)) for index in range(count)] if count > 1 else [(length - tile) // 2]


def size_of(frame: Frame) -> tuple[int, int]:
    """Height and width of a frame."""
    if isinstance(frame.image, np.ndarray):
        return frame.image.shape[0], frame.image.shape[1]
    return frame.image.height, frame.image.width


def crop(pixels: NDArray[np.uint8], tile: Tile) -> NDArray[np.uint8]:
    """The pixels of a tile, uint8 `[side, side, bands]`."""
    return pixels[tile.y : tile.y + tile.side, tile.x : tile.x + tile.side]


def combined(spec: ModelSpec, outputs: Sequence[TileOutput]) -> tuple[Probabilities, tuple[str, ...]]:
    """The frame's rows and flags: the mean over the tiles that have a label; over those with a picture where none has one."""
    labelled = [each for each in outputs if no_label_reason(spec, each.rows, each.quality) is None]
    pictures = [each for each in outputs if not any(flag in NO_PICTURE for flag in each.quality)]
    counted = labelled or pictures or list(outputs)
    names = counted[0].rows.keys()
    rows = {name: np.asarray(np.mean([each.rows[name] for each in counted], axis=0), np.float32) for name in names}
    return rows, () if pictures else outputs[0].quality


def decoded_tiles(spec: ModelSpec, outputs: Sequence[TileOutput], show: Sequence[str] = ()) -> tuple[TileResult, ...]:
    """The answer of each tile.

    Args:
        show: heads that are kept, in this order; empty for all.
    """
    heads = [spec.head(name) for name in show] if show else spec.heads
    found: list[TileResult] = []
    for each in outputs:
        reason = no_label_reason(spec, each.rows, each.quality)
        answers = {head.name: decode(head, each.rows[head.name], withhold=reason is not None) for head in heads}
        known = None if spec.known is None else float(each.rows[KNOWN][0])
        found.append(TileResult(each.tile.x, each.tile.y, each.tile.side, answers, known, reason))
    return tuple(found)
