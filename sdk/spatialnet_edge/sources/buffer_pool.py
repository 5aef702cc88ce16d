"""A pool of reused picture memory: new memory costs a page fault per 4 KiB of a picture."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import final

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.sources.buffer_lease import lend

KEPT = 12
"""Number of free buffers that are kept. More are in use at once only if a caller collects frames."""


@final
class Recycled:
    """Leases memory for pictures. A buffer returns to the pool when the last view of its picture is deleted, in any thread."""

    def __init__(self) -> None:
        self._free: deque[NDArray[np.uint8]] = deque(maxlen=KEPT)

    def __call__(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """A writable array of this shape with undefined content."""
        memory = self._free.pop() if self._free else None
        if memory is None or memory.shape != shape:
            memory = np.empty(shape, np.uint8)
        return lend(memory, partial(self._free.append, memory))
