"""Gates of a build: which variants pass, and which one is chosen.

A variant is rejected if it loses more accuracy than the budget on any head, changes too many predictions, or differs too much
on the golden frames. Of those that pass, the fastest is chosen, unless the difference is within the noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from spatialnet_edge.bundle.manifest import CandidateRecord
from spatialnet_edge.core.errors import BuildError

REFERENCE = "fp32"
PARTIAL = "int8-partial"
"""Static INT8 of the layers found by a search; see sensitivity.py."""
MODELOPT = "int8-modelopt"
"""INT8 by NVIDIA's Model Optimizer, where it is installed; see modelopt_int8.py."""
QAT = "int8-qat"
"""INT8 Q/DQ with the weights of quantisation-aware training; see int8_qat.py."""
NEEDS_CALIBRATION = ("int8-static", "int8-qdq", "int8-qdq-fp16", "fp8-qdq")
NOT_RUN_ON_A_CPU = ("bf16",)
"""ONNX Runtime has no CPU kernels for these: they cannot be evaluated without the device."""
WORTHWHILE = 0.95
"""A variant replaces a more precise one only if it needs at most this share of its time."""

GOLDEN_TOLERANCE = {
    "fp32": 0.002,
    "fp16": 0.02,
    "bf16": 0.05,
    "fp8-qdq": 0.1,
    "int8-dynamic": 0.05,
    "int8-static": 0.15,
    "int8-qdq": 0.15,
    "int8-qdq-fp16": 0.15,
    "int8-partial": 0.15,
    MODELOPT: 0.15,
    QAT: 0.15,
}
"""Largest difference in probability from the FP32 reference on the golden frames, per precision."""

LEAST_AGREEMENT = 0.97
"""Smallest share of all heads' predictions that must equal the reference's. A few labelled images hardly show a loss of
accuracy, and show nothing for heads without labels; changed predictions do (decision 16)."""


NOT_LAND_POINTS = 2.0
"""Percentage points of additional labels that a variant may give to pictures without land, compared with FP32."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A variant with its measurements.

    Attributes:
        content: the graph or plan.
        accuracy: `head (data set)` to the headline metric, 0 to 1.
        judged_images: `head (data set)` to the number of images of that metric.
        agreement: share of predictions equal to the reference's, 0 to 1.
        golden_difference: largest difference in probability on the golden frames.
        p50_ms, p99_ms: latency of the engine alone; 0 if it cannot run on this computer.
        runs_here: whether accuracy and latency were measured at all.
        executed, stripped_size, corrupted_accuracy, not_land_withheld: as in `CandidateRecord`.
    """

    name: str
    content: bytes
    accuracy: dict[str, float]
    agreement: float
    golden_difference: float
    p50_ms: float
    p99_ms: float
    runs_here: bool = True
    judged_images: dict[str, int] = field(default_factory=dict)
    executed: dict[str, int] = field(default_factory=dict)
    stripped_size: int = 0
    corrupted_accuracy: float | None = None
    not_land_withheld: float | None = None


def unseen(name: str, content: bytes) -> Measured:
    """A variant that could not run on this computer."""
    return Measured(name, content, {}, 0.0, 0.0, 0.0, 0.0, runs_here=False)


def loss_points(candidate: Measured, reference: Measured) -> float:
    """The largest loss of accuracy over all heads and data sets, in percentage points; negative for a gain on all."""
    losses = [100 * (reference.accuracy[key] - candidate.accuracy[key]) for key in reference.accuracy]
    return max(losses, default=0.0)


def allowed_loss(key: str, reference: Measured, budget: float) -> float:
    """Percentage points that a variant may lose on one head and data set: the budget, or one image if one image is more than
    that.

    One changed prediction in a small set is no evidence of a loss. The gates for agreement and golden frames cover the
    predictions of all heads, with labels or without.
    """
    images = reference.judged_images.get(key, 0)
    return max(budget, 100 / images) if images else budget


def accuracy_refusal(candidate: Measured, reference: Measured, budget: float) -> str | None:
    """Why a candidate loses too much accuracy, at its worst head and data set; None when it does not."""
    excess = {
        key: 100 * (reference.accuracy[key] - candidate.accuracy[key]) - allowed_loss(key, reference, budget)
        for key in reference.accuracy
    }
    worst = max(excess, key=lambda key: excess[key], default="")
    if not worst or excess[worst] <= 1e-6:  # one image of 200 is half a point, except for rounding
        return None
    allowed = allowed_loss(worst, reference, budget)
    one_image = f"one of its {reference.judged_images.get(worst)} images may change"
    reason = f"the budget is {budget:.2f}" if allowed == budget else one_image
    return f"accuracy: loses {excess[worst] + allowed:.2f} points in {worst}; {reason}"


def refusal(candidate: Measured, reference: Measured, budget: float, passed_before: bool = False) -> str | None:
    """Why a variant is rejected; None if it passes.

    Args:
        passed_before: whether the variant's graph passed the accuracy gate on the computer that prepared the bundle. Then
            agreement and golden frames suffice without labelled images.
    """
    if candidate.name == REFERENCE or not candidate.runs_here:
        return None
    asked = candidate.name.partition("-")[0]
    if candidate.executed and asked not in candidate.executed:
        found = ", ".join(f"{count} in {precision}" for precision, count in candidate.executed.items())
        return f"executed precision: {asked} was requested, but no layer runs in it: {found}"
    if verdict := accuracy_refusal(candidate, reference, budget):
        return verdict
    if not reference.accuracy and not passed_before:
        return "not evaluated: no labelled image matches a head of this model; give some with --labelled"
    if verdict := robustness_refusal(candidate, reference, budget):
        return verdict
    if candidate.agreement < LEAST_AGREEMENT:
        return (
            f"agreement: {candidate.agreement:.1%} of all heads' predictions are unchanged, {LEAST_AGREEMENT:.0%} are "
            "required; remove unneeded heads with --heads, or exclude the most sensitive layers with --search"
        )
    allowed = GOLDEN_TOLERANCE[candidate.name]
    if candidate.golden_difference > allowed:
        return f"golden: probabilities differ by {candidate.golden_difference:.3f} on the golden frames; allowed {allowed:.3f}"
    return None


def robustness_refusal(candidate: Measured, reference: Measured, budget: float) -> str | None:
    """Why a variant is rejected for its results on degraded pictures; None if it passes or was not evaluated on them."""
    if candidate.corrupted_accuracy is not None and reference.corrupted_accuracy is not None:
        lost = 100 * (reference.corrupted_accuracy - candidate.corrupted_accuracy)
        if lost > budget + 1e-6:
            return f"corrupted images: loses {lost:.2f} points; the budget is {budget:.2f}"
    if candidate.not_land_withheld is not None and reference.not_land_withheld is not None:
        lost = 100 * (reference.not_land_withheld - candidate.not_land_withheld)
        if lost > NOT_LAND_POINTS:
            return (
                f"known: gives labels to {lost:.1f} points more of the pictures without land than FP32; allowed "
                f"{NOT_LAND_POINTS:g}"
            )
    return None


def better(candidate: Measured, other: Measured, reference: Measured, budget: float) -> bool:
    """Whether a candidate comes out of the gates better than another one of the same speed: it passes and the other does not, or
    it loses less accuracy, or of equal accuracy changes fewer answers."""

    def rank(each: Measured) -> tuple[bool, float, float]:
        return not refusal(each, reference, budget), -loss_points(each, reference), each.agreement

    return rank(candidate) > rank(other)


@dataclass(frozen=True, slots=True)
class Decision:
    """The chosen variant, the reason in one sentence, and a record of every variant."""

    winner: Measured
    reason: str
    records: tuple[CandidateRecord, ...]


def decide(candidates: Sequence[Measured], budget: float, passed_before: bool = False) -> Decision:
    """Choose the fastest variant that passes.

    Args:
        candidates: the FP32 reference first, then from precise to less precise.
        budget: percentage points of accuracy that a variant may lose.
        passed_before: see `refusal`.

    Raises:
        BuildError: there is no FP32 reference, or it does not reproduce the golden frames on this computer.
    """
    if not candidates or candidates[0].name != REFERENCE:
        raise BuildError("the first candidate must be the FP32 reference")
    reference = winner = candidates[0]
    if not reference.golden_difference <= GOLDEN_TOLERANCE[REFERENCE]:
        raise BuildError(
            f"the FP32 graph differs from its golden frames by {reference.golden_difference:.4f} on this computer; allowed "
            f"{GOLDEN_TOLERANCE[REFERENCE]:.4f}; the installed runtime library does not compute this model, so "
            "nothing is built"
        )
    verdicts: dict[str, str | None] = {reference.name: None}
    for candidate in candidates[1:]:
        verdict = refusal(candidate, reference, budget, passed_before)
        if not verdict and candidate.runs_here:
            ratio = candidate.p50_ms / winner.p50_ms
            if ratio <= WORTHWHILE:
                verdicts[winner.name] = f"slower: {1 / ratio:.2f} times the time of {candidate.name}"
                winner = candidate
            else:
                verdict = f"not faster: {ratio:.2f} times the time of {winner.name}"
        verdicts[candidate.name] = verdict
    verdicts[winner.name] = "chosen"
    others = "; ".join(f"{name} {verdict}" for name, verdict in verdicts.items() if name != winner.name and verdict)
    reason = f"{winner.name} at {winner.p50_ms:.2f} ms is the fastest variant that keeps its accuracy" + (
        f" ({others})" if others else ""
    )
    records = tuple(record(each, reference, each is winner, verdicts[each.name] or "") for each in candidates)
    return Decision(winner, reason, records)


def record(each: Measured, reference: Measured, chosen: bool, verdict: str) -> CandidateRecord:
    """The report's record of a variant."""
    return CandidateRecord(
        name=each.name,
        size=len(each.content),
        accuracy={key: round(value, 5) for key, value in each.accuracy.items()},
        loss_points=round(loss_points(each, reference), 3) if each.runs_here else 0.0,
        agreement=round(each.agreement, 5),
        latency_ms=round(each.p50_ms, 4),
        latency_p99_ms=round(each.p99_ms, 4),
        chosen=chosen,
        verdict=verdict,
        executed=each.executed,
        stripped_size=each.stripped_size,
        corrupted_accuracy=None if each.corrupted_accuracy is None else round(each.corrupted_accuracy, 5),
        not_land_withheld=None if each.not_land_withheld is None else round(each.not_land_withheld, 5),
    )
