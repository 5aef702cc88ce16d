"""The steps of the day. Each is a function of a `Day` that gives one line and its figures; an error in it fails the step."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from spatialnet_benchmarks.environment import environment
from spatialnet_benchmarks.latency import engine_alone, summary
from spatialnet_edge.bundle.manifest import EngineRecord
from spatialnet_edge.bundle.reader import MODEL, Bundle, open_bundle
from spatialnet_edge.core.errors import EngineUnavailable, MissingExtra
from spatialnet_edge.core.predictions import difference
from spatialnet_edge.engines.devices.base import MemoryKind
from spatialnet_edge.engines.devices.identity import described
from spatialnet_edge.engines.devices.registry import open_device
from spatialnet_edge.engines.onnxruntime import CUDA, lacking
from spatialnet_edge.engines.registry import Engine, load_backend
from spatialnet_edge.engines.tensorrt import Launching, TensorRtEngine
from spatialnet_optimize.shipped_samples import shipped_samples

MODEL_NAME = "spatialnet-s"
BATCHES = (1, 8, 32)
CLOSE = 0.02
"""The largest difference of a probability from the golden answers: GPUs multiply in TF32 and FP16."""
STOP_S = 60.0
"""Time that training gets after SIGINT, to write its checkpoint."""


class Outcome(str, Enum):
    PASS = "pass"
    FAIL = "fail"
    SKIP = "skip"


class Skipped(Exception):
    """A step cannot be made here, and why."""


@dataclass(frozen=True, slots=True)
class Day:
    """What every step is given.

    Attributes:
        rehearsal: run on a stand-in of the driver, on the CPU.
        data: labelled images to train on; None for none.
    """

    out: Path
    rehearsal: bool
    data: Path | None = None

    @property
    def runs(self) -> int:
        """Inferences for a latency."""
        return 20 if self.rehearsal else 2000


Found = tuple[str, dict[str, Any]]


def gpu_name() -> str:
    """The name of the GPU as the driver gives it; empty where there is none."""
    done = subprocess.run(
        ["sh", "-c", "nvidia-smi --query-gpu=name --format=csv,noheader"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip().partition("\n")[0] if done.returncode == 0 else ""


def facts(day: Day) -> Found:
    """What the computer is, and what `doctor` says of it."""
    doctor = subprocess.run([sys.executable, "-m", "spatialnet_edge", "doctor", "--json", "-"], capture_output=True, text=True)
    checks = json.loads(doctor.stdout)
    gpu = next(check for check in checks if check["what"] == "GPU")
    if not gpu["works"]:
        raise RuntimeError(f"doctor: {gpu['found']}")
    smi = subprocess.run(["sh", "-c", "nvidia-smi -q"], capture_output=True, text=True, check=False)
    return f"doctor: {gpu['found']}", {"environment": environment(), "doctor": checks, "nvidia_smi": smi.stdout}


def device(library: str) -> Callable[[Day], Found]:
    """One of the libraries that drive the GPU keeps to what every device must."""

    def step(day: Day) -> Found:
        import conformance

        try:
            opened = open_device(library)
        except MissingExtra as error:
            raise Skipped(str(error)) from error
        name = described(opened.identity)
        opened.close()
        figures = conformance.copies(library)
        conformance.failures(library)
        conformance.cycles(library)
        return f"{library} drives {name}; copies, captures, refusals and 100 cycles are as they must be", figures

    return step


def torch_engine(day: Day) -> Found:
    """`TensorRtEngine` with a context that launches PyTorch on our stream: answers, CUDA graphs, every kind of memory."""
    import torch_plan

    from spatialnet_optimize.export.graph import DeployedGraph
    from spatialnet_training.networks.checkpoint import load_network
    from spatialnet_training.networks.checkpoint_paths import located

    network, spec, _ = load_network(located(MODEL_NAME))
    bundle = open_bundle(f"builtin:{MODEL_NAME}")
    figures: dict[str, Any] = {}
    memories: tuple[MemoryKind, ...] = ("mapped", "pinned", "pageable")
    for memory in memories:
        for graphs in (True, False):
            gpu = open_device(memory=memory)
            with gpu.current():
                plan = torch_plan.TorchPlan(
                    DeployedGraph(network, spec), spec, BATCHES[: 1 if day.rehearsal else None], not day.rehearsal
                )
            engine = TensorRtEngine(torch_plan, plan, gpu, spec, Launching(graphs))
            try:
                largest = furthest(engine, bundle)
                if largest > CLOSE:
                    raise AssertionError(f"probabilities differ by {largest:.4f} from the golden answers")
                name = f"{memory}, {'graphs' if graphs else 'layer by layer'}"
                figures[name] = {"difference": largest, "not_captured": engine.not_captured} | latencies(day, engine, bundle)
            finally:
                engine.close()
    refused = sorted({str(each["not_captured"]) for each in figures.values()} - {"None"})
    return f"PyTorch on our stream answers as it must; {refused[0] if refused else 'all of it was captured'}", figures


def tensorrt_engine(day: Day) -> Found:
    """TensorRT itself, where it is installed: build a plan, run it."""
    from spatialnet_optimize.compilers.plan_builder import TENSORRT, PlanBuilder, PlanOptions
    from spatialnet_optimize.quantization.reduced_precision import to_fp16

    try:
        backend = load_backend("tensorrt")
    except (MissingExtra, EngineUnavailable) as error:
        raise Skipped(str(error)) from error
    bundle = open_bundle(f"builtin:{MODEL_NAME}")
    figures: dict[str, Any] = {}
    version = ""
    for precision, graph in {"fp32": bundle.read(MODEL), "fp16": to_fp16(bundle.read(MODEL))}.items():
        plan = PlanBuilder(TENSORRT, PlanOptions(BATCHES)).compile(graph, bundle.spec.input.shape)
        version = plan.version
        record = EngineRecord(
            path=f"engines/{precision}.plan", backend="tensorrt", precision=precision, library_version=plan.version
        )
        engine = backend.open_plan(record, plan.content, None, bundle.spec)  # type: ignore[attr-defined]
        try:
            figures[precision] = {"difference": furthest(engine, bundle)} | latencies(day, engine, bundle)
        finally:
            engine.close()
    return f"TensorRT {version}: {', '.join(figures)}", figures


def onnxruntime_engine(day: Day) -> Found:
    """ONNX Runtime's CUDA provider, where it is installed."""
    if why := lacking(CUDA):
        raise Skipped(why)
    bundle = open_bundle(f"builtin:{MODEL_NAME}")
    engine = load_backend("onnxruntime_cuda").open(bundle.read(MODEL), bundle.spec, 1)
    largest = furthest(engine, bundle)
    if largest > CLOSE:
        raise AssertionError(f"probabilities differ by {largest:.4f} from the golden answers")
    return f"largest difference {largest:.5f}", {"difference": largest} | latencies(day, engine, bundle)


def furthest(engine: Engine, bundle: Bundle) -> float:
    """The largest difference of a probability from the golden answers, one frame after the other."""
    frames, expected = bundle.golden()
    answers = [{name: values.copy() for name, values in engine.infer(frame[None]).items()} for frame in frames]
    return max(
        float(np.max(difference(head, np.concatenate([each[head.name] for each in answers]), expected[head.name])))
        for head in bundle.spec.outputs
    )


def latencies(day: Day, engine: Engine, bundle: Bundle) -> dict[str, dict[str, float]]:
    frames, _ = bundle.golden()
    return {
        f"batch {batch}": summary(engine_alone(engine, frames, batch, day.runs))
        for batch in BATCHES[: 1 if day.rehearsal else None]
    }


def training(day: Day) -> Found:
    """Train with the images on the device, in bf16 and compiled; stop at the limit, and go on where it stopped when run again."""
    out = day.out / "training"
    on_gpu = ["--set", "images_on_device=true", "--set", "precision=bf16-mixed", "--set", "compile=true", "--batch", "256"]
    small = ["--set", "images_on_device=true", "--backbone", "student-1m", "--size", "32", "--epochs", "1", "--batch", "8"]
    small += ["--set", "epoch_images=16", "--set", "stored_side=32"]
    if not day.rehearsal and day.data is None:
        raise Skipped("no images; give --data")
    data = day.data or shipped_samples()[0]
    command = [
        sys.executable,
        "-m",
        "spatialnet_edge",
        "train",
        "--data",
        str(data),
        "--output",
        str(out),
        "--start",
        "scratch",
    ]
    command += [
        "--set",
        "linear_head=false",
        "--fine-tune",
        "always",
        *(small if day.rehearsal else [*on_gpu, "--epochs", "200"]),
    ]
    process = subprocess.Popen(command, text=True)
    try:
        process.wait(PLAN["training"].limit_s - 2 * STOP_S)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        process.wait(STOP_S)
    if process.returncode not in (0, 130):
        raise RuntimeError(f"training ended with {process.returncode}")
    with (out / "log.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return f"{len(rows)} epochs so far; run the step again to go on", {"log": rows}


@dataclass(frozen=True, slots=True)
class Step:
    """What to run, and the most seconds that it may take."""

    run: Callable[[Day], Found]
    limit_s: float


PLAN: Mapping[str, Step] = {
    "facts": Step(facts, 120),
    "pycuda": Step(device("pycuda"), 120),
    "cuda-bindings": Step(device("cuda-bindings"), 120),
    "torch-engine": Step(torch_engine, 300),
    "tensorrt": Step(tensorrt_engine, 300),
    "onnxruntime": Step(onnxruntime_engine, 180),
    "training": Step(training, 560),
}
"""In the order of the day. Together at most 29 minutes, none over 10."""
