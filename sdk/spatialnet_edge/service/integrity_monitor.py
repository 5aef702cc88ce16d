"""Integrity monitor: runs one golden frame at a time, continuously, and the complete golden test after suspicious outputs.

Memory of a payload computer can flip bits. The outputs are always checked. Checksums of the weights are verified in addition,
if they are enabled and the engine gives access to its weights, which costs speed (decision 11).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock
from typing import final

from spatialnet_edge.core.errors import EngineError, SpatialNetError
from spatialnet_edge.engines.inspectable import weights_of
from spatialnet_edge.engines.registry import Engine
from spatialnet_edge.runtime.golden import GoldenVectors
from spatialnet_edge.service.scrubber import Scrubber


@final
class IntegrityMonitor:
    """Monitors one engine that several pipelines may share.

    Args:
        engine: the pipelines' engine handle (`Session.engine`); it stays the same when the engine is replaced.
        period_s: time in which every golden frame is run once.
        scrub_s: time in which every weight is verified once; 0: never.
        reload: opens a new engine from the verified bundle and replaces the current one.
        report: called with `golden_failed`, `weights_changed`, `engine_reloaded` and `unverified`.

    Attributes:
        engine: as given.
        verified_ns: monotonic start time of the last complete round that passed. After a failure, later results are
            `unverified`.
    """

    def __init__(
        self,
        vectors: GoldenVectors,
        engine: Engine,
        period_s: float,
        reload: Callable[[], None],
        report: Callable[[str, str], None],
        scrub_s: float = 0.0,
    ) -> None:
        self.engine = engine
        self.rounds = 0
        self.verified_ns = self._round_ns = time.monotonic_ns()
        self._vectors = vectors
        self._every_s = period_s / len(vectors)
        self._next_s = time.monotonic() + self._every_s
        self._index = 0
        self._reloads = 0
        self._reload = reload
        self._report = report
        self._lock = Lock()
        self._scrub_s = scrub_s
        self._scrubber = self._scrub()

    def _scrub(self) -> Scrubber:
        return Scrubber(weights_of(self.engine) if self._scrub_s else (), self._scrub_s)

    def watch(self) -> None:
        """Verify the weights that are due, and run one golden frame if it is due.

        Raises:
            EngineError: the engine failed, and the reloaded one failed too.
        """
        if not self._lock.acquire(blocking=False):
            return
        try:
            if found := self._scrubber.check():
                self._replace(EngineError(found), "weights_changed")
                return
            now = time.monotonic()
            if now < self._next_s:
                return
            self._next_s = now + self._every_s
            if found := self._wrong(self._index):
                self._replace(EngineError(found))
                return
            self._index = (self._index + 1) % len(self._vectors)
            if self._index == 0:
                self.verified_ns, self._round_ns = self._round_ns, time.monotonic_ns()
                self.rounds += 1
        finally:
            self._lock.release()

    def on_suspect_output(self, error: EngineError) -> None:
        """Run the complete golden test now. If the engine passes, the frames caused the suspicious outputs, and the engine is
        kept.

        Raises:
            EngineError: as `watch`.
        """
        with self._lock:
            if failed := self._any_wrong():
                self._replace(EngineError(f"{error}; and {failed}"))
            else:
                self._report("doubt", f"{error}; the golden test passed")

    def _wrong(self, index: int) -> str:
        allowed = self._vectors.tolerance
        try:
            for name, found in self._vectors.ask(self.engine, index).items():
                if not found <= allowed:
                    return f"golden frame {index}: '{name}' differs by {found:.4f}; allowed {allowed:.4f}"
        except EngineError as error:
            return str(error)
        return ""

    def _any_wrong(self) -> str:
        """Run the complete golden test; returns the first failure."""
        return next((found for index in range(len(self._vectors)) if (found := self._wrong(index))), "")

    def _replace(self, error: EngineError, kind: str = "golden_failed") -> None:
        self._report(kind, str(error))
        self._report("unverified", f"results emitted since monotonic {self.verified_ns} ns may be wrong")
        if self._reloads:
            raise EngineError(
                f"{error}; the engine was reloaded once already: this computer does not run it correctly"
            ) from error
        self._reloads += 1
        self._scrubber = Scrubber((), 0.0)  # its views would keep the old engine's memory alive
        try:
            self._reload()
        except SpatialNetError as failed:
            raise EngineError(f"{error}; reloading failed: {failed}") from failed
        self._scrubber = self._scrub()
        if failed := self._any_wrong():
            raise EngineError(f"{error}; after reloading, {failed}") from error
        self._index = 0
        self.verified_ns = self._round_ns = time.monotonic_ns()
        self._report("engine_reloaded", f"{self._vectors.path}: passes the golden test again")
