"""The thread that reads a source into the frame queue."""

from __future__ import annotations

from collections.abc import Iterable
from threading import Thread, current_thread
from typing import final

from spatialnet_edge.core.at_exit import close_at_exit
from spatialnet_edge.core.deep_still import ValueRange, with_levels
from spatialnet_edge.core.frame_queue import FrameQueue
from spatialnet_edge.core.frames import Frame, Skipped
from spatialnet_edge.runtime.frame_stats import FrameStats

JOIN_S = 5.0


@final
class Capture:
    """Reads until the source ends or the queue is closed, and counts the frames.

    Args:
        bands: of the model.
        value_range: of still images of more than 8 bits; see `with_levels`.

    Attributes:
        failure: the source's exception, to be raised in the thread that iterates over the results.
    """

    def __init__(
        self,
        source: Iterable[Frame | Skipped],
        queue: FrameQueue[Frame],
        ledger: FrameStats,
        bands: int = 3,
        value_range: ValueRange | None = None,
    ) -> None:
        self.failure: BaseException | None = None
        self._source = source
        self._queue = queue
        self._ledger = ledger
        self._bands, self._value_range = bands, value_range
        self._thread = Thread(target=self._work, name="capture", daemon=True)

    def start(self) -> None:
        close_at_exit(self)
        self._thread.start()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def close(self, timeout: float = JOIN_S) -> None:
        """End the thread and wait for it. If the source does not return within `timeout` seconds, the thread is abandoned."""
        self._queue.close()
        if self._thread is not current_thread() and self._thread.ident is not None:
            self._thread.join(timeout)

    def _work(self) -> None:
        try:
            self._read()
        except BaseException as error:  # any exception is passed to the caller's thread
            self.failure = error
        finally:
            self._queue.close()

    def _read(self) -> None:
        last = -1
        for item in self._source:
            self._ledger.capture()
            is_next, before, last = item.seq > last, last, max(item.seq, last)
            self._ledger.miss(max(0, item.seq - before - 1))
            if isinstance(item, Frame):
                item = with_levels(item, self._value_range, self._bands)
            if isinstance(item, Skipped):
                self._ledger.skip(item.reason, item.detail)
                continue
            if not is_next:
                self._ledger.skip("out_of_order")
                continue
            dropped = self._queue.put(item)
            if dropped is item:
                self._ledger.skip("stopped")
                return
            if dropped is not None:
                self._ledger.skip("overrun")
