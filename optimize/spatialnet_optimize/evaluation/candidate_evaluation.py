"""Candidates on trial: accuracy, agreement, golden difference and latency of engines that run here."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from spatialnet_edge.bundle.reader import Bundle
from spatialnet_edge.core.results import difference
from spatialnet_edge.core.spec import ModelSpec
from spatialnet_edge.engines.onnxruntime import OnnxRuntimeBackend
from spatialnet_edge.engines.registry import CheckedEngine, Engine
from spatialnet_optimize.evaluation.gates import REFERENCE, ROUNDED_ON_A_CPU, Measured
from spatialnet_optimize.evaluation.metrics import agreement, decode_images, judge, latencies, predict
from spatialnet_training.data.ground_truth import truths
from spatialnet_training.data.labelled_dataset import LabelledImages

Step = Callable[[str], None]
"""Told what is being done, once for each step."""

GATE_THREADS = 1
"""Latency is compared on one core: what a frame costs, whatever the number of cores."""


def open_candidate(name: str, content: bytes, spec: ModelSpec) -> Engine:
    """A form, to be judged on this computer's CPU."""
    return CheckedEngine(OnnxRuntimeBackend(fuse=name not in ROUNDED_ON_A_CPU).open(content, spec, GATE_THREADS))


def measure_candidates(
    contents: dict[str, bytes], spec: ModelSpec, model: Bundle, sets: list[LabelledImages], step: Step
) -> list[Measured]:
    """Accuracy, agreement, golden difference and latency of every candidate that ONNX Runtime can run here."""
    engines = {name: open_candidate(name, content, spec) for name, content in contents.items()}
    measured = measure_engines(engines, contents, spec, model, sets, step)
    for engine in engines.values():
        engine.close()
    return measured


def measure_engines(
    engines: Mapping[str, Engine],
    contents: Mapping[str, bytes],
    spec: ModelSpec,
    model: Bundle,
    sets: list[LabelledImages],
    step: Step,
) -> list[Measured]:
    """The same of engines that are open, the FP32 reference first."""
    golden_frames, golden_expected = model.golden()
    accuracy: dict[str, dict[str, float]] = {name: {} for name in engines}
    agreements: dict[str, list[float]] = {name: [] for name in engines}
    for images in sets:
        step(f"accuracy: {len(images)} labelled images of {images.name}, {len(engines)} candidates")
        pixels = decode_images(images, spec.input)
        outputs = {name: predict(engine, pixels.images) for name, engine in engines.items()}
        for name, answers in outputs.items():
            agreements[name].append(agreement(spec, answers, outputs[REFERENCE]))
            for truth in truths(images, spec):
                figure = judge(spec, truth, answers, pixels.kept).headline
                accuracy[name][f"{truth.head} ({images.name})"] = figure
    step(f"latency: {len(engines)} candidates in turn on {GATE_THREADS} thread")
    timed = dict(zip(engines, latencies(list(engines.values()), [golden_frames[0]] * len(engines)), strict=True))
    measured: list[Measured] = []
    for name, engine in engines.items():
        answers = predict(engine, golden_frames)
        if not agreements[name]:
            agreements[name].append(agreement(spec, answers, golden_expected))
        largest = max(difference(head, answers[head.name], golden_expected[head.name]) for head in spec.outputs)
        measured.append(
            Measured(
                name=name,
                content=contents[name],
                accuracy=accuracy[name],
                agreement=float(np.mean(agreements[name])),
                golden_difference=largest,
                p50_ms=timed[name].p50_ms,
                p99_ms=timed[name].p99_ms,
            )
        )
    return measured
