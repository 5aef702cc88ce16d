"""The checks of an acceptance run that need a TensorRT plan: trtexec, another release, a failed capture, no memory left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np

from spatialnet_benchmarks.acceptance_run import AcceptanceRun, Outcome, Verdict
from spatialnet_benchmarks.latency import engine_alone, summary
from spatialnet_benchmarks.trtexec import JETPACK, command, find_trtexec, latencies_of
from spatialnet_edge.bundle.reader import MODEL
from spatialnet_edge.core.errors import EngineError
from spatialnet_edge.engines.devices.base import Device
from spatialnet_edge.engines.devices.registry import open_device
from spatialnet_edge.engines.registry import open_engine
from spatialnet_edge.engines.tensorrt_plans import TENSORRT

SAME_ANSWER = 1e-3


def beside_trtexec(run: AcceptanceRun) -> Verdict:
    """Compare the latency of each batch size with that of NVIDIA's program for the same plan."""
    plan, program = run.plan(), find_trtexec()
    if plan is None:
        return Verdict("trtexec", Outcome.SKIP, "no NVIDIA plan runs on this computer")
    backend, record, content, weights = plan
    if not program or backend.library is not TENSORRT:
        return Verdict("trtexec", Outcome.SKIP, f"trtexec is not on the PATH and not at {JETPACK}")
    if weights is not None:
        return Verdict("trtexec", Outcome.SKIP, "the plan has no weights of its own")
    figures: dict[str, Any] = {}
    engine = backend.open_plan(record, content, None, run.bundle.spec)
    try:
        for profile, batch in enumerate(engine.batches):
            words = command(program, record, profile, (batch, *run.bundle.spec.input.shape), run.runs)
            theirs = summary(latencies_of(words, content))
            ours = summary(engine_alone(engine, run.images, batch, run.runs))
            figures[f"batch {batch}"] = {"trtexec": theirs, "ours": ours, "command": " ".join(words)}
    finally:
        engine.close()
    first = next(iter(figures.values()))
    text = (
        f"p50 {first['trtexec']['p50']:.3f} ms by trtexec, {first['ours']['p50']:.3f} ms by this program, "
        f"{next(iter(figures))}"
    )
    return Verdict("trtexec", Outcome.PASS, text, figures)


def wrong_version(run: AcceptanceRun) -> Verdict:
    """A plan of another release must be rejected, and the portable graph must run."""
    plans = [record for record in run.bundle.manifest.engines if record.backend.startswith("tensorrt")]
    if not plans:
        return Verdict("wrong version", Outcome.SKIP, "the bundle has no plan")
    others = tuple(msgspec.structs.replace(record, library_version="0.0", version_compatible=False) for record in plans)
    loaded = open_engine(replace(run.bundle, manifest=msgspec.structs.replace(run.bundle.manifest, engines=others)))
    try:
        loaded.engine.infer(run.images[:1])
    finally:
        loaded.engine.close()
    outcome = Outcome.PASS if loaded.record.path == MODEL else Outcome.FAIL
    return Verdict("wrong version", outcome, f"{loaded.record.path} runs; {loaded.rejected[0]}")


def uncapturable_device() -> Device:
    """A device on which every graph capture fails in the driver, because of a synchronisation inside."""
    opened: Any = open_device()
    capture = opened.capture

    def synchronised(work: Callable[[], None]) -> Callable[[], None]:
        def both() -> None:
            work()
            opened.synchronize()

        return capture(both)

    opened.capture = synchronised
    return opened


def failed_capture(run: AcceptanceRun) -> Verdict:
    """A failed CUDA graph capture may only cost speed."""
    if (plan := run.plan()) is None:
        return Verdict("failed capture", Outcome.SKIP, "no NVIDIA plan runs on this computer")
    backend, record, content, weights = plan
    usual = backend.open_plan(record, content, weights, run.bundle.spec)
    expected = {name: values.copy() for name, values in usual.infer(run.images[:1]).items()}
    usual.close()
    engine = backend.with_device(uncapturable_device).open_plan(record, content, weights, run.bundle.spec)
    try:
        found = engine.infer(run.images[:1])
        same = all(np.abs(found[name] - expected[name]).max() <= SAME_ANSWER for name in expected)
        why = engine.not_captured
    finally:
        engine.close()
    outcome = Outcome.PASS if same and why else Outcome.FAIL
    return Verdict("failed capture", outcome, f"{'the same answers' if same else 'other answers'}, layer by layer: {why}")


def out_of_memory(run: AcceptanceRun) -> Verdict:
    """With the GPU's memory full, another variant of the bundle must run."""
    if run.plan() is None:
        return Verdict("out of memory", Outcome.SKIP, "no NVIDIA plan runs on this computer")
    gpu = open_device()
    try:
        if gpu.memory == "mapped":
            return Verdict(
                "out of memory",
                Outcome.SKIP,
                "the GPU shares its memory with the computer: filling it would kill other programs",
            )
        with gpu.current():
            take_all(gpu)
            with run.engine() as loaded:
                loaded.engine.infer(run.images[:1])
    finally:
        gpu.close()
    refused = any("memory" in reason for reason in loaded.rejected)
    outcome = Outcome.PASS if refused else Outcome.FAIL
    return Verdict("out of memory", outcome, f"{loaded.record.path} runs; {'; '.join(loaded.rejected) or 'nothing refused'}")


def take_all(gpu: Device, smallest: int = 4096) -> None:
    """Allocate all memory, in blocks of decreasing size."""
    size = gpu.free_bytes()
    while size >= smallest:
        try:
            gpu.allocate(size)
        except EngineError:
            size //= 2
