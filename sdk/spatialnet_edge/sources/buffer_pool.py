"""Memory for pictures that is used again: fresh memory costs a page fault for every 4 KiB of a picture."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import final

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.sources.buffer_lease import lend

KEPT = 12
"""Free pictures that are kept; more are on their way at once only where somebody collects frames."""


@final
class Recycled:
    """Gives memory for pictures, and takes it back when the last view of a picture is gone, on whatever thread that is."""

    def __init__(self) -> None:
        self._free: deque[NDArray[np.uint8]] = deque(maxlen=KEPT)

    def __call__(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """An array of this shape that may be written; what it contains is of no meaning."""
        memory = self._free.pop() if self._free else None
        if memory is None or memory.shape != shape:
            memory = np.empty(shape, np.uint8)
        return lend(memory, partial(self._free.append, memory))
