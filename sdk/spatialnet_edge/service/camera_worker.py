"""One camera's way through a service: source, pipeline, sinks, in a thread of its own."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from threading import Thread
from typing import Any, final

import numpy as np

from spatialnet_edge.core.errors import EngineError, SinkError, SpatialNetError
from spatialnet_edge.runtime.pipeline import Hooks, Pipeline
from spatialnet_edge.service.config import SourceSection
from spatialnet_edge.service.integrity_monitor import IntegrityMonitor
from spatialnet_edge.service.throttle import Throttle
from spatialnet_edge.service.watchdog import Watchdog
from spatialnet_edge.sinks.queued import QueuedSink
from spatialnet_edge.sinks.registry import Sink, names_of, open_sink
from spatialnet_edge.sources.pose import PosedSource, open_pose
from spatialnet_edge.sources.registry import Source
from spatialnet_edge.sources.supervised import Report, SupervisedSource, Timeouts

KEPT_AGES = 1000


def open_sinks(section: SourceSection, report: Report) -> list[QueuedSink]:
    """Every sink behind its queue; one that fails later is opened anew.

    Raises:
        Refused, UsageError: it cannot be opened at all; those that were are closed again.
    """
    opened: list[tuple[str, Sink | None]] = []
    try:
        for uri in section.sinks:
            opened.append((uri, open_or_wait(uri, report)))
    except SpatialNetError:
        for _, sink in opened:
            if sink is not None:
                sink.close()
        raise
    names = names_of([uri for uri, _ in opened])
    return [
        QueuedSink(sink, wait=False, reopen=partial(open_sink, uri), report=report, name=name)
        for name, (uri, sink) in zip(names, opened, strict=True)
    ]


def open_or_wait(uri: str, report: Report) -> Sink | None:
    """A sink, or None for one whose peer is not there yet: a vehicle flies before its link is up.

    Raises:
        Refused, UsageError: waiting would not help.
    """
    try:
        return open_sink(uri)
    except SinkError as error:
        report("sink_failed", f"{error}; tried again for ever")
        return None


@final
class CameraWorker:
    """Runs until its source ends, is closed, or the engine cannot be trusted."""

    def __init__(
        self,
        section: SourceSection,
        sinks: Sequence[QueuedSink],
        integrity: IntegrityMonitor,
        throttle: Throttle,
        watchdog: Watchdog,
        workers: int,
        report: Report,
    ) -> None:
        self.name = section.uri
        self.failure: Exception | None = None
        self.ages_ms: deque[float] = deque(maxlen=KEPT_AGES)
        self._supervised = SupervisedSource(section.uri, Timeouts(silence=section.silence_s), report)
        self._source: Source = self._supervised
        if section.pose:
            self._source = PosedSource(self._supervised, open_pose(section.pose, patient=True))
        self._sinks = sinks
        self._integrity = integrity
        self._watchdog = watchdog
        self._pipeline = Pipeline(
            integrity.engine, section.policy, section.smooth_s, workers,
            section.deadline_ms / 1e3 if section.deadline_ms else float("inf"), section.late == "drop",
            Hooks(self._tick, throttle.admit, self._on_suspect_output),
        )  # fmt: skip
        self._thread = Thread(target=self._work, name=f"camera {section.uri}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """No more frames; those that are on their way still come out."""
        self._source.close()

    def join(self, deadline: float) -> None:
        """Wait for the last result and the sinks, until a moment of the monotonic clock."""
        self._thread.join(max(0.0, deadline - time.monotonic()))
        for sink in self._sinks:
            with suppress(SpatialNetError):  # it was reported when it failed
                sink.close(max(0.1, deadline - time.monotonic()))

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    @property
    def delivering(self) -> bool:
        return self._supervised.delivering

    def figures(self) -> dict[str, Any]:
        """For the health file."""
        ages = list(self.ages_ms)
        p50, p99 = (round(float(value), 2) for value in np.percentile(ages, (50, 99))) if ages else (None, None)
        return {
            "delivering": self.delivering,
            "ledger": self._pipeline.ledger.to_dict(),
            "last_skipped": self._pipeline.ledger.details,
            "age_ms": {"p50": p50, "p99": p99},
            "sinks": {sink.name: sink.figures() for sink in self._sinks},
        }

    @property
    def emitted(self) -> int:
        return self._pipeline.ledger.emitted

    def _work(self) -> None:
        try:
            for result in self._pipeline.stream(self._source):
                for sink in self._sinks:
                    sink.write(result)
                self.ages_ms.append(result.age_ms)
        except Exception as error:  # carried to the service, which ends with it
            self.failure = error
        finally:
            self._watchdog.done(self.name)

    def _tick(self) -> None:
        self._watchdog.beat(self.name)
        self._integrity.watch()
        self._pipeline.engine = self._integrity.engine

    def _on_suspect_output(self, error: EngineError) -> None:
        self._integrity.on_suspect_output(error)
        self._pipeline.engine = self._integrity.engine
