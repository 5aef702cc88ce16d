"""The path of a frame: source → policy → resize → engine → smoothing → decode → result.

Capture runs in a thread of its own; resize and inference run on `workers` threads (both release Python's lock), so that a
two-core computer is busy on both cores; results leave in the order in which the frames came.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Thread

import cv2
import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.backends import Engine
from spatialnet_edge.errors import EngineError, InvalidOutput
from spatialnet_edge.frames import Frame, Skipped, fit, quality
from spatialnet_edge.inbox import Inbox, parse_policy
from spatialnet_edge.ledger import Ledger
from spatialnet_edge.results import FrameResult, Probabilities, Smoother, assemble
from spatialnet_edge.sinks import Sink
from spatialnet_edge.sources import Source

MAX_INVALID_IN_A_ROW = 3
"""One invalid answer may be a bad frame; three are a broken engine."""


@dataclass(frozen=True, slots=True)
class Inferred:
    """What a worker hands back: one row for each task, or why there is none."""

    frame: Frame
    rows: Probabilities
    quality: tuple[str, ...]
    engine_ms: float
    invalid: InvalidOutput | None = None


class Pipeline:
    """Runs frames through an engine.

    Args:
        engine: checked; see `open_engine`.
        policy: `every`, `latest` or `queue:N`.
        smoothing_s: half-life of the temporal smoothing in seconds; 0 for none.
        workers: frames in the engine at once; more than 1 only with a re-entrant engine.
    """

    def __init__(self, engine: Engine, policy: str = "every", smoothing_s: float = 0.0, workers: int = 1) -> None:
        self.engine = engine
        self.policy = parse_policy(policy)
        self.smoothing_s = smoothing_s
        self.workers = workers if engine.reentrant else 1
        self.ledger = Ledger()
        if self.workers > 1:
            cv2.setNumThreads(1)  # the cores are shared by frames; splitting one resize over them as well only costs

    def step(self, frame: Frame) -> FrameResult:
        """One frame by itself: no threads, no smoothing, no ledger.

        Raises:
            InvalidOutput: the engine's answer breaks its contract.
        """
        inferred = self._infer(frame)
        if inferred.invalid is not None:
            raise inferred.invalid
        return assemble(self.engine.spec, frame, inferred.rows, inferred.engine_ms, inferred.quality)

    def run(self, source: Source, sinks: Sequence[Sink]) -> Ledger:
        """Everything from the source into every sink."""
        for result in self.stream(source):
            for sink in sinks:
                sink.write(result)
        return self.ledger

    def stream(self, source: Source) -> Iterator[FrameResult]:
        """Results in the order of the frames. Closing the iterator stops the capture.

        Raises:
            SourceLost, SourceRefused: after the results of all frames that came before.
            EngineError: the engine failed, or gave three invalid answers in a row.
        """
        inbox: Inbox[Frame] = Inbox(self.policy.capacity, self.policy.drop_oldest)
        capture = Capture(source, inbox, self.ledger)
        smoother = Smoother(self.smoothing_s)
        invalid_in_a_row = 0
        capture.start()
        try:
            with ThreadPoolExecutor(self.workers, "engine") as pool:
                for inferred in self._in_order(inbox, pool):
                    if inferred.invalid is not None:
                        self.ledger.skip("invalid_output")
                        invalid_in_a_row += 1
                        if invalid_in_a_row >= MAX_INVALID_IN_A_ROW:
                            raise EngineError(
                                f"{invalid_in_a_row} invalid answers in a row; the last: {inferred.invalid}"
                            ) from inferred.invalid
                        continue
                    invalid_in_a_row = 0
                    frame = inferred.frame
                    rows = smoother.update(inferred.rows, frame.seconds)
                    result = assemble(self.engine.spec, frame, rows, inferred.engine_ms, inferred.quality)
                    self.ledger.emit()
                    yield result
        finally:
            inbox.close()
            for _ in range(len(inbox)):
                inbox.get()
                self.ledger.skip("stopped")
            capture.join(timeout=5)
        if capture.failure is not None:
            raise capture.failure

    def _in_order(self, inbox: Inbox[Frame], pool: ThreadPoolExecutor) -> Iterator[Inferred]:
        """Keep the workers busy; hand back in the order of submission."""
        pending: deque[Future[Inferred]] = deque()
        # `latest` must not hoard frames in front of the engine; otherwise one waits behind each that is being worked on.
        ahead = 1 if self.policy.name == "latest" else 2
        try:
            while True:
                while len(pending) < ahead * self.workers:
                    frame = inbox.get(timeout=0 if pending else 0.5)
                    if frame is None:
                        break
                    pending.append(pool.submit(self._infer, frame))
                if pending:
                    inferred = pending[0].result()  # stays in `pending` if it raises, to be counted below
                    pending.popleft()
                    yield inferred
                elif inbox.finished:
                    return
        finally:
            for future in pending:
                future.cancel()
                self.ledger.skip("stopped")

    def _infer(self, frame: Frame) -> Inferred:
        pixels = fit(frame.pixels, self.engine.spec.input)
        flags = quality(pixels)
        start = time.perf_counter()
        try:
            outputs = self.engine.infer(pixels[None])
        except InvalidOutput as error:
            return Inferred(frame, {}, flags, (time.perf_counter() - start) * 1e3, error)
        engine_ms = (time.perf_counter() - start) * 1e3
        rows: dict[str, NDArray[np.float32]] = {name: values[0] for name, values in outputs.items()}
        return Inferred(frame, rows, flags, engine_ms)


class Capture(Thread):
    """Reads the source into the inbox and counts; what the source raises is kept in `failure`."""

    def __init__(self, source: Source, inbox: Inbox[Frame], ledger: Ledger) -> None:
        super().__init__(name="capture", daemon=True)
        self.failure: BaseException | None = None
        self._source = source
        self._inbox = inbox
        self._ledger = ledger

    def run(self) -> None:
        try:
            for item in self._source:
                self._ledger.capture()
                if isinstance(item, Skipped):
                    self._ledger.skip(item.reason)
                    continue
                dropped = self._inbox.put(item)
                if dropped is item:
                    self._ledger.skip("stopped")
                    return
                if dropped is not None:
                    self._ledger.skip("overrun")
        except BaseException as error:  # carried to the caller's thread, whatever it is
            self.failure = error
        finally:
            self._inbox.close()
