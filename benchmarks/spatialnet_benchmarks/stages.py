"""Time per frame of each stage alone, then of the whole pipeline, in one run.

**Work bound**: the number of cores divided by the core-seconds per frame of decoding, resizing and engine, each measured
alone. No program can process more frames per second. **Pipeline efficiency**: the end-to-end rate divided by the work bound.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.api import Model
from spatialnet_edge.core.errors import DataRefused
from spatialnet_edge.core.frames import Frame, Skipped, preprocess
from spatialnet_edge.core.hardware_info import cores
from spatialnet_edge.core.results import assemble
from spatialnet_edge.sources.registry import open_source

WARM_UP = 10


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage measured alone, one frame after the other.

    Attributes:
        milliseconds: wall time of each frame.
        core_ms: processor time per frame, summed over all threads of the process.
    """

    milliseconds: NDArray[np.float64]
    core_ms: float

    def percentiles(self) -> dict[str, float]:
        p50, p90, p99 = np.percentile(self.milliseconds, (50, 90, 99))
        return {
            "p50_ms": round(float(p50), 4),
            "p90_ms": round(float(p90), 4),
            "p99_ms": round(float(p99), 4),
            "max_ms": round(float(self.milliseconds.max()), 4),
            "core_ms": round(self.core_ms, 4),
        }


def timed(steps: Iterator[object]) -> Stage:
    """Run an iterator to its end and time each step, which processes one frame."""
    times: list[float] = []
    core = time.process_time()
    mark = time.perf_counter()
    for _ in steps:
        now = time.perf_counter()
        times.append((now - mark) * 1e3)
        mark = now
    return Stage(np.array(times), (time.process_time() - core) * 1e3 / max(1, len(times)))


def applied(work: Callable[[Frame], object], frames: list[Frame]) -> Iterator[object]:
    for frame in frames:
        yield work(frame)


def read(source: str, limit: int = 0) -> Iterator[Frame]:
    """The readable frames of a source, at most `limit`."""
    with closing(open_source(source)) as opened:
        for count, item in enumerate(opened, start=1):
            if not isinstance(item, Skipped):
                yield item
            if limit and count >= limit:
                return


@dataclass(frozen=True, slots=True)
class Measurement:
    """One pass over a source.

    Attributes:
        stages: `decode`, `resize`, `engine`, `answer` (decoding of the outputs), each alone.
        end_to_end: interval between results of the whole pipeline, milliseconds.
        ages: age at emit, milliseconds.
        frames_per_second: of the whole pipeline.
    """

    stages: dict[str, Stage]
    end_to_end: NDArray[np.float64]
    ages: NDArray[np.float64]
    frames_per_second: float

    @property
    def work_bound(self) -> float:
        """The work bound: frames per second if every core decoded, resized, inferred and decoded outputs without a gap."""
        return cores() / (sum(self.stages[name].core_ms for name in ("decode", "resize", "engine")) / 1e3)

    @property
    def pipeline_efficiency(self) -> float:
        return self.frames_per_second / self.work_bound


def measure(model: Model, source: str, kept: int) -> Measurement:
    """Measure every stage alone, then the pipeline.

    Args:
        kept: frames held in memory for the stages after decoding.

    Raises:
        DataRefused: no frame can be read.
    """
    spec = model.bundle.spec
    engine = model.opened.engine
    frames = list(read(source, kept))
    if not frames:
        raise DataRefused(f"{source}: none of its first {kept} frames can be read, so there is nothing to measure")
    inputs = {frame.seq: preprocess(frame, spec.input)[None] for frame in frames}
    for frame in frames[:WARM_UP]:
        engine.infer(inputs[frame.seq])
    rows = {name: values[0] for name, values in engine.infer(inputs[frames[0].seq]).items()}
    stages = {
        "decode": timed(read(source)),
        "resize": timed(applied(lambda frame: preprocess(frame, spec.input), frames)),
        "engine": timed(applied(lambda frame: engine.infer(inputs[frame.seq]), frames)),
        "answer": timed(applied(lambda frame: assemble(spec, frame, rows, 0.0, ()), frames)),
    }
    ages: list[float] = []
    with closing(open_source(source)) as opened:
        marks = [time.perf_counter()]
        for result in model.stream(opened, policy="every"):
            marks.append(time.perf_counter())
            ages.append(result.age_ms)
    return Measurement(stages, np.diff(marks) * 1e3, np.array(ages), len(ages) / (marks[-1] - marks[0]))
