"""The prediction of one head: from probabilities to a label, labels or a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from typing_extensions import assert_never

from spatialnet_edge.core.spec import Head, Multiclass, Multilabel, Output, Regression

Probabilities: TypeAlias = Mapping[str, NDArray[np.float32]]
"""One row per output: float32 `[width]`."""

NO_ANSWER = "—"
"""Text for a missing label."""


@dataclass(frozen=True, slots=True, eq=False)
class Classification:
    """The prediction of a multiclass head.

    Attributes:
        label: the most likely label; None if its probability is below the head's `abstain_below` or the frame gets no label.
        confidence: that probability, even if the label is withheld.
        probabilities: float32 `[len(labels)]`.
    """

    label: str | None
    confidence: float
    labels: tuple[str, ...]
    probabilities: NDArray[np.float32]

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """The most likely labels with their probabilities, best first."""
        order = np.argsort(-self.probabilities)[:count]
        return [(self.labels[index], float(self.probabilities[index])) for index in order]

    def to_dict(self) -> dict[str, Any]:
        return {"label": self.label, "confidence": round(self.confidence, 4)}

    def __str__(self) -> str:
        return f"{self.label or NO_ANSWER} {self.confidence:.0%}"


@dataclass(frozen=True, slots=True, eq=False)
class MultilabelPrediction:
    """The prediction of a multilabel head.

    Attributes:
        present: the labels that are present; None if the frame gets no label.
        probabilities: float32 `[len(labels)]`.
    """

    present: tuple[str, ...] | None
    labels: tuple[str, ...]
    probabilities: NDArray[np.float32]

    def to_dict(self) -> dict[str, Any]:
        scores = {label: round(float(p), 4) for label, p in zip(self.labels, self.probabilities, strict=True)}
        return {"present": None if self.present is None else list(self.present), "confidence": scores}

    def __str__(self) -> str:
        return NO_ANSWER if self.present is None else ", ".join(self.present) or "none"


@dataclass(frozen=True, slots=True, eq=False)
class RegressionPrediction:
    """The prediction of a regression head; `value` is None if the frame gets no label."""

    value: float | None
    unit: str

    def to_dict(self) -> dict[str, Any]:
        return {"value": None if self.value is None else round(self.value, 4), "unit": self.unit}

    def __str__(self) -> str:
        return NO_ANSWER if self.value is None else f"{self.value:.2f} {self.unit}".rstrip()


Prediction: TypeAlias = Classification | MultilabelPrediction | RegressionPrediction


def decode(head: Head, row: NDArray[np.float32], withhold: bool = False) -> Prediction:
    """Decode the output of one head for one frame, float32 `[head.width]`.

    Args:
        withhold: give no label, set of labels or value, whatever the probabilities.
    """
    match head:
        case Multiclass():
            best = int(row.argmax())
            confidence = float(row[best])
            label = None if withhold or confidence < head.abstain_below else head.labels[best]
            return Classification(label, confidence, head.labels, row)
        case Multilabel():
            judged = zip(head.labels, row.tolist(), head.thresholds, strict=True)
            present = tuple(label for label, p, least in judged if p >= least)
            return MultilabelPrediction(None if withhold else present, head.labels, row)
        case Regression():
            return RegressionPrediction(None if withhold else float(row[0]), head.unit)
        case _:
            assert_never(head)


def difference(head: Output, found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """The largest difference between two outputs of a head: of probabilities directly, of a quantity as a share of its range.

    Infinite if a value is not a number.
    """
    span = head.high - head.low if isinstance(head, Regression) else 1.0
    largest = float(np.abs(found - expected).max()) / span
    return float("inf") if np.isnan(largest) else largest
