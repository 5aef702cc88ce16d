"""Robustness: accuracy on corrupted images, and behaviour on pictures without land.

Measures accuracy and calibration under corruption (Hendrycks and Dietterich 2019), and how often a picture without land gets a
label, or a confident one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.core.errors import MissingExtra
from spatialnet_edge.core.frames import preprocess, quality, sampled
from spatialnet_edge.core.results import no_label_reason
from spatialnet_edge.core.spec import RGB, InputSpec, ModelSpec, Multiclass
from spatialnet_edge.engines.registry import Engine
from spatialnet_optimize.evaluation.metrics import Outputs, align, calibration_error, predict, score
from spatialnet_training.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt, recompressed
from spatialnet_training.data.ground_truth import Truth, truths
from spatialnet_training.data.labelled_dataset import LabelledImages

CONFIDENT = 0.9
JPEG_QUALITY = 75
SEED = 41
SCARCE = 24
"""Number of pictures without land per kind."""
COVERAGES = tuple(step / 20 for step in range(1, 21))
"""Shares of all predictions, the most confident ones first."""
GATED = ("gaussian_noise", "motion_blur", "fog", "jpeg")
GATED_SEVERITY = 3


@dataclass(frozen=True, slots=True)
class CorruptedSet:
    """One corruption of a labelled set at one severity.

    Attributes:
        images: uint8 `[N, H, W, 3]` at the model's input.
        kept: their indices among the labelled images.
    """

    name: str
    severity: int
    images: NDArray[np.uint8]
    kept: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Robustness:
    """A head on corrupted images.

    Attributes:
        clean: accuracy on the same images without corruption, 0 to 1.
        accuracy: corruption and severity to accuracy, 0 to 1; withheld predictions count too.
        jpeg_75: accuracy after JPEG of quality 75.
        calibration_error: over all corrupted images.
        confident_right: share of correct predictions among those with a confidence of `CONFIDENT` or more, over all severities.
        withheld: share of the corrupted images without a label.
        risk: share of wrong predictions among the most confident 5 %, 10 %, … 100 % of those for corrupted images.
        labelled_right: severity to the share of correct labels among those that are given with a confidence of `CONFIDENT` or
            more: withheld ones do not count; None if there is none.
    """

    head: str
    images: int
    clean: float
    accuracy: dict[tuple[str, int], float]
    jpeg_75: float
    calibration_error: float
    confident_right: float
    withheld: float
    risk: tuple[float, ...] = ()
    labelled_right: dict[int, float | None] = field(default_factory=dict[int, float | None])

    def mean(self, severity: int) -> float:
        """Accuracy over all corruptions of one severity."""
        return float(np.mean([value for (_, each), value in self.accuracy.items() if each == severity]))


def originals(labelled: LabelledImages, spec: InputSpec, count: int) -> tuple[list[NDArray[np.uint8]], NDArray[np.int64]]:
    """Evenly chosen images at their original size, and their indices in `labelled`."""
    rows = np.unique(np.linspace(0, len(labelled) - 1, min(count, len(labelled))).astype(int))
    labelled = labelled.with_range(spec.value_range)
    files = labelled.chosen(rows.tolist()).files
    decoded = [
        labelled.decode(file, content, spec.groups) for file, content in zip(files, labelled.tree.read(files), strict=True)
    ]
    kept = [(image, row) for image, row in zip(decoded, rows.tolist(), strict=True) if image is not None]
    return [image for image, _ in kept], np.array([row for _, row in kept], np.int64)


def corrupted(
    images: Sequence[NDArray[np.uint8]], kept: NDArray[np.int64], spec: InputSpec, name: str, severity: int
) -> CorruptedSet:
    """Every image with one corruption, then resized like a frame."""
    made = [preprocess(corrupt(image, name, severity, index), spec) for index, image in enumerate(images)]
    return CorruptedSet(name, severity, np.stack(made), kept)


def can_be_corrupted(spec: InputSpec) -> bool:
    """Whether the model has colour bands, which the corruptions need."""
    return spec.groups == (RGB,)


def judge_robustness(engine: Engine, labelled: LabelledImages, known: Sequence[Truth], count: int) -> list[Robustness]:
    """Evaluate every multiclass head with labels, on `count` images with each corruption at each severity."""
    spec = engine.spec
    heads = [truth for truth in known if isinstance(spec.head(truth.head), Multiclass)]
    if not heads or not can_be_corrupted(spec.input):
        return []
    images, kept = originals(labelled, spec.input, count)
    clean = predict(engine, np.stack([preprocess(image, spec.input) for image in images]))
    lossy = predict(engine, np.stack([preprocess(recompressed(image, JPEG_QUALITY), spec.input) for image in images]))
    make = partial(corrupted, images, kept, spec.input)
    sets = [make(name, severity) for name in CORRUPTIONS for severity in SEVERITIES]
    outputs = [predict(engine, each.images) for each in sets]
    withheld = [unlabelled(spec, found, each.images) for each, found in zip(sets, outputs, strict=True)]
    judged: list[Robustness] = []
    for truth in heads:
        where, aligned = align(truth, kept)
        if not len(where):
            continue
        answers = [found[truth.head][where] for found in outputs]
        right = np.concatenate([each.argmax(axis=1) == aligned.values for each in answers])
        confidence = np.concatenate([each.max(axis=1) for each in answers])
        sure = confidence >= CONFIDENT
        given = sure & ~np.concatenate([each[where] for each in withheld])
        severities = np.repeat([each.severity for each in sets], len(where))
        judged.append(
            Robustness(
                head=truth.head,
                images=len(where),
                clean=score(spec, aligned, clean[truth.head][where]).headline,
                accuracy={
                    (each.name, each.severity): float((answer.argmax(axis=1) == aligned.values).mean())
                    for each, answer in zip(sets, answers, strict=True)
                },
                jpeg_75=score(spec, aligned, lossy[truth.head][where]).headline,
                calibration_error=calibration_error(confidence, right),
                confident_right=float(right[sure].mean()) if sure.any() else 1.0,
                withheld=float(np.mean(withheld)),
                risk=risk_curve(confidence, right),
                labelled_right={each: share_of(right, given & (severities == each)) for each in SEVERITIES},
            )
        )
    return judged


def share_of(right: NDArray[np.bool_], rows: NDArray[np.bool_]) -> float | None:
    """Share of true entries of `right` among some rows; None if there is none."""
    return float(right[rows].mean()) if rows.any() else None


def risk_curve(confidence: NDArray[np.float32], right: NDArray[np.bool_]) -> tuple[float, ...]:
    """Share of wrong predictions at each of `COVERAGES`, the most confident first (Geifman and El-Yaniv 2017)."""
    wrong = np.cumsum(~right[np.argsort(-confidence, kind="stable")])
    counts = [max(1, round(share * len(wrong))) for share in COVERAGES]
    return tuple(float(wrong[count - 1] / count) for count in counts)


def unlabelled(spec: ModelSpec, outputs: Outputs, images: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The frames without a label: bool `[N]`, for uint8 `[N, H, W, bands]`."""
    reasons = [
        no_label_reason(spec, {name: values[index] for name, values in outputs.items()}, quality(sampled(image)))
        for index, image in enumerate(images)
    ]
    return np.array([reason is not None for reason in reasons])


@dataclass(frozen=True, slots=True)
class NotLand:
    """Result of a model on pictures without land.

    Attributes:
        withheld: share without a label.
        confident: share with a label of `CONFIDENT` or more, for the head with the highest share.
    """

    images: int
    withheld: float
    confident: float


def not_land_pictures(spec: InputSpec, count: int = SCARCE) -> NDArray[np.uint8]:
    """Generated pictures without land at the model's input, `count` of each kind: uint8 `[N, H, W, 3]`.

    Raises:
        MissingExtra: OpenCV, which draws them, is not installed.
    """
    try:
        from spatialnet_training.data.not_land import generated
    except ModuleNotFoundError as error:
        if error.name != "cv2":
            raise
        raise MissingExtra("cv2", "opencv") from error
    return np.stack([preprocess(image, spec) for _, image in generated(count, 160, SEED)])


def measure_not_land(engine: Engine) -> NotLand | None:
    """Run an engine on pictures without land; None for an input without colour.

    Raises:
        MissingExtra: see `not_land_pictures`.
    """
    if not can_be_corrupted(engine.spec.input):
        return None
    pictures = not_land_pictures(engine.spec.input)
    return judge_not_land(engine.spec, predict(engine, pictures), pictures)


def judge_not_land(spec: ModelSpec, outputs: Outputs, images: NDArray[np.uint8]) -> NotLand:
    """Compute the result from the outputs for pictures without land."""
    withheld = unlabelled(spec, outputs, images)
    shares = [
        float(((outputs[head.name].max(axis=1) >= max(CONFIDENT, head.abstain_below)) & ~withheld).mean())
        for head in spec.heads
        if isinstance(head, Multiclass)
    ]
    return NotLand(len(images), float(withheld.mean()), max(shares, default=0.0))


def gated_sets(labelled: LabelledImages, spec: InputSpec, count: int) -> list[CorruptedSet]:
    """The corrupted images of a build's gates: `count` images with each of `GATED` at `GATED_SEVERITY`."""
    images, kept = originals(labelled, spec, count)
    return [corrupted(images, kept, spec, name, GATED_SEVERITY) for name in GATED] if images else []


def gated_accuracy(
    spec: ModelSpec, labelled: LabelledImages, sets: Sequence[CorruptedSet], outputs: Sequence[Outputs]
) -> float:
    """Mean headline metric over the heads with labels and all corrupted sets."""
    figures: list[float] = []
    for truth in truths(labelled, spec):
        for each, found in zip(sets, outputs, strict=True):
            where, known = align(truth, each.kept)
            if len(where):
                figures.append(score(spec, known, found[truth.head][where]).headline)
    return float(np.mean(figures))
