"""The result of one frame: the predictions of all heads, and why there may be none."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spatialnet_edge.core.clock import boot_id
from spatialnet_edge.core.frames import NO_PICTURE, Frame
from spatialnet_edge.core.predictions import Prediction, Probabilities, decode
from spatialnet_edge.core.spec import EVALUATION_HEADS, KNOWN, ModelSpec

UNKNOWN = "unknown"
REASONS = (UNKNOWN, *NO_PICTURE)
"""Reasons for a frame without a label. `dark`, `saturated`, `featureless`: the frame has no usable picture. `unknown`: it does
not resemble the training images."""


@dataclass(frozen=True, slots=True, eq=False)
class TileResult:
    """The answers for a square part of a frame.

    Attributes:
        x, y: left upper corner in pixels of the frame.
        side: in pixels of the frame.
        predictions: head name to answer.
        known, reason: as `FrameResult` has them.
    """

    x: int
    y: int
    side: int
    predictions: Mapping[str, Prediction]
    known: float | None = None
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "x": self.x,
            "y": self.y,
            "side": self.side,
            "known": None if self.known is None else round(self.known, 4),
            "reason": self.reason,
            "predictions": {name: answer.to_dict() for name, answer in self.predictions.items()},
        }


@dataclass(frozen=True, slots=True, eq=False)
class FrameResult:
    """The result for one frame. Each head is an attribute: `result.land_use.label`.

    Attributes:
        predictions: head name to prediction; only of the heads that are shown (`StreamOptions.show`).
        heads: names of all heads of the model, in its order.
        engine_ms: time inside the engine.
        emitted_ns: monotonic clock at which the result was complete.
        quality: flags of the picture, such as `dark`; see `core.frames.quality`.
        late: complete after the deadline.
        known: how much the picture resembles the training images, 0 to 1; None if the model has no such output.
        reason: why no head has a label, one of `REASONS`; None if the heads have labels.
        bundle: short hash of the bundle (see `Bundle.short_hash`); None for an engine without a bundle.
        absent: the model's band groups that the frame lacks, such as `("sar",)`, and single measured bands of the others,
            such as `("sar.vh",)`.
        tiles: answers of the parts that the frame was cut into, in rows from the left upper corner; empty for a frame that the
            model saw as a whole.
    """

    frame: Frame
    predictions: Mapping[str, Prediction]
    heads: tuple[str, ...]
    engine_ms: float
    emitted_ns: int
    quality: tuple[str, ...] = ()
    late: bool = False
    known: float | None = None
    reason: str | None = None
    bundle: str | None = None
    absent: tuple[str, ...] = ()
    tiles: tuple[TileResult, ...] = ()

    @property
    def seq(self) -> int:
        return self.frame.seq

    @property
    def source(self) -> str:
        return self.frame.source

    @property
    def age_ms(self) -> float:
        """Time from capture to the complete result, in milliseconds."""
        return (self.emitted_ns - self.frame.captured_ns) / 1e6

    def __getitem__(self, head: str) -> Prediction:
        """The prediction of a head: `result["land_use"]`.

        Raises:
            KeyError: no such head; the message lists the heads.
        """
        if head not in self.predictions:
            raise KeyError(f"no head '{head}'; this model has {', '.join(self.predictions)}")
        return self.predictions[head]

    def __str__(self) -> str:
        """One line: the source, the frame number, and the predictions for people; see `readable`."""
        start = f"{self.source} #{self.seq}{' (late)' if self.late else ''}: "
        if self.reason is not None:
            return f"{start}no label ({self.reason})"
        return start + ", ".join(f"{name} {answer}" for name, answer in readable(self).items())

    def __repr__(self) -> str:
        return f"<FrameResult {self}>"

    def __getattr__(self, name: str) -> Any:
        try:
            return self.predictions[name]
        except KeyError:
            raise AttributeError(f"no head '{name}'; this model has {', '.join(self.predictions)}") from None

    def to_dict(self) -> dict[str, Any]:
        """The result as one JSON object."""
        media_time_s = self.frame.media_time_s
        record: dict[str, Any] = {
            "seq": self.seq,
            "source": self.source,
            "bundle": self.bundle,
            "captured_unix": round(self.frame.captured_unix, 6),
            "captured_ns": self.frame.captured_ns,
            "media_time_s": media_time_s if media_time_s is None else round(media_time_s, 6),
            "boot": boot_id(),
            "age_ms": round(self.age_ms, 3),
            "engine_ms": round(self.engine_ms, 3),
            "quality": list(self.quality),
            "late": self.late,
            "known": None if self.known is None else round(self.known, 4),
            "reason": self.reason,
            "predictions": {name: answer.to_dict() for name, answer in self.predictions.items()},
        }
        if self.absent:
            record["absent"] = list(self.absent)
        if self.tiles:
            record["tiles"] = [tile.to_dict() for tile in self.tiles]
        if self.frame.pose is not None:
            pose = self.frame.pose
            record["pose"] = {name: getattr(pose, name) for name in pose.__slots__}
        if self.frame.footprint:
            record["footprint"] = self.frame.footprint
        if self.frame.note is not None:
            record["note"] = self.frame.note
        return record


def readable(result: FrameResult) -> Mapping[str, Prediction]:
    """The predictions for people: without the heads that serve evaluation, unless there are no others."""
    return {name: answer for name, answer in result.predictions.items() if name not in EVALUATION_HEADS} or result.predictions


def assemble(
    spec: ModelSpec,
    frame: Frame,
    rows: Probabilities,
    engine_ms: float,
    quality: tuple[str, ...],
    deadline_s: float = float("inf"),
    bundle: str | None = None,
    absent: tuple[str, ...] = (),
    tiles: tuple[TileResult, ...] = (),
) -> FrameResult:
    """Decode every head of one frame, or withhold every label; see `no_label_reason`.

    Args:
        deadline_s: from capture to the complete result; later results are marked `late`.
        bundle: short hash of the bundle of the engine.
        absent: band groups that the frame lacks, and single bands of the others.
        tiles: answers of the parts that the frame was cut into.
    """
    reason = no_label_reason(spec, rows, quality)
    predictions = {head.name: decode(head, rows[head.name], withhold=reason is not None) for head in spec.heads}
    known = None if spec.known is None else float(rows[KNOWN][0])
    now = time.monotonic_ns()
    late = now - frame.captured_ns > deadline_s * 1e9
    heads = tuple(predictions)
    return FrameResult(frame, predictions, heads, engine_ms, now, quality, late, known, reason, bundle, absent, tiles)


def no_label_reason(spec: ModelSpec, rows: Probabilities, quality: tuple[str, ...]) -> str | None:
    """Why a frame gets no label, one of `REASONS`; None if the heads may give labels.

    A frame without a usable picture never gets a label. If the model has an output `known`, a picture below its threshold does
    not either.
    """
    if no_picture := [flag for flag in quality if flag in NO_PICTURE]:
        return no_picture[0]
    if spec.known is None or rows[KNOWN][0] >= spec.known.threshold:
        return None
    return UNKNOWN
