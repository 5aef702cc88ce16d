"""Is it still the same model? One golden frame at a time, for ever; and the whole test when in doubt.

Memory of a payload computer flips bits. What is checked always is what counts: the answers. Checksums over the weights come on top
where they are asked for and the engine shows its weights, which costs speed (decision 0011).
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
    """Guards one engine that several pipelines may share.

    Args:
        engine: what the pipelines ask (`Session.engine`): it stays the same when the engine behind it is replaced.
        period_s: in which every golden frame is asked once.
        scrub_s: in which every byte of the weights is checked once; 0 for never.
        reload: opens a new engine from the verified bundle and puts it behind `engine`.
        report: told `golden_failed`, `weights_changed`, `engine_reloaded` and `unverified`.

    Attributes:
        engine: as given.
        verified_ns: monotonic time of the beginning of the last round that passed whole: what was emitted later than the round in
            which a failure shows is `unverified`.
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
        """Check the weights that are due, and ask one golden frame, if it is time.

        Raises:
            EngineError: the engine is wrong, and so is the one that was loaded anew.
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
        """The whole test now; an engine that passes it keeps its place, since then it is the frames that are odd.

        Raises:
            EngineError: as `watch`.
        """
        with self._lock:
            if failed := self._any_wrong():
                self._replace(EngineError(f"{error}; and {failed}"))
            else:
                self._report("doubt", f"{error}; the golden test passed all the same")

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
        """The whole golden test."""
        return next((found for index in range(len(self._vectors)) if (found := self._wrong(index))), "")

    def _replace(self, error: EngineError, kind: str = "golden_failed") -> None:
        self._report(kind, str(error))
        self._report("unverified", f"results emitted since monotonic {self.verified_ns} ns may be wrong")
        if self._reloads:
            raise EngineError(f"{error}; it was loaded anew once already: this computer cannot be trusted with it") from error
        self._reloads += 1
        self._scrubber = Scrubber((), 0.0)  # its views would keep the memory of the old engine alive
        try:
            self._reload()
        except SpatialNetError as failed:
            raise EngineError(f"{error}; it could not be loaded anew: {failed}") from failed
        self._scrubber = self._scrub()
        if failed := self._any_wrong():
            raise EngineError(f"{error}; loaded anew, {failed}") from error
        self._index = 0
        self.verified_ns = self._round_ns = time.monotonic_ns()
        self._report("engine_reloaded", f"{self._vectors.path}: passes the golden test again")
