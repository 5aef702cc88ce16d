"""Sinks that keep or discard results, for tests, notebooks and benchmarks."""

from __future__ import annotations

from typing import final

from spatialnet_edge.core.results import FrameResult


@final
class MemorySink:
    """Keeps every result in `results`."""

    def __init__(self, rest: str = "") -> None:
        self.results: list[FrameResult] = []
        self.closed = False

    def write(self, result: FrameResult) -> None:
        self.results.append(result)

    def close(self) -> None:
        self.closed = True


@final
class NullSink:
    """Discards every result."""

    wants_pixels = False

    def __init__(self, rest: str = "") -> None:
        pass

    def write(self, result: FrameResult) -> None:
        pass

    def close(self) -> None:
        pass
