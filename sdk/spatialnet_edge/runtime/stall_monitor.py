"""Stall monitor: reports an in-process source without frames. Such a source cannot be restarted, but it can be named."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import final

from spatialnet_edge.runtime.frame_stats import FrameStats

STALL_S = 10.0


@final
class StallMonitor:
    """Reports `source_stalled` once for each pause of more than `limit_s` (`STALL_S`), and `source_resumed` at its end."""

    def __init__(self, name: str, stats: FrameStats, report: Callable[[str, str], None], limit_s: float | None = None) -> None:
        self._name = name
        self._stats = stats
        self._report = report
        self._limit_s = STALL_S if limit_s is None else limit_s
        self._seen = -1
        self._since = time.monotonic()
        self._stalled = False

    def watch(self) -> None:
        """Check the source; called in every round of the pipeline's loop."""
        now, captured = time.monotonic(), self._stats.captured
        if captured != self._seen or self._stats.in_flight:  # frames wait for the engine: the source is not the cause
            if self._stalled:
                self._report("source_resumed", f"{self._name}: frame {captured} after {now - self._since:.0f} s")
            self._seen, self._since, self._stalled = captured, now, False
        elif not self._stalled and now - self._since > self._limit_s:
            self._stalled = True
            self._report("source_stalled", f"{self._name}: no frame for {now - self._since:.0f} s; still waiting")
