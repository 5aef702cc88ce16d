"""Memory for pictures that is used again: fresh memory costs a page fault for every 4 KiB of a picture."""

from __future__ import annotations

from collections import deque
from typing import Any, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

KEPT = 12
"""Free pictures that are kept; more are on their way at once only where somebody collects frames."""

Free: TypeAlias = "deque[NDArray[np.uint8]]"


@final
class Lent:
    """What an array on used memory stands on: NumPy keeps it alive as long as any view of the array."""

    def __init__(self, memory: NDArray[np.uint8], free: Free) -> None:
        self._memory = memory
        self._free = free
        self.__array_interface__: dict[str, Any] = memory.__array_interface__

    def __del__(self) -> None:
        self._free.append(self._memory)


@final
class Recycled:
    """Gives memory for pictures, and takes it back when the last view of a picture is gone, on whatever thread that is."""

    def __init__(self) -> None:
        self._free: Free = deque(maxlen=KEPT)

    def __call__(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """An array of this shape that may be written; what it contains is of no meaning."""
        memory = self._free.pop() if self._free else None
        if memory is None or memory.shape != shape:
            memory = np.empty(shape, np.uint8)
        return np.asarray(Lent(memory, self._free), np.uint8)
