"""Large frames judged twice: as a whole, resized to the model's input, and cut into tiles at the scale that was taught."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.core.frames import preprocess, quality, sampled
from spatialnet_edge.core.results import Probabilities, no_label_reason
from spatialnet_edge.core.spec import ModelSpec, Multiclass
from spatialnet_edge.engines.registry import Engine
from spatialnet_edge.runtime.tiling import Scale, Tile, TileOutput, combined, crop, tiles_of, tiling_for
from spatialnet_optimize.evaluation.robustness import CONFIDENT
from spatialnet_training.data.ground_truth import Truth
from spatialnet_training.data.labelled_dataset import LabelledImages

Answer = tuple[Probabilities, bool]
"""The rows of one frame, and whether it gets no label at all."""


@dataclass(frozen=True, slots=True)
class FrameScore:
    """One head on labelled frames that the model sees as a whole or in tiles.

    Attributes:
        shown: `whole` or `tiles`.
        tiles: tiles a frame, on average.
        accuracy: of the most likely label, also where it is withheld.
        labelled, right: share of the frames with a label, and share of these that are right; None without any.
        confident, confident_right: the same for labels with a confidence of `CONFIDENT` or more.
    """

    head: str
    shown: str
    images: int
    tiles: float
    accuracy: float
    labelled: float
    right: float | None
    confident: float
    confident_right: float | None


def compare_scales(engine: Engine, images: LabelledImages, known: Sequence[Truth], gsd: float) -> list[FrameScore]:
    """Judge the categorical heads on frames as a whole and in tiles; frames that cannot be decoded are left out.

    Args:
        gsd: metres on the ground per pixel of the frames.

    Raises:
        UsageError: the model does not state the scale that it was taught at.
    """
    spec, tiling = engine.spec, tiling_for(engine.spec, Scale(gsd))
    answers: dict[int, tuple[Answer, Answer]] = {}
    counts: list[int] = []
    images = images.with_range(spec.input.value_range)
    for row, encoded in enumerate(images.tree.read(images.files)):
        image = images.decode(images.files[row], encoded, spec.input.groups)
        if image is None:
            continue
        tiles = tiles_of(image.shape[0], image.shape[1], gsd, tiling.taught, tiling.side)
        answers[row] = answer_of(engine, image, ()), answer_of(engine, image, tiles)
        counts.append(len(tiles))
    heads = [truth for truth in known if isinstance(spec.head(truth.head), Multiclass)]
    return [
        score_of(truth, spec, {row: both[way] for row, both in answers.items()}, shown, float(np.mean(count)))
        for truth in heads
        for way, (shown, count) in enumerate((("whole", [1]), ("tiles", counts)))
    ]


def answer_of(engine: Engine, image: NDArray[np.uint8], tiles: Sequence[Tile]) -> Answer:
    """The rows of a frame, and whether every label is withheld.

    Args:
        image: uint8 `[H, W, bands]`.
        tiles: empty to show the model the whole frame.
    """
    parts: list[TileOutput] = []
    for tile in tiles or (None,):
        pixels = preprocess(image if tile is None else crop(image, tile), engine.spec.input)
        rows = {name: values[0].copy() for name, values in engine.infer(pixels[None]).items()}
        parts.append(TileOutput(tile or Tile(0, 0, 0), rows, quality(sampled(pixels))))
    rows, flags = combined(engine.spec, parts)
    return rows, no_label_reason(engine.spec, rows, flags) is not None


def score_of(truth: Truth, spec: ModelSpec, answers: dict[int, Answer], shown: str, tiles: float) -> FrameScore:
    head = spec.head(truth.head)
    assert isinstance(head, Multiclass)
    judged = [
        (answers[int(row)], int(value)) for row, value in zip(truth.rows, truth.values, strict=True) if int(row) in answers
    ]
    best = np.array([int(rows[head.name].argmax()) for (rows, _), _ in judged])
    confidence = np.array([rows[head.name].max() for (rows, _), _ in judged], np.float32)
    right = best == np.array([value for _, value in judged])
    labelled = (confidence >= head.abstain_below) & ~np.array([withheld for (_, withheld), _ in judged])
    sure = labelled & (confidence >= CONFIDENT)
    return FrameScore(
        head.name, shown, len(judged), tiles, float(right.mean()),
        float(labelled.mean()), share(right[labelled]), float(sure.mean()), share(right[sure]),
    )  # fmt: skip


def share(right: NDArray[np.bool_]) -> float | None:
    return float(right.mean()) if len(right) else None
