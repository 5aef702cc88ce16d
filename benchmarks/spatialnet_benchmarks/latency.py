"""Latency of the engine alone, of a stream at a fixed rate, and of a new process's first result."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.api import Model
from spatialnet_edge.core.errors import EngineError
from spatialnet_edge.engines.registry import Engine
from spatialnet_edge.runtime.pipeline import Pipeline
from spatialnet_edge.sources.registry import open_source

PERCENTILES = (50, 90, 99, 99.9)
WARM_UP = 20

COLD_START = """
import json, sys, time
start = time.perf_counter()
import numpy as np
import spatialnet_edge
from spatialnet_edge.bundle.reader import open_bundle
from spatialnet_edge.engines.registry import open_engine
from spatialnet_edge.runtime.golden import golden_vectors
from spatialnet_edge.core.frames import Frame
from spatialnet_edge.runtime.pipeline import Pipeline
marks = [("imports", time.perf_counter())]
bundle = open_bundle(sys.argv[1]); marks.append(("verify", time.perf_counter()))
engine = open_engine(bundle, sys.argv[2], 1).engine; marks.append(("engine", time.perf_counter()))
golden_vectors(bundle).require(engine); marks.append(("golden test", time.perf_counter()))
blank = np.zeros((720, 1280, bundle.spec.input.channels), np.uint8)
Pipeline(engine).step(Frame(blank, 0, "cold")); marks.append(("first frame", time.perf_counter()))
before, split = start, {}
for name, at in marks:
    split[name], before = at - before, at
memory = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(json.dumps([split, int(memory[0].split()[1]) / 1e3]))
"""


def summary(milliseconds: NDArray[np.float64]) -> dict[str, float]:
    """Percentiles, maximum and jitter (the mean change from one to the next), in milliseconds."""
    found = dict(zip((f"p{p:g}" for p in PERCENTILES), np.percentile(milliseconds, PERCENTILES), strict=True))
    found["max"] = milliseconds.max()
    found["jitter"] = np.abs(np.diff(milliseconds)).mean() if len(milliseconds) > 1 else 0.0
    return {name: round(float(value), 4) for name, value in found.items()}


def engine_alone(engine: Engine, images: NDArray[np.uint8], batch: int, runs: int) -> NDArray[np.float64]:
    """Milliseconds of each inference.

    Args:
        images: uint8 `[N, H, W, C]`, taken in turn.

    Raises:
        EngineError: the engine does not support this batch size.
    """
    shape = (batch, *images.shape[1:])
    batches = [np.ascontiguousarray(np.resize(np.roll(images, -start, axis=0), shape)) for start in range(len(images))]
    for index in range(WARM_UP):
        engine.infer(batches[index % len(batches)])
    times = np.empty(runs)
    for run in range(runs):
        start = time.perf_counter()
        engine.infer(batches[run % len(batches)])
        times[run] = (time.perf_counter() - start) * 1e3
    return times


def batches(engine: Engine, images: NDArray[np.uint8], sizes: tuple[int, ...], runs: int) -> dict[str, dict[str, float]]:
    """Summary for each supported batch size, with frames per second."""
    found: dict[str, dict[str, float]] = {}
    for size in sizes:
        try:
            times = engine_alone(engine, images, size, runs)
        except EngineError:
            continue
        found[str(size)] = summary(times) | {"frames_per_second": round(size / float(np.median(times)) * 1e3, 2)}
    return found


def paced(model: Model, rate: float, seconds: float, size: str = "1280x720") -> NDArray[np.float64]:
    """Milliseconds from the moment a frame was due to its result, at a fixed rate.

    A delay before a busy computer reads the frame is included, and no frame is dropped. Measuring from the time of reading, or
    dropping waiting frames, would hide the worst moments (Tene, "How NOT to Measure Latency", coordinated omission). The
    schedule is aligned to the least delayed frame. If it were aligned to the first frame, which may be delayed, other frames
    would appear early.
    """
    frames = max(2, int(rate * seconds))
    source = open_source(f"synthetic:frames={frames}&size={size}&fps={rate:g}&bands={model.opened.engine.spec.input.channels}")
    pipeline = Pipeline(model.opened.engine, "every", workers=1)
    times = [(each.seq / rate, each.frame.captured_ns / 1e9, each.emitted_ns / 1e9) for each in pipeline.stream(source)]
    due, captured, emitted = np.array(times).T * 1e3
    return emitted - due - (captured - due).min()


def cold_starts(bundle: str, backend: str, rounds: int) -> tuple[dict[str, float], float]:
    """Seconds from the start of a process to its first result, by phase.

    Returns:
        The median of each phase over the rounds (`whole` includes Python's start), and the peak resident memory in MB.
    """
    splits: list[dict[str, float]] = []
    memories: list[float] = []
    for _ in range(rounds):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", COLD_START, bundle, backend], capture_output=True, text=True, check=True)
        whole = time.perf_counter() - start
        split, memory_mb = json.loads(done.stdout.splitlines()[-1])
        splits.append({"python": whole - sum(split.values()), **split, "whole": whole})
        memories.append(memory_mb)
    parts = {name: round(float(np.median([split[name] for split in splits])), 4) for name in splits[0]}
    return parts, max(memories)
