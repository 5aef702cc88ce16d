"""A bounded queue and a thread for a sink, so that a slow sink does not block the pipeline."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from threading import Event, Thread
from typing import final

import numpy as np

from spatialnet_edge.core.errors import SinkError, SpatialNetError, first_line
from spatialnet_edge.core.frame_queue import FrameQueue
from spatialnet_edge.core.results import FrameResult
from spatialnet_edge.sinks.registry import (
    CountsClients,
    CountsLost,
    CountsOverBudget,
    Flushable,
    PixelChoice,
    Reporting,
    Sink,
)

CAPACITY = 64
CAPACITY_WITH_PIXELS = 8
"""Capacity for results with pixels: a camera frame takes megabytes."""
IDLE_S = 0.5
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
NO_PIXELS = np.empty((0, 0, 3), np.uint8)


@final
class QueuedSink:
    """Wraps a sink with a queue and a thread.

    Args:
        wait: True, for recordings: when the queue is full the pipeline waits, and no result is lost. False, for live sources:
            the oldest result in the queue is dropped and counted.
        reopen: reopens the sink after a failure, repeatedly, with growing pauses; meanwhile results are dropped when the queue
            is full. None: the next `write` raises the first failure.
        report: called with `sink_failed` and `sink_back`, and with events of the sink itself.
        sink: None if it could not be opened yet: `reopen` keeps trying.

    Attributes:
        dropped: results that were not passed to the sink.
        refused_since: monotonic time since which the sink has accepted no result; None if it accepted the last one. A result
            that a sink counts as `lost` was not accepted.
    """

    def __init__(
        self,
        sink: Sink | None,
        wait: bool,
        capacity: int = 0,
        reopen: Callable[[], Sink] | None = None,
        report: Callable[[str, str], None] | None = None,
        name: str = "sink",
    ) -> None:
        self.dropped = 0
        self.refused_since: float | None = None
        self.name = name
        self._sink: Sink | None = sink
        self._wants_pixels = sink is not None and (not isinstance(sink, PixelChoice) or sink.wants_pixels)
        size = capacity or (CAPACITY_WITH_PIXELS if self._wants_pixels and not wait else CAPACITY)
        self._inbox: FrameQueue[FrameResult] = FrameQueue(size, drop_oldest=not wait)
        self._reopen = reopen
        self._report = report
        self._introduce(sink)
        self._failure: Exception | None = None
        self._closed = False
        self._stopping = Event()
        self._thread = Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def write(self, result: FrameResult) -> None:
        """Queue a result.

        Raises:
            SinkError: the sink failed earlier and is not reopened.
        """
        if self._failure is not None:
            raise self._translated() from self._failure
        if self.refused_since is None:
            self.refused_since = time.monotonic()
        if not self._wants_pixels:
            result = replace(result, frame=replace(result.frame, image=NO_PIXELS))
        if self._inbox.put(result) is not None:
            self.dropped += 1

    def close(self, timeout: float | None = None) -> None:
        """Let the sink write the queue, then close it. A second call does nothing.

        Args:
            timeout: seconds; a slower sink is abandoned, and its remaining results count as dropped.

        Raises:
            SinkError: the sink had failed.
        """
        if self._closed:
            return
        self._closed = True
        self._stopping.set()
        self._inbox.close()
        self._thread.join(timeout)
        if self._thread.is_alive():
            self.dropped += len(self._inbox)
        if self._failure is not None:
            raise self._translated() from self._failure

    def _work(self) -> None:
        try:
            try:
                if self._sink is None:
                    self._open_again()
                while not self._inbox.finished:
                    result = self._inbox.get(timeout=IDLE_S)
                    if result is None:
                        self._flush()
                    else:
                        self._write(result)
            finally:
                if self._sink is not None:
                    self._sink.close()
        except Exception as error:
            self._failure = error
            self._inbox.close()

    def _write(self, result: FrameResult) -> None:
        before = self._lost()
        if self._attempt(lambda sink: sink.write(result), losing=1) and self._lost() == before:
            self.refused_since = None

    def _lost(self) -> int:
        """Number of results that the sink itself could not deliver."""
        return self._sink.lost if isinstance(self._sink, CountsLost) else 0

    def _flush(self) -> None:
        self._attempt(flush, losing=0)

    def _attempt(self, step: Callable[[Sink], None], losing: int) -> bool:
        """Call the sink; if it fails, reopen it. Returns whether the call succeeded."""
        sink = self._sink
        assert sink is not None
        try:
            step(sink)
        except Exception as error:
            if self._reopen is None:
                raise
            self.dropped += losing
            self._tell("sink_failed", f"{self.name}: {first_line(error)}")
            with suppress(Exception):
                sink.close()
            self._sink = None
            self._open_again()
            return False
        return True

    def _open_again(self) -> None:
        assert self._reopen is not None
        wait = FIRST_WAIT_S
        while self._sink is None:
            if self._stopping.wait(wait):
                self.dropped += len(self._inbox)
                raise SinkError(f"{self.name}: could not be reopened before the end")
            wait = min(wait * 2, LONGEST_WAIT_S)
            with suppress(Exception):
                self._sink = self._reopen()
                self._introduce(self._sink)
        self._tell("sink_back", f"{self.name}: reopened; {self.dropped} results dropped so far")

    def figures(self) -> dict[str, int]:
        """Undelivered results: dropped here, and those that the sink counts."""
        sink = self._sink
        counts = {"lost": self._lost()}
        if isinstance(sink, CountsClients):
            counts |= {"missed": sink.missed, "turned_away": sink.turned_away}
        if isinstance(sink, CountsOverBudget):
            counts["over_budget"] = sink.over_budget
        return {"dropped": self.dropped, **{name: count for name, count in counts.items() if count}}

    def _introduce(self, sink: Sink | None) -> None:
        """Give our `report` to a sink that reports events."""
        if self._report is not None and isinstance(sink, Reporting):
            sink.report = self._report

    def _tell(self, kind: str, detail: str) -> None:
        if self._report is not None:
            self._report(kind, detail)

    def _translated(self) -> SpatialNetError:
        if isinstance(self._failure, SpatialNetError):
            return self._failure
        return SinkError(f"a sink failed: {type(self._failure).__name__}: {self._failure}")


def flush(sink: Sink) -> None:
    """Call the sink's `flush`, if it has one."""
    if isinstance(sink, Flushable):
        sink.flush()
