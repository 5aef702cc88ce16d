"""Evaluation of variants on this computer: accuracy, agreement, difference on the golden frames, latency.

A build decodes its labelled images once (`decoded`) and evaluates every variant on them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.bundle.reader import Bundle
from spatialnet_edge.core.errors import MissingExtra
from spatialnet_edge.core.predictions import difference
from spatialnet_edge.core.spec import InputSpec, ModelSpec
from spatialnet_edge.engines.onnxruntime import OnnxRuntimeBackend
from spatialnet_edge.engines.registry import CheckedEngine, Engine
from spatialnet_optimize.evaluation.gates import REFERENCE, Measured
from spatialnet_optimize.evaluation.latency import latencies
from spatialnet_optimize.evaluation.metrics import Outputs, Pixels, agreement, decode_images, judge, predict
from spatialnet_optimize.evaluation.robustness import (
    CorruptedSet,
    can_be_corrupted,
    gated_accuracy,
    gated_sets,
    judge_not_land,
    not_land_pictures,
)
from spatialnet_training.data.ground_truth import truths
from spatialnet_training.data.labelled_dataset import LabelledImages

Step = Callable[[str], None]
"""Called with one line before each step of the work."""

GATE_THREADS = 1
"""Latency is compared on one thread, independent of the number of cores."""


@dataclass(frozen=True, slots=True)
class DecodedSet:
    """Labelled images with their pixels at the model's size."""

    labelled: LabelledImages
    pixels: Pixels

    def __len__(self) -> int:
        return len(self.labelled)


def decoded(sets: Sequence[LabelledImages], spec: InputSpec) -> list[DecodedSet]:
    """Decode every labelled image, once for a whole build."""
    return [DecodedSet(images, decode_images(images, spec)) for images in sets]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Data for evaluating the variants of a build.

    Attributes:
        spec: with the kept heads.
        golden_frames: uint8 `[N, H, W, bands]`.
        golden_expected: head to the reference's outputs, float32 `[N, width]`.
        sets: labelled images; empty if no labels match the model.
        corrupted: some images of each set with each gated corruption; empty without colour bands.
        not_land: pictures without land, uint8 `[N, H, W, 3]`; None for a model without an output `known`.
    """

    spec: ModelSpec
    golden_frames: NDArray[np.uint8]
    golden_expected: Outputs
    sets: tuple[DecodedSet, ...] = ()
    corrupted: tuple[tuple[CorruptedSet, ...], ...] = ()
    not_land: NDArray[np.uint8] | None = None


def drawn_pictures(spec: ModelSpec, prepared: bool) -> NDArray[np.uint8] | None:
    """Pictures without land; None if OpenCV, which draws them, is missing and the variants were already evaluated on them."""
    try:
        return not_land_pictures(spec.input)
    except MissingExtra:
        if prepared:
            return None
        raise


def evidence_of(model: Bundle, spec: ModelSpec, sets: Sequence[DecodedSet], prepared: bool = False) -> Evidence:
    """The data for evaluating the variants.

    Args:
        prepared: the candidates passed every gate on the computer that prepared the bundle. A device without OpenCV may then
            leave the pictures without land out.

    Raises:
        MissingExtra: OpenCV, which draws the pictures without land, is not installed.
    """
    colour = can_be_corrupted(spec.input)
    corrupted = [tuple(gated_sets(each.labelled, spec.input, CORRUPTED_IMAGES)) for each in sets] if colour else []
    not_land = drawn_pictures(spec, prepared) if colour and spec.known is not None else None
    return Evidence(spec, *model.golden(), tuple(sets), tuple(corrupted), not_land)


CORRUPTED_IMAGES = 48
"""Number of images per set to corrupt, each in four ways."""


def corrupted_accuracy(engine: Engine, evidence: Evidence) -> float | None:
    """Mean metric over the heads, the labelled sets and their corruptions, 0 to 1; None without corrupted images."""
    figures = [
        gated_accuracy(evidence.spec, each.labelled, poor, [predict(engine, one.images) for one in poor])
        for each, poor in zip(evidence.sets, evidence.corrupted, strict=False)
    ]
    return float(np.mean(figures)) if figures else None


def not_land_withheld(engine: Engine, evidence: Evidence) -> float | None:
    """Share of the pictures without land that gets no label, 0 to 1; None for a model without an output `known`."""
    if evidence.not_land is None:
        return None
    return judge_not_land(evidence.spec, predict(engine, evidence.not_land), evidence.not_land).withheld


def open_candidate(content: bytes, spec: ModelSpec, here: bool) -> Engine:
    """Open a variant for evaluation on this computer's CPU.

    Args:
        here: this CPU is the target, so its integer kernels are evaluated. Otherwise Q/DQ round values, and FP32 computes with
            them, as exactly as the accelerator does: the kernels of a CPU without VNNI overflow with TensorRT's 8-bit weights
            (decision 5), and there are none for FP8 and for FP16 between quantised layers.
    """
    return CheckedEngine(OnnxRuntimeBackend(fuse=here).open(content, spec, GATE_THREADS))


def measure_candidates(contents: Mapping[str, bytes], evidence: Evidence, step: Step, here: bool = True) -> list[Measured]:
    """Evaluate variants with ONNX Runtime; see `measure_engines`.

    Args:
        here: see `open_candidate`; latency is measured only then.
    """
    with ExitStack() as cleanup:
        engines: dict[str, Engine] = {}
        for name, content in contents.items():
            engines[name] = open_candidate(content, evidence.spec, here)
            cleanup.callback(engines[name].close)
        return measure_engines(engines, contents, evidence, step, timed=here)


def measure_engines(
    engines: Mapping[str, Engine], contents: Mapping[str, bytes], evidence: Evidence, step: Step, timed: bool = True
) -> list[Measured]:
    """Evaluate open engines.

    Args:
        engines: the FP32 reference first.
        timed: whether latency is measured; otherwise it is 0.
    """
    answers = labelled_answers(engines, evidence, step)
    measured = [measured_answers(name, engines, contents, answers, evidence) for name in engines]
    if not timed:
        return measured
    step(f"latency: {len(engines)} variants in turn on {GATE_THREADS} thread")
    times = latencies(list(engines.values()), [evidence.golden_frames[0]] * len(engines))
    return [replace(each, p50_ms=time.p50_ms, p99_ms=time.p99_ms) for each, time in zip(measured, times, strict=True)]


Answers = Mapping[str, Sequence[Outputs]]
"""Variant to its outputs on each labelled set."""


def labelled_answers(engines: Mapping[str, Engine], evidence: Evidence, step: Step) -> Answers:
    """The outputs of every engine for the labelled images."""
    found: dict[str, list[Outputs]] = {name: [] for name in engines}
    for each in evidence.sets:
        step(f"accuracy: {len(each)} labelled images of {each.labelled.name}, {len(engines)} variants")
        for name, engine in engines.items():
            found[name].append(predict(engine, each.pixels.images))
    return found


def measured_answers(
    name: str, engines: Mapping[str, Engine], contents: Mapping[str, bytes], answers: Answers, evidence: Evidence
) -> Measured:
    """All metrics of one variant except latency."""
    spec, expected = evidence.spec, evidence.golden_expected
    golden = predict(engines[name], evidence.golden_frames)
    scores = {
        f"{truth.head} ({each.labelled.name})": judge(spec, truth, own, each.pixels.kept)
        for each, own in zip(evidence.sets, answers[name], strict=True)
        for truth in truths(each.labelled, spec)
    }
    same = [agreement(spec, own, theirs) for own, theirs in zip(answers[name], answers[REFERENCE], strict=True)]
    return Measured(
        name=name,
        content=contents[name],
        accuracy={key: score.headline for key, score in scores.items()},
        agreement=float(np.mean(same)) if same else agreement(spec, golden, expected),
        golden_difference=max(difference(head, golden[head.name], expected[head.name]) for head in spec.outputs),
        p50_ms=0.0,
        p99_ms=0.0,
        judged_images={key: score.images for key, score in scores.items()},
        corrupted_accuracy=corrupted_accuracy(engines[name], evidence),
        not_land_withheld=not_land_withheld(engines[name], evidence),
    )
