"""Large pictures cut into tiles: an orthophoto or a map sheet as many images, each of which a network can see."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.core.pixels import resize

LEAST_DEVIATION = 6.0
"""Grey levels; an image that deviates less from its mean is as good as uniform: what is left is noise."""


def pyramid(picture: NDArray[np.uint8], side: int) -> Iterator[NDArray[np.uint8]]:
    """Every whole tile of a picture at its own scale, then at half of it, a quarter … until a tile is nearly all of it.

    One picture so shows a roof, a street and a town. Takes uint8 `[H, W, bands]`, gives `[side, side, bands]`; what is left over at
    the right and at the bottom is in no tile of that scale, and a picture smaller than a tile gives none.
    """
    height, width = picture.shape[:2]
    while min(height, width) >= side:
        scaled = resize(picture, width, height)
        for top in range(0, height - side + 1, side):
            for left in range(0, width - side + 1, side):
                yield scaled[top : top + side, left : left + side]
        height, width = height // 2, width // 2


def structured(images: Iterable[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    """Those that show more than one colour and its noise."""
    return [image for image in images if image.mean(axis=2).std() >= LEAST_DEVIATION]
