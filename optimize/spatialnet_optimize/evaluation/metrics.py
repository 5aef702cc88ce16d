"""Accuracy on labelled images and agreement with the reference; `latency.py` has the times."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, average_precision_score, confusion_matrix, f1_score

from spatialnet_edge.core.errors import DataRefused
from spatialnet_edge.core.frames import preprocess
from spatialnet_edge.core.hardware_info import cores
from spatialnet_edge.core.spec import InputSpec, ModelSpec, Multiclass, Regression
from spatialnet_edge.engines.registry import Engine
from spatialnet_edge.sources.stills import find_images
from spatialnet_training.data.deep_pixels import decode_with_range
from spatialnet_training.data.file_tree import content
from spatialnet_training.data.ground_truth import Truth
from spatialnet_training.data.labelled_dataset import LabelledImages

Outputs = Mapping[str, NDArray[np.float32]]
CALIBRATION_BINS = 15


@dataclass(frozen=True, slots=True)
class Pixels:
    """Decoded and resized images.

    Attributes:
        images: uint8 `[N, H, W, bands]`.
        kept: their indices among the labelled images.
        broken: paths of files that are not images.
    """

    images: NDArray[np.uint8]
    kept: NDArray[np.int64]
    broken: tuple[str, ...]


def decode_images(labelled: LabelledImages, spec: InputSpec, progress: Callable[[int], None] = lambda done: None) -> Pixels:
    """Decode every labelled image to the model's input; files that cannot be decoded are listed and not counted.

    Images of more than 8 bits are read with the range of the data set, else with the model's.

    Raises:
        DataRefused: none can be decoded.
    """
    images: list[NDArray[np.uint8]] = []
    kept: list[int] = []
    broken: list[str] = []
    labelled = labelled.with_range(spec.value_range)
    for row, encoded in enumerate(labelled.tree.read(labelled.files)):
        image = labelled.decode(labelled.files[row], encoded, spec.groups)
        if image is None:
            broken.append(labelled.files[row])
        else:
            images.append(preprocess(image, spec))
            kept.append(row)
        progress(row + 1)
    if not images:
        raise DataRefused(f"{labelled.tree.path}: none of its {len(labelled)} images can be decoded")
    return Pixels(np.stack(images), np.array(kept, np.int64), tuple(broken))


def pictures(folder: Path, spec: InputSpec, most: int) -> list[NDArray[np.uint8]]:
    """Up to `most` pictures below a folder, evenly chosen, at the model's input; what cannot be decoded is left out.

    Raises:
        DataRefused: one has more than 8 bits, and the model has no range for it.
    """
    paths = find_images(folder)
    chosen = [paths[i] for i in np.linspace(0, len(paths) - 1, min(most, len(paths))).astype(int)] if paths else []
    decoded = [decode_with_range(str(path), content(path.read_bytes), spec.groups, spec.value_range) for path in chosen]
    return [preprocess(image, spec) for image in decoded if image is not None]


def predict(engine: Engine, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """Probabilities for uint8 `[N, H, W, 3]`: head name to float32 `[N, width]`.

    One image at a time, as in flight: dynamic quantisation computes its scale from the batch, so larger batches give other
    results.
    """

    def one(image: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        return {name: values.copy() for name, values in engine.infer(image[None]).items()}

    with ThreadPoolExecutor(cores() if engine.reentrant else 1) as pool:
        parts = list(pool.map(one, images))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def align(truth: Truth, kept: NDArray[np.int64]) -> tuple[NDArray[np.int64], Truth]:
    """Align ground truth and decoded images: indices of the decoded images, and the ground truth of these."""
    position = {int(row): index for index, row in enumerate(kept)}
    pairs = [(position[int(row)], i) for i, row in enumerate(truth.rows) if int(row) in position]
    where = np.array([p for p, _ in pairs], np.int64)
    chosen = np.array([i for _, i in pairs], np.int64)
    return where, Truth(truth.head, truth.rows[chosen], truth.values[chosen])


@dataclass(frozen=True, slots=True)
class Score:
    """One head on one set of labelled images.

    Attributes:
        headline: accuracy for a multiclass head, mean average precision for a multilabel head; for a quantity, 1 minus its mean
            absolute error as a share of the range; 0 to 1.
        metrics: all metrics by name.
        confusion: int `[labels, labels]`, rows are the truth; for multiclass heads.
    """

    head: str
    images: int
    headline: float
    metrics: dict[str, float]
    labels: tuple[str, ...] = ()
    confusion: list[list[int]] = field(default_factory=list)
    per_label: dict[str, float] = field(default_factory=dict)


def score(spec: ModelSpec, truth: Truth, probabilities: NDArray[np.float32]) -> Score:
    """Score a head.

    Args:
        probabilities: float32 `[N, labels]` for the images of the ground truth.
    """
    head = spec.head(truth.head)
    if isinstance(head, Regression):
        error = float(np.abs(probabilities - truth.values).mean())
        headline = 1 - error / (head.high - head.low)
        return Score(truth.head, len(probabilities), headline, {"mean_absolute_error": error})
    labels = head.labels
    if isinstance(head, Multiclass):
        answers = probabilities.argmax(axis=1)
        present = np.unique(truth.values)
        answered = probabilities.max(axis=1) >= head.abstain_below
        right = answers == truth.values
        metrics = {
            "accuracy": float(accuracy_score(truth.values, answers)),
            "macro_f1": macro_f1(truth.values, answers, labels=present),
            "expected_calibration_error": calibration_error(probabilities.max(axis=1), right),
            "answered": float(answered.mean()),
            "accuracy_of_answered": float(right[answered].mean()) if answered.any() else 0.0,
            "area_under_risk_coverage": area_under_risk_coverage(probabilities.max(axis=1), right),
        }
        table = confusion_matrix(truth.values, answers, labels=np.arange(len(labels)))
        per_label = {labels[i]: float(right[truth.values == i].mean()) for i in present}
        return Score(truth.head, len(answers), metrics["accuracy"], metrics, labels, table.tolist(), per_label)
    thresholds = np.array(head.thresholds, np.float32)
    answers = probabilities >= thresholds
    positive = truth.values > 0.5
    judged = [i for i in range(len(labels)) if positive[:, i].any()]
    per_label = {labels[i]: float(average_precision_score(positive[:, i], probabilities[:, i])) for i in judged}
    metrics = {
        "mean_average_precision": float(np.mean(list(per_label.values()))),
        "macro_f1": macro_f1(positive[:, judged], answers[:, judged]),
        "accuracy": float((answers == positive).mean()),
        "expected_calibration_error": calibration_error(probabilities.ravel(), positive.ravel(), low=0.0),
    }
    return Score(truth.head, len(answers), metrics["mean_average_precision"], metrics, labels, per_label=per_label)


def figures(each: Score) -> dict[str, Any]:
    """A score for JSON, rounded."""
    return {
        "head": each.head,
        "images": each.images,
        **{name: round(value, 5) for name, value in each.metrics.items()},
        "per_label": {name: round(value, 5) for name, value in each.per_label.items()},
        "labels": list(each.labels),
        "confusion": each.confusion,
    }


def judge(spec: ModelSpec, truth: Truth, outputs: Outputs, kept: NDArray[np.int64]) -> Score:
    """Score a head on its decoded images.

    Args:
        outputs: probabilities of the decoded images.
        kept: see `Pixels`.
    """
    where, known = align(truth, kept)
    return score(spec, known, outputs[truth.head][where])


def macro_f1(truth: NDArray[Any], answers: NDArray[Any], labels: NDArray[Any] | None = None) -> float:
    """F1 averaged over the labels that occur; a label that is never predicted counts as 0."""
    return float(f1_score(truth, answers, labels=labels, average="macro", zero_division=0))  # pyright: ignore[reportArgumentType]


def calibration_error(confidence: NDArray[np.float32], right: NDArray[np.bool_], low: float = 0.0) -> float:
    """Expected calibration error: the mean gap between confidence and accuracy over equal-width bins, weighted by their share
    of the predictions (Naeini et al. 2015; Guo et al. 2017, 15 bins).

    Args:
        confidence: float `[N]` from `low` to 1.
        right: bool `[N]`.
    """
    edges = np.linspace(low, 1, CALIBRATION_BINS + 1)
    bins = np.clip(np.digitize(confidence, edges) - 1, 0, CALIBRATION_BINS - 1)
    gaps = [
        abs(float(confidence[bins == b].mean()) - float(right[bins == b].mean())) * float((bins == b).mean())
        for b in np.unique(bins)
    ]
    return float(sum(gaps))


def area_under_risk_coverage(confidence: NDArray[np.float32], right: NDArray[np.bool_]) -> float:
    """Mean share of wrong predictions over all coverages, the most confident predictions first (Geifman and El-Yaniv 2017).
    Lower is better; 0 if there is no wrong prediction."""
    order = np.argsort(-confidence, kind="stable")
    return float((np.cumsum(~right[order]) / np.arange(1, len(right) + 1)).mean())


def agreement(spec: ModelSpec, outputs: Outputs, expected: Outputs) -> float:
    """The share of predictions (all images, all classifying heads) that equal the reference's."""
    same: list[float] = []
    for head in spec.heads:
        found, wanted = outputs[head.name], expected[head.name]
        if isinstance(head, Multiclass):
            same.append(float((found.argmax(1) == wanted.argmax(1)).mean()))
        elif head.width > 1:
            same.append(float(((found > 0.5) == (wanted > 0.5)).mean()))
    return float(np.mean(same)) if same else 1.0
