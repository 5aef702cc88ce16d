"""A bounded queue and a thread in front of a sink, so that a slow one does not hold up the frames behind it."""

from __future__ import annotations

from threading import Thread
from typing import final

from spatialnet_edge.errors import SinkError, SpatialNetError
from spatialnet_edge.inbox import Inbox
from spatialnet_edge.results import FrameResult
from spatialnet_edge.sinks import Sink

CAPACITY = 64


@final
class QueuedSink:
    """Wraps a sink.

    Args:
        wait: for recorded footage, True: when the queue is full the pipeline waits and nothing is lost. For live sources,
            False: the oldest result in the queue is dropped and counted.

    Attributes:
        dropped: results that the sink never saw.
    """

    def __init__(self, sink: Sink, wait: bool, capacity: int = CAPACITY) -> None:
        self.dropped = 0
        self._sink = sink
        self._inbox: Inbox[FrameResult] = Inbox(capacity, drop_oldest=not wait)
        self._failure: Exception | None = None
        self._thread = Thread(target=self._work, name="sink", daemon=True)
        self._thread.start()

    def write(self, result: FrameResult) -> None:
        """Queue a result.

        Raises:
            SinkError: the sink failed earlier.
        """
        if self._failure is not None:
            raise self._translated() from self._failure
        if self._inbox.put(result) is not None:
            self.dropped += 1

    def close(self) -> None:
        """Let the sink finish what is queued, then close it; raises `SinkError` if it had failed."""
        if self._inbox.finished and not self._thread.is_alive():
            return
        self._inbox.close()
        self._thread.join()
        if self._failure is not None:
            raise self._translated() from self._failure

    def _work(self) -> None:
        try:
            try:
                while not self._inbox.finished:
                    result = self._inbox.get()
                    if result is not None:
                        self._sink.write(result)
            finally:
                self._sink.close()
        except Exception as error:
            self._failure = error
            self._inbox.close()

    def _translated(self) -> SpatialNetError:
        if isinstance(self._failure, SpatialNetError):
            return self._failure
        return SinkError(f"a sink failed: {type(self._failure).__name__}: {self._failure}")
