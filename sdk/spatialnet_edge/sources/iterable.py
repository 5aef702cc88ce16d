"""Images from the caller: any iterable of arrays, Pillow images, paths or frames, such as a generator."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sized
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast, final

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.core.errors import SourceRefused
from spatialnet_edge.core.frames import Frame, Skipped
from spatialnet_edge.core.still_decoder import still_of
from spatialnet_edge.sources.stills import read_image

if TYPE_CHECKING:
    from PIL import Image

ARRAY = "array"
"""Source name of images that are arrays."""


ImageLike: TypeAlias = "NDArray[np.uint8] | Image.Image | str | os.PathLike[str]"
"""An image: uint8 `[H, W, 3]`, RGB (or `[H, W, bands]` for a model of several band groups), a Pillow image, or a path."""


def frame_of(image: object, seq: int) -> Frame | Skipped:
    """Convert an image (`ImageLike`) to a frame; a frame is returned as it is. The capture time of an array is now.

    Raises:
        SourceRefused: not an image.
    """
    if isinstance(image, Frame | Skipped):
        return image
    if isinstance(image, np.ndarray):
        return Frame(cast("NDArray[np.uint8]", image), seq, ARRAY)
    if isinstance(image, str | os.PathLike):
        return read_image(Path(cast("str | os.PathLike[str]", image)), seq)
    from PIL import Image  # imported late: arrays do not need Pillow

    if not isinstance(image, Image.Image):
        raise SourceRefused(
            f"image {seq} is a {type(image).__name__}; expected uint8 [height, width, bands], a Pillow image or a path"
        )
    try:
        still = still_of(image)
    except ValueError as error:
        raise SourceRefused(f"image {seq}: {error}") from error
    return Frame(still.pixels, seq, ARRAY, note=still.note)


@final
class IterableSource:
    """Frames of an iterable. The capture thread reads it, so a generator may block on its camera.

    The capture time of an array is the time at which the iterable returned it; use `Frame` objects to set it yourself.
    """

    live = False

    def __init__(self, images: Iterable[object]) -> None:
        self.uri = type(images).__name__
        self.length: int | None = len(images) if isinstance(images, Sized) else None
        self.fps: float | None = None
        self._images = images

    def __iter__(self) -> Iterator[Frame | Skipped]:
        for seq, image in enumerate(self._images):
            yield frame_of(image, seq)

    def close(self) -> None:
        """Does nothing: the iterable belongs to the caller."""
