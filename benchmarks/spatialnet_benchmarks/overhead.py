"""Overhead of the runtime: time outside engine and resize, age with a stalled sink, jitter, start-up time.

    python -m spatialnet_benchmarks.overhead [ROUNDS]

Two variants are compared alternately in one run by their ratio, because absolute times of a shared computer mean little.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from spatialnet_benchmarks.streams import InMemory
from spatialnet_edge.api import load
from spatialnet_edge.cli.printer import printer
from spatialnet_edge.core.frames import Frame, preprocess
from spatialnet_edge.core.results import FrameResult
from spatialnet_edge.core.spec import RGB, InputSpec, ModelSpec, Multilabel
from spatialnet_edge.engines.fake import FakeEngine
from spatialnet_edge.engines.output_validation import CheckedEngine
from spatialnet_edge.runtime.pipeline import Pipeline
from spatialnet_edge.sinks.queued import QueuedSink
from spatialnet_edge.sources.registry import open_source

LOAD = 0.7
"""Share of its capacity at which a stream's age is measured: the rate of frames that the engine could do one by one."""
PACED_FRAMES = 600
SDK_FRAMES = 3000
READY_WITHIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Limit:
    """One measurement: its value in each round, and the largest median that is allowed."""

    what: str
    unit: str
    most: float
    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        return float(np.median(self.rounds))


class DeadSink:
    """A sink that blocks forever at its first result, like a half-open connection."""

    wants_pixels = False

    def __init__(self) -> None:
        self.end = threading.Event()

    def write(self, result: FrameResult) -> None:
        self.end.wait()

    def close(self) -> None:
        pass


def paced() -> str:
    """A live source of 720p frames at `LOAD` of what resizing and engine can do on this computer now."""
    frames = [frame for frame in open_source("synthetic:frames=100&size=1280x720") if isinstance(frame, Frame)]
    with load("builtin:spatialnet-s") as model:
        times: list[float] = []
        for frame in frames:
            start = time.perf_counter()
            model.opened.engine.infer(preprocess(frame, model.bundle.spec.input)[None])
            times.append(time.perf_counter() - start)
    return f"synthetic:frames={PACED_FRAMES}&size=1280x720&fps={LOAD / float(np.median(times)):.1f}"


def ages(uri: str, sinks: Sequence[QueuedSink]) -> np.ndarray:
    """Age at emit in milliseconds of the frames of a live source; the first 30 are left out."""
    found: list[float] = []
    source = open_source(uri)
    with load("builtin:spatialnet-s") as model:
        for result in model.stream(source, policy="latest"):
            for sink in sinks:
                sink.write(result)
            found.append(result.age_ms)
    return np.array(found[30:])


def ages_with_dead_sink(uri: str) -> np.ndarray:
    dead = DeadSink()
    queued = QueuedSink(dead, wait=False)
    found = ages(uri, [queued])
    dead.end.set()
    queued.close()
    return found


def bare_ages(uri: str) -> np.ndarray:
    """The same work at the same rate in a plain loop: the tail latency of this computer without the runtime."""
    found: list[float] = []
    with load("builtin:spatialnet-s") as model:
        spec, engine = model.bundle.spec.input, model.opened.engine
        for frame in open_source(uri):
            assert isinstance(frame, Frame)
            engine.infer(preprocess(frame, spec)[None])
            found.append((time.monotonic_ns() - frame.captured_ns) / 1e6)
    return np.array(found[30:])


def tail(values: Sequence[np.ndarray]) -> tuple[float, float]:
    """p50 and p99 over the frames of all rounds; a p99 needs hundreds of frames."""
    p50, p99 = np.percentile(np.concatenate(values), (50, 99))
    return float(p50), float(p99)


def sdk_ms() -> float:
    """Wall time per frame outside engine and resize, measured with an instant engine on frames of the input's size."""
    spec = ModelSpec(
        name="limits",
        input=InputSpec(height=96, width=96, groups=(RGB,)),
        heads=(Multilabel(name="objects", labels=tuple(f"label {n}" for n in range(17)), thresholds=(0.5,) * 17),),
    )
    row = np.random.default_rng(0).random((1, 17), np.float32)
    count = 0

    def answer(batch: np.ndarray) -> dict[str, np.ndarray]:
        nonlocal count
        count += 1
        return {"objects": row * np.float32(1 - count * 1e-6)}

    pictures = np.random.default_rng(1).integers(0, 256, (8, 96, 96, 3), np.uint8)  # of the input's size: nothing to resize
    start = time.perf_counter()
    for _ in Pipeline(CheckedEngine(FakeEngine(spec, answer)), workers=2).stream(InMemory([*pictures], SDK_FRAMES)):
        pass
    return (time.perf_counter() - start) / SDK_FRAMES * 1e3


def first_ms() -> float:
    """From the capture of a camera's first frame, in its own process, to its result, without the time in the engine."""
    with (
        load("builtin:spatialnet-s") as model,
        model.stream("synthetic:frames=30&size=1280x720&fps=30", own_process=True) as results,
    ):
        first = next(results)
        return first.age_ms - first.engine_ms


def ready_seconds() -> float:
    """From starting the process to READY, with hashes, golden test, sinks and health file."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "payload.toml"
        health = Path(folder) / "health.json"
        config.write_text(
            f'root = "{folder}/root"\nbundle = "builtin:spatialnet-s"\nallow_unsigned = true\n'
            f'[[sources]]\nuri = "synthetic:frames=9000&size=640x480&fps=30"\nsinks = ["log:{folder}/results"]\n'
            f'[health]\nfile = "{health}"\n'
        )
        started = time.monotonic()
        address = f"{folder}/notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
            server.bind(address)
            server.settimeout(READY_WITHIN_S)
            command = [sys.executable, "-m", "spatialnet_edge", "serve", "--config", str(config)]
            process = subprocess.Popen(command, env=os.environ | {"NOTIFY_SOCKET": address}, stderr=subprocess.DEVNULL)
            while server.recv(1000) != b"READY=1":
                pass
            seconds = time.monotonic() - started
        process.terminate()
        process.wait(10)
    return seconds


def measure(rounds: int) -> list[Limit]:
    alone, beside, bare = [], [], []
    for _ in range(rounds):
        uri = paced()
        alone.append(ages(uri, []))
        beside.append(ages_with_dead_sink(uri))
        bare.append(bare_ages(uri))
    (p50, p99), (_, p99_beside), (bare_p50, bare_p99) = tail(alone), tail(beside), tail(bare)
    return [
        Limit("p99 of age at emit with a dead sink ÷ without", "", 1.05, (p99_beside / p99,)),
        Limit("p99 ÷ p50 of age at emit, 70 % load", "", 1.3, (p99 / p50,)),
        Limit("the same in a plain loop without the runtime", "", float("inf"), (bare_p99 / bare_p50,)),
        Limit("p50 of age at emit ÷ that of the plain loop", "", float("inf"), (p50 / bare_p50,)),
        Limit("a frame outside engine and resize", "ms", 0.15, tuple(sdk_ms() for _ in range(rounds))),
        Limit(
            "a camera's first frame to its first result, without the engine",
            "ms",
            30.0,
            tuple(first_ms() for _ in range(rounds)),
        ),
        Limit("start of the process to READY", "s", 3.0, tuple(ready_seconds() for _ in range(rounds))),
    ]


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    limits = measure(rounds)
    table = Table("limit", "median", "rounds", "at most", title=f"{rounds} rounds on {os.cpu_count()} cores")
    for each in limits:
        spread = f"{min(each.rounds):.3g} to {max(each.rounds):.3g}"
        table.add_row(
            each.what, f"{each.median:.3g} {each.unit}", spread, f"{each.most:g}" if each.most < float("inf") else ""
        )
    printer().print(table)
    print(json.dumps({each.what: [round(value, 4) for value in each.rounds] for each in limits}))


if __name__ == "__main__":
    main()
