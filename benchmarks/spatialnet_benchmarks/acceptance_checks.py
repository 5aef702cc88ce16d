"""The checks of an acceptance run."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from spatialnet_benchmarks.acceptance_gpu import SAME_ANSWER, beside_trtexec, failed_capture, out_of_memory, wrong_version
from spatialnet_benchmarks.acceptance_run import AcceptanceRun, Outcome, Verdict
from spatialnet_benchmarks.latency import engine_alone, summary
from spatialnet_edge.bundle.reader import MODEL
from spatialnet_edge.core.errors import EngineError
from spatialnet_edge.engines.devices.base import MemoryKind
from spatialnet_edge.engines.devices.identity import described
from spatialnet_edge.engines.devices.registry import open_device
from spatialnet_edge.engines.onnxruntime import OnnxRuntimeBackend
from spatialnet_edge.engines.output_validation import CheckedEngine
from spatialnet_edge.engines.registry import Engine
from spatialnet_optimize.evaluation.gates import LEAST_AGREEMENT
from spatialnet_optimize.evaluation.metrics import agreement, predict

BATCHES = (1, 2, 4, 8)
MEMORY: tuple[MemoryKind, ...] = ("mapped", "pinned", "pageable")
CAMERAS = (2, 4)
ROUNDS = 200
"""Number of batches per camera, with golden frames in between."""
LEAK_MB = 16.0
"""Largest memory growth of the soak test and of repeated opening."""
SLOWER = 1.2
"""Largest ratio of the latencies in the last and the first tenth of the soak test."""
STOP_S = 5.0
START_S = 600.0
"""A slow device takes minutes to load a plan or to build its kernels."""


def device(run: AcceptanceRun) -> Verdict:
    """The variant that runs on this device."""
    with run.engine() as loaded:
        record, rejected = loaded.record, loaded.rejected
    figures: dict[str, Any] = {"engine": record.path, "backend": record.backend, "rejected": rejected}
    outcome = Outcome.FAIL if rejected else Outcome.PASS
    where = "the CPU"
    if record.backend.startswith("tensorrt"):
        gpu = open_device()
        where = described(gpu.identity)
        gpu.close()
    why = f"; rejected: {'; '.join(rejected)}" if rejected else ""
    return Verdict("device", outcome, f"{record.path} by {record.backend} on {where}{why}", figures)


def layers(run: AcceptanceRun) -> Verdict:
    """The executed precision of the plan's layers, as reported by the library."""
    if (plan := run.plan()) is None:
        return Verdict("layers", Outcome.SKIP, "no plan of NVIDIA's runs here")
    backend, record, content, weights = plan
    engine = backend.open_plan(record, content, weights, run.bundle.spec)
    try:
        found = [msgspec.to_builtins(layer) for layer in engine.executed()]
        raw = engine.inspector_json()
    finally:
        engine.close()
    named = sorted({layer["precision"] for layer in found if layer["precision"]})
    outcome = Outcome.PASS if named else Outcome.FAIL
    return Verdict("layers", outcome, f"{len(found)} layers in {', '.join(named)}", {"layers": found, "inspector": raw})


def answers(run: AcceptanceRun) -> Verdict:
    """Compare predictions on labelled images with those of the portable graph in ONNX Runtime."""
    spec = run.bundle.spec
    reference = CheckedEngine(OnnxRuntimeBackend().open(run.bundle.read(MODEL), spec, 0))
    with run.engine() as loaded:
        found, expected = predict(loaded.engine, run.images), predict(reference, run.images)
    reference.close()
    changes = {head.name: np.abs(found[head.name] - expected[head.name]) for head in spec.heads}
    figures = {name: {"largest": float(each.max()), "mean": float(each.mean())} for name, each in changes.items()}
    same = agreement(spec, found, expected)
    outcome = Outcome.PASS if same >= LEAST_AGREEMENT else Outcome.FAIL
    largest = max(each["largest"] for each in figures.values())
    text = f"{len(run.images)} images: {same:.2%} of the predictions equal to ONNX Runtime's, largest change {largest:.4f}"
    return Verdict("answers", outcome, text, {"agreement": same, "heads": figures})


def latency(run: AcceptanceRun) -> Verdict:
    """Latency by batch size; for a plan also with and without CUDA graphs, in each kind of memory."""
    figures: dict[str, dict[str, float]] = {}

    def measure(name: str, engine: Engine) -> None:
        for batch in BATCHES:
            try:
                figures[f"{name}, batch {batch}"] = summary(engine_alone(engine, run.images, batch, run.runs))
            except EngineError:  # the plan has no profile for this batch size
                continue

    if (plan := run.plan()) is None:
        with run.engine() as loaded:
            measure(loaded.record.backend, loaded.engine)
    else:
        backend, record, content, weights = plan
        for memory in MEMORY:
            for graphs in (True, False):
                opened = backend.with_device(lambda memory=memory: open_device(memory=memory))
                engine = opened.open_plan(record, content, weights, run.bundle.spec, graphs=graphs)
                measure(f"{memory}, {'graphs' if graphs else 'layer by layer'}", engine)
                engine.close()
    fastest = min(figures, key=lambda name: figures[name]["p50"])
    best = figures[fastest]
    text = f"fastest: {fastest}: p50 {best['p50']:.3f} ms, p99 {best['p99']:.3f} ms, p99.9 {best['p99.9']:.3f} ms"
    return Verdict("latency", Outcome.PASS, text, figures)


def cameras(run: AcceptanceRun) -> Verdict:
    """Two and four cameras on one engine, with golden frames in between: each must get its own results."""
    frames, _ = run.bundle.golden()
    crossed = asked = 0
    with run.engine() as loaded:
        engine = loaded.engine
        known = [engine.infer(frame[None]) for frame in frames]

        def camera(index: int, wrong: list[int]) -> None:
            for turn in range(ROUNDS):
                which = index if turn % 2 else (index + turn) % len(frames)
                found = engine.infer(frames[which][None])
                wrong[index] += any(np.abs(found[name] - known[which][name]).max() > SAME_ANSWER for name in found)

        for count in CAMERAS:
            wrong = [0] * count
            threads = [threading.Thread(target=camera, args=(index, wrong)) for index in range(count)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            crossed, asked = crossed + sum(wrong), asked + count * ROUNDS
    outcome = Outcome.FAIL if crossed else Outcome.PASS
    return Verdict(
        "cameras", outcome, f"{crossed} of {asked} results reached another camera", {"crossed": crossed, "asked": asked}
    )


def reopening(run: AcceptanceRun) -> Verdict:
    """Open and close the engine many times: memory must not grow."""
    frame = run.images[:1]
    sizes: list[float] = []
    for _ in range(run.opens):
        with run.engine() as loaded:
            loaded.engine.infer(frame)
        sizes.append(resident_mb())
    grown = sizes[-1] - sizes[len(sizes) // 2]
    outcome = Outcome.PASS if grown <= LEAK_MB else Outcome.FAIL
    return Verdict("reopening", outcome, f"{run.opens} times; the later half left {grown:.1f} MB", {"resident_mb": sizes})


def termination(run: AcceptanceRun) -> Verdict:
    """SIGTERM while frames are in flight must end the command in time."""
    source = f"synthetic:frames=1000000&fps=50&bands={run.bundle.spec.input.channels}"
    command = [sys.executable, "-m", "spatialnet_edge", "run", str(run.bundle.path), source, "--json", "-"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    too_slow = threading.Timer(START_S, process.kill)
    too_slow.start()
    first_result = process.stdout.readline()
    too_slow.cancel()
    if not first_result:
        said = (process.communicate()[1] or "").strip()[-200:]
        return Verdict("termination", Outcome.FAIL, f"the command ended without a result: {said}")
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    try:
        process.communicate(timeout=4 * STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
    took, status = time.monotonic() - started, process.wait()
    outcome = Outcome.PASS if took <= STOP_S and status in (0, 143) else Outcome.FAIL
    return Verdict("termination", outcome, f"exit status {status} after {took:.1f} s", {"seconds": took, "status": status})


def soak(run: AcceptanceRun) -> Verdict:
    """One image after the other for an hour: memory and latency must stay constant."""
    times: list[float] = []
    sizes: list[float] = []
    with run.engine() as loaded:
        end = time.monotonic() + run.soak_s
        while time.monotonic() < end or len(times) < run.runs:
            image = run.images[len(times) % len(run.images)][None]
            started = time.perf_counter()
            loaded.engine.infer(image)
            times.append((time.perf_counter() - started) * 1e3)
            if len(times) % 100 == 1:
                sizes.append(resident_mb())
    tenth = max(1, len(times) // 10)
    first, last = (float(np.median(part)) for part in (times[:tenth], times[-tenth:]))
    grown = sizes[-1] - sizes[len(sizes) // 10]
    figures = {"first_ms": first, "last_ms": last, "frames": len(times), "grown_mb": grown} | summary(np.array(times))
    outcome = Outcome.PASS if last <= SLOWER * first and grown <= LEAK_MB else Outcome.FAIL
    text = f"{len(times)} frames: p50 from {first:.2f} to {last:.2f} ms, memory grew by {grown:.1f} MB"
    return Verdict("soak", outcome, text, figures)


def resident_mb() -> float:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6


CHECKS: tuple[Callable[[AcceptanceRun], Verdict], ...] = (
    device, layers, answers, latency, beside_trtexec, cameras, reopening, wrong_version, failed_capture, out_of_memory, termination,
    soak,
)  # fmt: skip
