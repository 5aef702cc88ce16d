"""The labelled images of a build: which sets fit the model, which images calibrate and which judge, decoded once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from spatialnet_edge.bundle.reader import Bundle
from spatialnet_edge.core.errors import DataRefused
from spatialnet_edge.core.spec import ModelSpec
from spatialnet_optimize.evaluation.candidate_evaluation import Evidence, decoded, evidence_of
from spatialnet_optimize.quantization.int8_calibration import (
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
    """Which images a build calibrates with and judges by.

    Attributes:
        labelled: folders, zips or tables of labelled images; empty for the shipped samples.
        calibration: a folder of real images for static INT8; None to set some of the labelled ones aside.
        budget: points of accuracy that a candidate may lose; says how many images are too few.
        prepared: the variants passed the gates on the computer that prepared the bundle.
    """

    labelled: tuple[Path, ...] = ()
    calibration: Path | None = None
    budget: float = 0.5
    prepared: bool = False


@dataclass(frozen=True, slots=True)
class BuildData:
    """Images for calibration, and those by which candidates are judged.

    Attributes:
        problems: what the user should know of the images, a line each.
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
        spec: of the heads that are kept.

    Raises:
        DataRefused: a set that was asked for fits no head, or none of its images can be decoded.
        MissingExtra: see `evidence_of`.
    """
    sets, problems = usable_sets(options.labelled or shipped_samples(), spec, bool(options.labelled))
    calibration, sets = calibrate(options.calibration, model, spec, sets)
    sets = disambiguate(sets)
    problems += small_set_warnings(sets, options.budget) if options.labelled else []
    evidence = evidence_of(model, spec, decoded(sets, spec.input), options.prepared)
    return BuildData(calibration, evidence, tuple(problems))


def usable_sets(paths: Sequence[Path], spec: ModelSpec, asked: bool) -> tuple[list[LabelledImages], list[str]]:
    """The labelled sets that fit a head of this model. A set that was asked for and does not fit is an error; a shipped one is
    passed over, and the accuracy gate may then have nothing to judge by, which is said."""
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
        "no labelled images fit this model's heads, so accuracy is not gated, only agreement on the golden frames; "
        "give some with --labelled DIR"
    ]


def disambiguate(sets: list[LabelledImages]) -> list[LabelledImages]:
    """The sets, those of one name by their paths: figures go by the name, and none may hide another's."""
    counts = Counter(images.name for images in sets)
    return [replace(images, name=str(images.tree.path)) if counts[images.name] > 1 else images for images in sets]


def small_set_warnings(sets: list[LabelledImages], budget: float) -> list[str]:
    """Where a single image is worth more than the budget: what is lost there is left to chance."""
    return [
        f"{len(images)} images of {images.name} judge the candidates, so that one answer more or less is "
        f"{100 / len(images):.1f} points and the budget {budget:g}; more labelled images judge better"
        for images in sets
        if len(images) * budget < 100
    ]


def calibrate(
    folder: Path | None, model: Bundle, spec: ModelSpec, sets: list[LabelledImages]
) -> tuple[Calibration, list[LabelledImages]]:
    """The calibration images, and the labelled ones that are left to judge by."""
    golden, _ = model.golden()
    learnt = model.manifest.provenance.image_counts
    if folder is not None:
        return from_folder(folder, spec.input, golden), [exclude_training(each, learnt) for each in sets]
    pairs = [split_calibration(each, learnt) for each in sets]
    return from_labelled([aside for aside, _ in pairs], spec.input, golden), [judged for _, judged in pairs]
