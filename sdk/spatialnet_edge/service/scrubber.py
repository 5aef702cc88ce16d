"""Memory scrubber: verifies checksums of weights slice by slice, so that no check takes long."""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from typing import final

SLICE_BYTES = 1 << 18
"""Bytes per slice; a check takes a tenth of a millisecond of one core."""


@final
class Scrubber:
    """Compares the weights in memory with their initial checksums.

    Args:
        memory: the weights; their checksums are computed now.
        period_s: time in which all slices are verified once.
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
        """Verify the slices that are due, each at most once. Returns the error, or an empty text."""
        now = time.monotonic()
        self._next_s = max(
            self._next_s, now - self._every_s * (len(self._slices) - 1)
        )  # slices missed during a pause are not caught up
        while self._slices and now >= self._next_s:
            self._next_s += self._every_s
            tensor, start, part = self._slices[self._index]
            if zlib.crc32(part) != self._sums[self._index]:
                return f"the weights changed in memory: tensor {tensor}, within {len(part)} bytes from {start}"
            self._index = (self._index + 1) % len(self._slices)
        return ""
