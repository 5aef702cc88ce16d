"""Checksums over weights in memory, slice by slice, so that no check holds anything up."""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from typing import final

SLICE_BYTES = 1 << 18
"""A tenth of a millisecond of one core."""


@final
class Scrubber:
    """Knows what the weights were, and looks whether they still are.

    Args:
        memory: the weights, now.
        period_s: in which all of them are looked at once.
    """

    def __init__(self, memory: Sequence[memoryview], period_s: float) -> None:
        self._slices = [
            (tensor, start, part[start : start + SLICE_BYTES])
            for tensor, part in enumerate(memory)
            for start in range(0, len(part), SLICE_BYTES)
        ]
        self._sums = [zlib.crc32(part) for _, _, part in self._slices]
        self._every_s = period_s / max(1, len(self._slices))
        self._next_s = time.monotonic() + self._every_s
        self._index = 0

    def check(self) -> str:
        """Look at the slices that are due, at each once at most; returns what is wrong, or nothing."""
        now = time.monotonic()
        self._next_s = max(self._next_s, now - self._every_s * (len(self._slices) - 1))  # a pause is not made up for
        while self._slices and now >= self._next_s:
            self._next_s += self._every_s
            tensor, start, part = self._slices[self._index]
            if zlib.crc32(part) != self._sums[self._index]:
                return f"the weights changed in memory: tensor {tensor}, within {len(part)} bytes from {start}"
            self._index = (self._index + 1) % len(self._slices)
        return ""
