"""A stream: one source processed by a session, with supervision, pipeline, sinks, and an ordered shutdown."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from threading import Event
from types import TracebackType
from typing import final

from spatialnet_edge.core.at_exit import close_at_exit
from spatialnet_edge.core.errors import SpatialNetError
from spatialnet_edge.core.results import FrameResult
from spatialnet_edge.runtime.drift_monitor import DriftMonitor
from spatialnet_edge.runtime.frame_stats import FrameStats
from spatialnet_edge.runtime.pipeline import Hooks, Pipeline, nothing
from spatialnet_edge.runtime.stall_monitor import StallMonitor
from spatialnet_edge.sinks.queued import QueuedSink
from spatialnet_edge.sources.registry import Source
from spatialnet_edge.sources.supervised import Report, SupervisedSource

CLOSE_S = 5.0
"""Seconds for sinks to write their queues at the end of a live or abandoned stream."""


@final
class Teardown:
    """Closes the parts of a stream: the source, then the sinks, each once.

    Attributes:
        sinks_until: monotonic time at which unfinished sinks are abandoned. None: a recording waits for its sinks, a live
            source waits `CLOSE_S`.
        then: called when the source has ended.
    """

    def __init__(self, source: Source, pipeline: Pipeline, sinks: Sequence[QueuedSink]) -> None:
        self.sinks_until: float | None = None
        self.source_ended = Event()
        self.then: Callable[[], None] = nothing
        self._source = source
        self._pipeline = pipeline
        self._sinks = sinks
        self._closing = False

    def close_source(self) -> None:
        """Close the source after the capture thread has ended: some drivers crash if they are closed during a read."""
        if self._closing:
            return
        self._closing = True
        if not self._pipeline.capturing:
            self._source.close()
        self.then()
        self.source_ended.set()  # last: a waiting thread may shut the interpreter down

    def close_sinks(self) -> None:
        """Let every sink write its queue, and close it.

        Raises:
            SinkError: error of the first failed sink; the others are closed too.
        """
        failure: SpatialNetError | None = None
        for sink in self._sinks:
            until = self.sinks_until
            if until is None and self._source.live:
                until = time.monotonic() + CLOSE_S
            try:
                sink.close(None if until is None else max(0.1, until - time.monotonic()))
            except SpatialNetError as error:
                failure = failure or error
        if failure is not None:
            raise failure


def emit(
    pipeline: Pipeline, source: Source, sinks: Sequence[QueuedSink], teardown: Teardown, report: Report
) -> Generator[FrameResult, None, None]:
    """Yield the results of a source after writing each one to every sink."""
    reported: set[tuple[str, ...]] = {()}
    try:
        for result in pipeline.stream(source):
            if result.absent not in reported:
                reported.add(result.absent)
                report(
                    "source", f"{source.uri}: no data for {', '.join(result.absent)}; such frames are answered without them"
                )
            for sink in sinks:
                sink.write(result)
            yield result
    finally:
        teardown.close_source()
    teardown.close_sinks()


@final
class Stream:
    """Results of one source, in frame order. It is an iterator and a context manager.

    Iterate once. Leaving the loop early stops the source; each sink writes the emitted results and is closed.
    The end of the interpreter does the same.

    Attributes:
        name: display name of the source.
        stats: frame statistics.
        sinks: the sinks, each with its queue.
    """

    def __init__(
        self, source: Source, device: SupervisedSource | None, pipeline: Pipeline, sinks: Sequence[QueuedSink], report: Report
    ) -> None:
        self.name = source.uri
        self.stats: FrameStats = pipeline.ledger
        self.sinks = sinks
        self._source = source
        self._device = device
        self._pipeline = pipeline
        self._closed = False
        monitors = [DriftMonitor(self.name, self.stats, report).watch]
        if device is None:
            monitors.append(StallMonitor(self.name, self.stats, report).watch)
        else:
            pipeline.interrupt = device.close
        pipeline.hooks = ticking(pipeline.hooks, monitors)
        self._teardown = Teardown(source, pipeline, sinks)
        self._results = emit(
            pipeline, source, sinks, self._teardown, report
        )  # has no reference to this object, which avoids a reference cycle
        close_at_exit(self)

    def __repr__(self) -> str:
        return f"<Stream {self.name}: {self.stats}>"

    def __iter__(self) -> Iterator[FrameResult]:
        return self

    def __next__(self) -> FrameResult:
        """The next result.

        Raises:
            SourceLost, SourceRefused: raised after the results of all earlier frames.
            EngineError: the engine failed, or its outputs are wrong.
            SinkError: a sink failed and is not reopened.
        """
        return next(self._results)

    @property
    def live(self) -> bool:
        return self._source.live

    @property
    def length(self) -> int | None:
        """Number of frames; None if unknown."""
        return self._source.length

    @property
    def delivering(self) -> bool:
        """Whether the source is open and delivers frames, as far as known."""
        return not self._teardown.source_ended.is_set() if self._device is None else self._device.delivering

    def then(self, action: Callable[[], None]) -> None:
        """Call `action` when the stream has ended, for instance to close an engine."""
        self._teardown.then = action

    def stop(self, sinks_until: float | None = None) -> None:
        """Read no more frames. Frames already read still give results; then the iteration ends. May be called from any thread.

        Args:
            sinks_until: monotonic time at which unfinished sinks are abandoned; None: wait for them.
        """
        if sinks_until is not None:
            self._teardown.sinks_until = sinks_until
        if self._device is not None:
            self._device.close()
        self._pipeline.stop()

    def close(self, timeout: float = CLOSE_S) -> None:
        """Stop the source, drop frames without a result, and let the sinks write their queues. A second call does nothing.

        Args:
            timeout: seconds for all sinks together.
        """
        if self._closed:
            return
        self._closed = True
        self.stop(time.monotonic() + timeout)
        try:
            self._results.close()
        except ValueError:  # another thread is iterating; it ends because the source has stopped
            self._teardown.source_ended.wait(timeout)
        self._teardown.close_source()
        with suppress(SpatialNetError):  # it was reported, and the caller does not iterate any more
            self._teardown.close_sinks()

    def close_sinks(self) -> None:
        """Let every sink write its queue, and close it.

        Raises:
            SinkError: error of the first failed sink; the others are closed too.
        """
        self._teardown.close_sinks()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def ticking(hooks: Hooks, monitors: Sequence[Callable[[], None]]) -> Hooks:
    """The same hooks, plus a call of every monitor in every round."""

    def tick() -> None:
        for watch in monitors:
            watch()
        hooks.tick()

    return replace(hooks, tick=tick)
