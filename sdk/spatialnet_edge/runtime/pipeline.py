"""The path of a frame: source → policy → resize → engine → smoothing → decode → result.

Capture runs in a separate thread. Resize and inference run in `workers` threads (both release Python's lock), so that a
two-core computer uses both cores. Results are emitted in frame order.
"""

from __future__ import annotations

import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.core.bands import absent_parts, present_bands
from spatialnet_edge.core.deep_still import ValueRange, with_levels
from spatialnet_edge.core.errors import EngineError, InvalidOutput, SourceRefused
from spatialnet_edge.core.frame_queue import FrameQueue, parse_policy
from spatialnet_edge.core.frames import Frame, Skipped, preprocess, quality, sampled
from spatialnet_edge.core.pixels import resize_on_one_thread
from spatialnet_edge.core.predictions import Probabilities
from spatialnet_edge.core.results import FrameResult, assemble, no_label_reason
from spatialnet_edge.core.smoothing import Smoother
from spatialnet_edge.engines.registry import Engine
from spatialnet_edge.runtime.capture import Capture
from spatialnet_edge.runtime.frame_stats import FrameStats
from spatialnet_edge.runtime.output_monitor import Inferred, OutputMonitor
from spatialnet_edge.runtime.selection import Selection
from spatialnet_edge.runtime.tiling import TileOutput, Tiling, combined, crop, decoded_tiles
from spatialnet_edge.sinks.registry import Sink
from spatialnet_edge.sources.registry import Source

EVERYTHING = Selection()
TICK_S = 0.5
"""Longest duration of one round of the loop in seconds, with or without frames."""


def stop(error: EngineError) -> None:
    """Default reaction to suspicious outputs: stop the pipeline."""
    raise error


def admit_all(frame: Frame) -> str:
    return ""


def nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Hooks:
    """Callbacks of a service inside the loop.

    Attributes:
        tick: called before each frame, at least every `TICK_S`, in the thread that emits results.
        admit: called before the engine; returns the reason for skipping the frame, or empty.
        on_suspect_output: called after several invalid or identical outputs in a row; raises to stop, returns to continue.
    """

    tick: Callable[[], None] = nothing
    admit: Callable[[Frame], str] = admit_all
    on_suspect_output: Callable[[EngineError], None] = stop


class Pipeline:
    """Runs frames through an engine.

    Args:
        engine: a checked engine; see `open_engine`.
        policy: `every`, `latest` or `queue:N`.
        smoothing_s: half-life of the temporal smoothing in seconds; 0: no smoothing.
        workers: frames in the engine at once; more than 1 only with a re-entrant engine.
        deadline_s: from capture to the complete result.
        drop_late: skip late frames as `late`; otherwise they are emitted and marked.
        bundle: short hash of the engine's bundle, for every result.
        selection: results that do not match are skipped as `not_selected`.
        value_range: of still images of more than 8 bits; None: the model's range.
        tiling: how frames are cut; None to show the model each frame as a whole.

    Attributes:
        interrupt: called when no more results are wanted, before the capture thread is joined; it ends a read that blocks.
    """

    def __init__(
        self,
        engine: Engine,
        policy: str = "every",
        smoothing_s: float = 0.0,
        workers: int = 1,
        deadline_s: float = float("inf"),
        drop_late: bool = False,
        hooks: Hooks | None = None,
        bundle: str | None = None,
        selection: Selection = EVERYTHING,
        value_range: ValueRange | None = None,
        tiling: Tiling | None = None,
    ) -> None:
        self.engine = engine
        self.bundle = bundle
        self.deadline_s = deadline_s
        self.drop_late = drop_late
        self.hooks = hooks or Hooks()
        self.selection = selection
        self._value_range = value_range
        self.tiling = tiling
        self.interrupt: Callable[[], None] = nothing
        self.policy = parse_policy(policy)
        self.smoothing_s = smoothing_s
        self.workers = workers if engine.reentrant else 1
        self.ledger = FrameStats()
        self._queue: FrameQueue[Frame] = FrameQueue(self.policy.capacity, self.policy.drop_oldest)
        self._capture: Capture | None = None
        self._stopped = False

    @property
    def value_range(self) -> ValueRange | None:
        """The pixel values of black and white in still images of more than 8 bits: the option's, else the model's."""
        return self._value_range or self.engine.spec.input.value_range

    def step(self, frame: Frame) -> FrameResult:
        """Classify a single frame: no threads, no smoothing, no statistics.

        Raises:
            InvalidOutput: the engine's output is invalid.
        """
        frame_of_levels = with_levels(frame, self.value_range, self.engine.spec.input.channels)
        if isinstance(frame_of_levels, Skipped):
            raise SourceRefused(frame_of_levels.detail)
        frame = frame_of_levels
        inferred = self._infer(frame)
        if inferred.invalid is not None:
            raise inferred.invalid
        return self._assemble(inferred, inferred.rows, float("inf"))

    def run(self, source: Source, sinks: Sequence[Sink]) -> FrameStats:
        """Run the source to its end and write every result to every sink."""
        for result in self.stream(source):
            for sink in sinks:
                sink.write(result)
        return self.ledger

    def stream(self, source: Source) -> Iterator[FrameResult]:
        """Results in frame order. Closing the iterator stops the capture.

        Raises:
            SourceLost, SourceRefused: raised after the results of all earlier frames.
            EngineError: the engine failed, or gave three invalid outputs in a row.
        """
        queue: FrameQueue[Frame] = FrameQueue(self.policy.capacity, self.policy.drop_oldest)
        self._queue = queue
        if self._stopped:
            queue.close()
        capture = self._capture = Capture(source, queue, self.ledger, self.engine.spec.input.channels, self.value_range)
        smoother = Smoother(self.smoothing_s)
        monitor = OutputMonitor()
        capture.start()
        threads = resize_on_one_thread() if self.workers > 1 else nullcontext()
        try:
            with threads, ThreadPoolExecutor(self.workers, "engine") as pool:
                for inferred in self._in_order(queue, pool):
                    if monitor.observe(inferred):
                        self.ledger.skip("invalid_output")
                    if monitor.alert:
                        self._on_suspect_output(monitor.alert, inferred)
                    if inferred.invalid is not None:
                        continue
                    frame = inferred.frame
                    refused = no_label_reason(self.engine.spec, inferred.rows, inferred.quality) is not None
                    rows = inferred.rows if refused else smoother.update(inferred.rows, frame.seconds)
                    result = self._assemble(inferred, rows, self.deadline_s)
                    if result.late and self.drop_late:
                        self.ledger.skip("late")
                        continue
                    if (selected := self.selection(result)) is None:
                        self.ledger.skip("not_selected")
                        continue
                    self.ledger.emit(result.reason)
                    yield selected
        finally:
            self.interrupt()
            capture.close()
            for _ in range(len(queue)):
                queue.get()
                self.ledger.skip("stopped")
        if capture.failure is not None:
            raise capture.failure

    @property
    def capturing(self) -> bool:
        """Whether a thread is still inside the source."""
        return self._capture is not None and self._capture.running

    def stop(self) -> None:
        """Read no more frames from the source; frames already read still give results. May be called from any thread."""
        self._stopped = True
        self._queue.close()

    def _in_order(self, queue: FrameQueue[Frame], pool: ThreadPoolExecutor) -> Iterator[Inferred]:
        """Keep the workers busy; return results in the order of submission."""
        pending: deque[Future[Inferred]] = deque()
        # `latest` must not queue frames before the engine; otherwise one frame waits per worker.
        ahead = 1 if self.policy.name == "latest" else 2
        try:
            while True:
                while len(pending) < ahead * self.workers:
                    self.hooks.tick()
                    frame = queue.get(timeout=0 if pending else TICK_S)
                    if frame is None:
                        break
                    if reason := self._declined(frame):
                        self.ledger.skip(reason)
                        continue
                    pending.append(pool.submit(self._infer, frame))
                if pending:
                    inferred = pending[0].result()  # if it raises, the frame stays in `pending` and is counted below
                    pending.popleft()
                    yield inferred
                elif queue.finished:
                    return
        finally:
            for future in pending:
                future.cancel()
                self.ledger.skip("stopped")

    def _on_suspect_output(self, why: str, inferred: Inferred) -> None:
        try:
            self.hooks.on_suspect_output(EngineError(why))
        except BaseException:
            if inferred.invalid is None:
                self.ledger.skip("invalid_output")
            raise

    def _declined(self, frame: Frame) -> str:
        if self.drop_late and time.monotonic_ns() - frame.captured_ns > self.deadline_s * 1e9:
            return "late"
        return self.hooks.admit(frame)

    def _assemble(self, inferred: Inferred, rows: Probabilities, deadline_s: float) -> FrameResult:
        spec = self.engine.spec
        tiles = decoded_tiles(spec, inferred.tiles, self.selection.show)
        return assemble(
            spec,
            inferred.frame,
            rows,
            inferred.engine_ms,
            inferred.quality,
            deadline_s,
            self.bundle,
            inferred.absent,
            tiles,
        )

    def _infer(self, frame: Frame) -> Inferred:
        tiles = self.tiling.tiles(frame) if self.tiling else ()
        if not tiles:
            return self._infer_picture(frame, frame)
        pixels, parts, lacking = frame.pixels, list[TileOutput](), list[tuple[str, ...]]()
        engine_ms, checksum = 0.0, 0
        for tile in tiles:
            found = self._infer_picture(frame, replace(frame, image=crop(pixels, tile), pixel_format="rgb24"))
            engine_ms += found.engine_ms
            checksum = zlib.crc32(found.checksum.to_bytes(4, "little"), checksum)
            if found.invalid is not None:
                return replace(found, engine_ms=engine_ms)
            parts.append(TileOutput(tile, found.rows, found.quality))
            lacking.append(found.absent)
        absent = tuple(name for name in lacking[0] if all(name in each for each in lacking))
        rows, flags = combined(self.engine.spec, parts)
        return Inferred(frame, rows, flags, engine_ms, checksum, absent=absent, tiles=tuple(parts))

    def _infer_picture(self, frame: Frame, picture: Frame) -> Inferred:
        """Ask the engine about a whole frame, or a part of it."""
        pixels = preprocess(picture, self.engine.spec.input)
        sample = sampled(pixels)
        groups = self.engine.spec.input.groups
        absent = absent_parts(pixels, groups)
        flags = quality(present_bands(sample, groups, absent))
        start = time.perf_counter()
        try:
            outputs = self.engine.infer(pixels[None])
        except InvalidOutput as error:
            return Inferred(frame, {}, flags, (time.perf_counter() - start) * 1e3, invalid=error, absent=absent)
        engine_ms = (time.perf_counter() - start) * 1e3
        rows: dict[str, NDArray[np.float32]] = {name: values[0] for name, values in outputs.items()}
        return Inferred(frame, rows, flags, engine_ms, zlib.adler32(sample.data), absent=absent)
