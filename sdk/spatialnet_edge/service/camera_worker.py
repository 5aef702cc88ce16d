"""A camera of a service: a stream of the session in its own thread."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from threading import Thread
from typing import Any, final

import numpy as np

from spatialnet_edge.core.errors import SinkError, SpatialNetError
from spatialnet_edge.core.spec import ModelSpec
from spatialnet_edge.runtime.options import StreamOptions
from spatialnet_edge.runtime.pipeline import Hooks
from spatialnet_edge.runtime.selection import heads_to_show
from spatialnet_edge.runtime.session import Session
from spatialnet_edge.runtime.stream import Stream
from spatialnet_edge.service.config import SourceSection
from spatialnet_edge.service.integrity_monitor import IntegrityMonitor
from spatialnet_edge.service.throttle import Throttle
from spatialnet_edge.service.watchdog import Watchdog
from spatialnet_edge.sources.pose import open_pose
from spatialnet_edge.sources.supervised import Report

KEPT_AGES = 1000


@final
class CameraWorker:
    """Runs one camera until its source ends, it is stopped, or the engine fails."""

    def __init__(
        self,
        section: SourceSection,
        session: Session,
        integrity: IntegrityMonitor,
        throttle: Throttle,
        workers: int,
        report: Report,
    ) -> None:
        self.failure: Exception | None = None
        self.ages_ms: deque[float] = deque(maxlen=KEPT_AGES)
        self.engine_ms: deque[float] = deque(maxlen=KEPT_AGES)
        self._started = self._last_result = time.monotonic()
        self._integrity = integrity
        self._watchdog: Watchdog | None = None
        self._stream: Stream = session.open_stream(
            section.uri,
            stream_options(section, workers, session.engine.spec),
            sinks=section.sinks,
            pose=open_pose(section.pose, patient=True, report=report) if section.pose else None,
            hooks=Hooks(self._tick, throttle.admit, integrity.on_suspect_output),
            report=report,
            name=section.name,
        )
        self.name = self._stream.name
        self._thread = Thread(target=self._work, name=f"camera {self.name}", daemon=True)

    def start(self, watchdog: Watchdog) -> None:
        """Start classifying; every round of the loop resets the `watchdog`."""
        self._watchdog = watchdog
        self._thread.start()

    def stop(self, deadline: float) -> None:
        """Read no more frames; frames in flight are finished.

        Args:
            deadline: monotonic time at which unfinished sinks are abandoned.
        """
        self._stream.stop(deadline)

    def join(self, deadline: float) -> None:
        """Wait for the last result and the sinks, until a monotonic time."""
        self._thread.join(max(0.0, deadline - time.monotonic()))
        with suppress(SpatialNetError):  # it was reported when it failed
            self._stream.close_sinks()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    @property
    def delivering(self) -> bool:
        return self._stream.delivering

    def figures(self) -> dict[str, Any]:
        """Figures of this camera for the health file."""
        return {
            "delivering": self.delivering,
            "ledger": self._stream.stats.to_dict(),
            "last_skipped": self._stream.stats.details,
            "age_ms": percentiles(self.ages_ms),
            "engine_ms": percentiles(self.engine_ms),
            "last_result_s": round(self.result_age_s, 1) if self.emitted else None,
            "sinks": {sink.name: sink.figures() for sink in self._stream.sinks},
        }

    @property
    def result_age_s(self) -> float:
        """Seconds since the last result; without a result, since the start."""
        return time.monotonic() - self._last_result

    @property
    def refusals_s(self) -> dict[str, float]:
        """Seconds for which each sink has accepted nothing that it was given."""
        now = time.monotonic()
        return {sink.name: now - (sink.refused_since or now) for sink in self._stream.sinks}

    @property
    def why_no_result(self) -> str:
        """The reason for the last skipped frame, if known."""
        skipped = self._stream.stats.to_dict()["skipped"]
        return f"; frames are skipped: {max(skipped, key=skipped.get)}" if skipped else ""

    @property
    def emitted(self) -> int:
        return self._stream.stats.emitted

    def _work(self) -> None:
        try:
            for result in self._stream:
                self._last_result = time.monotonic()
                self.ages_ms.append(result.age_ms)
                self.engine_ms.append(result.engine_ms)
        except SinkError:  # at the end, from a sink that could not be reopened; it was reported already
            pass
        except Exception as error:  # passed to the service, which ends with it
            self.failure = error
        finally:
            if self._watchdog is not None:
                self._watchdog.done(self.name)

    def _tick(self) -> None:
        if self._watchdog is not None:
            self._watchdog.beat(self.name)
        self._integrity.watch()


def percentiles(values: Iterable[float]) -> dict[str, float | None]:
    """p50 and p99; None for both without values."""
    found = list(values)
    p50, p99 = (round(float(value), 2) for value in np.percentile(found, (50, 99))) if found else (None, None)
    return {"p50": p50, "p99": p99}


def stream_options(section: SourceSection, workers: int, spec: ModelSpec) -> StreamOptions:
    """The stream options of a configuration section. Every source of a service is supervised, and waited for if absent."""
    return StreamOptions(
        policy=section.policy,
        smoothing_s=section.smooth_s,
        workers=workers,
        deadline_s=section.deadline_ms / 1e3 if section.deadline_ms else None,
        drop_late=section.late == "drop",
        wait=True,
        silence_s=section.silence_s,
        own_process=True,
        show=heads_to_show(spec, section.heads),
        gsd=section.gsd,
        fov_deg=section.fov_deg,
        ground_m=section.ground_m,
    )
