"""Tiles: cut large pictures, such as orthophotos, into images of the network's input size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.core.pixels import resize

LEAST_DEVIATION = 6.0
"""Smallest standard deviation in grey levels; an image below it is practically uniform."""


def pyramid(picture: NDArray[np.uint8], side: int) -> Iterator[NDArray[np.uint8]]:
    """Every complete tile of a picture at full scale, half, a quarter … until a tile covers nearly all of it.

    Takes uint8 `[H, W, bands]`, returns `[side, side, bands]`. Remainders at the right and bottom are not in any tile of that
    scale, and a picture smaller than a tile gives none.
    """
    height, width = picture.shape[:2]
    while min(height, width) >= side:
        scaled = resize(picture, width, height)
        for top in range(0, height - side + 1, side):
            for left in range(0, width - side + 1, side):
                yield scaled[top : top + side, left : left + side]
        height, width = height // 2, width // 2


def structured(images: Iterable[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    """The tiles with more than one colour and noise."""
    return [image for image in images if image.mean(axis=2).std() >= LEAST_DEVIATION]
