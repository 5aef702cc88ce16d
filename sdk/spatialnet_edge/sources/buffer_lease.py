"""Arrays on borrowed memory, which goes back when the last view of them is gone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import numpy as np
from numpy.typing import NDArray


@final
class Lent:
    """What such an array stands on: NumPy keeps it alive as long as any view of the array.

    Args:
        memory: what is lent; if it cannot be written, neither can the array.
        give_back: called once, on whatever thread lets go of the last view.
    """

    def __init__(self, memory: NDArray[np.uint8], give_back: Callable[[], object]) -> None:
        self._memory = memory
        self._give_back = give_back
        self.__array_interface__: dict[str, Any] = memory.__array_interface__

    def __del__(self) -> None:
        self._give_back()


def lend(memory: NDArray[np.uint8], give_back: Callable[[], object]) -> NDArray[np.uint8]:
    """The same memory as an array of its own; see `Lent`."""
    return np.asarray(Lent(memory, give_back), np.uint8)
