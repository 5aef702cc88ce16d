"""Labelled images of a build: matching data sets, and the images for calibration and evaluation, decoded once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from spatialnet_edge.bundle.reader import Bundle
from spatialnet_edge.core.errors import DataRefused
from spatialnet_edge.core.spec import ModelSpec
from spatialnet_optimize.evaluation.candidate_evaluation import Evidence, decoded, evidence_of
from spatialnet_optimize.quantization.int8_calibration import (
    MOST_TRAINING,
    Calibration,
    exclude_training,
    from_folder,
    from_labelled,
    split_calibration,
)
from spatialnet_optimize.shipped_samples import shipped_samples
from spatialnet_training.data.ground_truth import truths
from spatialnet_training.data.labelled_dataset import LabelledImages, open_labelled


@dataclass(frozen=True, slots=True)
class DataOptions:
    """Options for the images of a build.

    Attributes:
        labelled: folders, zips or tables of labelled images; empty for the shipped samples.
        calibration: a folder of real images for static INT8; None: use some of the labelled ones.
        budget: percentage points of accuracy that a variant may lose; determines the warning for too few images.
        prepared: the variants passed the gates on the computer that prepared the bundle.
        training: decode images for quantisation-aware training, too.
    """

    labelled: tuple[Path, ...] = ()
    calibration: Path | None = None
    budget: float = 0.5
    prepared: bool = False
    training: bool = False


@dataclass(frozen=True, slots=True)
class BuildData:
    """Images for calibration and for evaluation.

    Attributes:
        problems: warnings about the images, one line each.
    """

    calibration: Calibration
    evidence: Evidence
    problems: tuple[str, ...]

    @property
    def labelled_images(self) -> int:
        return sum(len(each) for each in self.evidence.sets)


def load_data(options: DataOptions, model: Bundle, spec: ModelSpec) -> BuildData:
    """Open, split and decode the images.

    Args:
        spec: with the kept heads.

    Raises:
        DataRefused: a given data set matches no head, or none of its images can be decoded.
        MissingExtra: see `evidence_of`.
    """
    sets, problems = usable_sets(options.labelled or shipped_samples(), spec, bool(options.labelled))
    calibration, sets = calibrate(options.calibration, model, spec, sets, options.training)
    sets = disambiguate(sets)
    problems += small_set_warnings(sets, options.budget) if options.labelled else []
    evidence = evidence_of(model, spec, decoded(sets, spec.input), options.prepared)
    return BuildData(calibration, evidence, tuple(problems))


def usable_sets(paths: Sequence[Path], spec: ModelSpec, asked: bool) -> tuple[list[LabelledImages], list[str]]:
    """The labelled data sets that match a head of this model. A given set that does not match is an error. A shipped set that
    does not match is ignored; if none is left, a warning says that only agreement is gated."""
    sets: list[LabelledImages] = []
    for path in paths:
        images = open_labelled(path)
        try:
            truths(images, spec)
        except DataRefused:
            if asked:
                raise
            continue
        sets.append(images)
    if sets:
        return sets, []
    return [], [
        "no labelled images match this model's heads, so only agreement on the golden frames is gated, not accuracy; "
        "give images with --labelled DIR"
    ]


def disambiguate(sets: list[LabelledImages]) -> list[LabelledImages]:
    """Give data sets of the same name unique names by their paths, because results are listed by name."""
    counts = Counter(images.name for images in sets)
    return [replace(images, name=str(images.tree.path)) if counts[images.name] > 1 else images for images in sets]


def small_set_warnings(sets: list[LabelledImages], budget: float) -> list[str]:
    """Warnings for data sets where a single image exceeds the budget, so that the result depends on chance."""
    return [
        f"{len(images)} images of {images.name} are used for the evaluation, so that one prediction is "
        f"{100 / len(images):.1f} points, and the budget is {budget:g}; give more labelled images"
        for images in sets
        if len(images) * budget < 100
    ]


def calibrate(
    folder: Path | None, model: Bundle, spec: ModelSpec, sets: list[LabelledImages], training: bool = False
) -> tuple[Calibration, list[LabelledImages]]:
    """The calibration images, with those for training if they are asked for, and the remaining labelled images for evaluation."""
    golden, _ = model.golden()
    learnt = model.manifest.provenance.image_counts
    if folder is not None:
        judged = [exclude_training(each, learnt) for each in sets]
        images = partial(from_folder, folder, spec.input, golden)
    else:
        pairs = [split_calibration(each, learnt) for each in sets]
        judged = [rest for _, rest in pairs]
        images = partial(from_labelled, [aside for aside, _ in pairs], spec.input, golden)
    calibration = images()
    return (replace(calibration, training=images(MOST_TRAINING).images) if training else calibration), judged
