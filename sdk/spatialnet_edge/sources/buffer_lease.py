"""Arrays on leased memory, which is returned when the last view is deleted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import numpy as np
from numpy.typing import NDArray


@final
class Lent:
    """The base object of such an array: NumPy keeps it alive as long as any view of the array.

    Args:
        memory: the leased memory; the array is read-only if the memory is.
        give_back: called once, in the thread that deletes the last view.
    """

    def __init__(self, memory: NDArray[np.uint8], give_back: Callable[[], object]) -> None:
        self._memory = memory
        self._give_back = give_back
        self.__array_interface__: dict[str, Any] = memory.__array_interface__

    def __del__(self) -> None:
        self._give_back()


def lend(memory: NDArray[np.uint8], give_back: Callable[[], object]) -> NDArray[np.uint8]:
    """An array on leased memory; see `Lent`."""
    return np.asarray(Lent(memory, give_back), np.uint8)
