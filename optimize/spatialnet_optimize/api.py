"""Build, quantise, evaluate and export from Python.

from spatialnet_optimize.api import build, evaluate

bundle = build("builtin:spatialnet-s", "landuse.snb", target="here", precision="int8")
for score in evaluate(bundle.path, "images.zip").scores:
    print(score.head, score.headline)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from spatialnet_edge.api import load
from spatialnet_edge.bundle.manifest import EngineRecord
from spatialnet_edge.bundle.reader import Bundle, open_bundle
from spatialnet_edge.core.errors import UsageError
from spatialnet_edge.engines.registry import Engine
from spatialnet_optimize.build.build import Job
from spatialnet_optimize.build.build import build as run_build
from spatialnet_optimize.build.build_cache import remembered
from spatialnet_optimize.evaluation.metrics import Score, decode_images, judge, predict
from spatialnet_optimize.evaluation.robustness import (
    NotLand,
    Robustness,
    can_be_corrupted,
    judge_robustness,
    measure_not_land,
    unlabelled,
)
from spatialnet_optimize.evaluation.tiled import FrameScore, compare_scales
from spatialnet_optimize.quantization.int8_calibration import exclude_training
from spatialnet_training.data.ground_truth import Truth, truths
from spatialnet_training.data.labelled_dataset import LabelledImages, open_labelled
from spatialnet_training.networks.checkpoint_paths import is_checkpoint, run_name


def build(
    model: str | Path,
    output: str | Path,
    *,
    target: str = "here",
    labelled: Sequence[str | Path] = (),
    budget: float = 0.5,
    heads: Sequence[str] = (),
    precision: str = "",
    calibration: str | Path | None = None,
    fresh: bool = False,
    step: Callable[[str], None] = lambda text: None,
) -> Bundle:
    """Build the fastest bundle that passes the gates.

    Args:
        model: a bundle, a checkpoint, or `builtin:spatialnet-s`.
        output: the bundle to write: a `.snb` file or a directory.
        target: a device of `spatialnet-edge targets`; `here` is this computer.
        labelled: labelled images for the accuracy gate: folders, zips or CSV files; empty for the shipped samples.
        budget: percentage points of accuracy that a variant may lose on any head.
        heads: keep only these heads; empty: all.
        precision: try only this one (`fp16`, `bf16`, `int8`, `fp8`) besides the FP32 reference; empty: try all.
        calibration: a folder of real images for static INT8; None: use some of the labelled ones.
        fresh: build again even if the same build was done before.
        step: called with one line of text for each step.

    Returns:
        The written bundle. `bundle.manifest.build` has the reason for choosing this variant and rejecting the others.

    Raises:
        UsageError: unknown target, head or precision.
        EngineUnavailable: this version cannot build for the target.
        BuildError: no variant passes, or a compiler refused the graph.
    """
    path = Path(output)
    images = tuple(map(Path, labelled))
    job = Job(
        open_model(str(model), path, images), target, path, images, budget, tuple(heads),
        None if calibration is None else Path(calibration), precision,
    )  # fmt: skip
    return run_build(job, step)[0] if fresh else remembered(job, step)


def quantise(
    model: str | Path,
    output: str | Path,
    *,
    variant: str = "int8-static",
    labelled: Sequence[str | Path] = (),
    calibration: str | Path | None = None,
    budget: float = 0.5,
    step: Callable[[str], None] = lambda text: None,
) -> Bundle:
    """Write a bundle that prefers one quantised variant for CPUs, whether or not it is the fastest. `build` chooses the fastest.

    Args:
        model: a bundle, a checkpoint, or `builtin:spatialnet-s`.
        output: the bundle to write: a `.snb` file or a directory.
        variant: `int8-static`, `int8-dynamic` or `fp16`.
        labelled: labelled images for the accuracy gate: folders, zips or CSV files; empty for the shipped samples.
        calibration: a folder of real images for static INT8; None: use some of the labelled ones.
        budget: percentage points of accuracy that the variant may lose on any head.
        step: called with one line of text for each step.

    Raises:
        UsageError: unknown variant.
        BuildError: the variant fails a gate.
    """
    from spatialnet_optimize.build.single_variant import build_variant  # it needs onnx

    path, images = Path(output), tuple(map(Path, labelled))
    folder = None if calibration is None else Path(calibration)
    opened = open_model(str(model), path, images)
    return build_variant(Job(opened, "cpu", path, images, budget, calibration=folder), variant, step)


def open_model(model: str, output: Path, golden: Sequence[Path] = ()) -> Bundle:
    """Open a bundle. A checkpoint is first exported next to `output`, with golden frames from the given images, if any."""
    if not is_checkpoint(Path(model)):
        return open_bundle(model)
    return export(model, output.with_name(f"{run_name(Path(model))}.portable.snb"), golden=golden)


def export(
    checkpoint: str | Path,
    output: str | Path,
    *,
    golden: str | Path | Sequence[str | Path] = (),
    serial: int = 1,
    half: bool = False,
) -> Bundle:
    """Export a checkpoint to a portable bundle, from uint8 pixels to probabilities, and compare it with torch on real images.

    Args:
        golden: at least 8 real images for the golden frames: folders, zips or CSV files; empty: the shipped samples.
        serial: increases with every release of a model.
        half: store large weights as float16, for half the size; the graph computes in float32.

    Raises:
        BuildError: the outputs of the graph differ from those of the network, or float16 weights change a label.
    """
    from spatialnet_optimize.export.from_checkpoint import export_checkpoint  # it needs torch

    sources = (golden,) if isinstance(golden, str | Path) else golden
    return export_checkpoint(Path(checkpoint), Path(output), tuple(map(Path, sources)), serial, half)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Evaluation of a bundle on labelled images.

    Attributes:
        scores: one per head with matching labels.
        engine: the evaluated variant.
        broken: files that are not images.
        contains_training: whether training images are included.
        withheld: share of the images that get no label, 0 to 1.
        robustness: of each evaluated multiclass head on corrupted images; empty if not requested.
        not_land: on generated pictures without land; None if corrupted images were not requested.
        frames: each categorical head on the frames as a whole and in tiles; empty if no ground sampling distance was given.
    """

    bundle: Bundle
    scores: tuple[Score, ...]
    engine: EngineRecord
    broken: tuple[str, ...]
    contains_training: bool
    withheld: float
    robustness: tuple[Robustness, ...]
    not_land: NotLand | None
    frames: tuple[FrameScore, ...] = ()


def evaluate(
    bundle: str | Path,
    data: str | Path,
    *,
    heads: Sequence[str] = (),
    split: str = "",
    backend: str = "",
    corrupted: int = 0,
    value_range: tuple[float, float] | None = None,
    gsd: float | None = None,
    progress: Callable[[int, int], None] = lambda done, images: None,
) -> Evaluation:
    """Measure accuracy, calibration and robustness on labelled images, and confidence on pictures without land.

    Args:
        bundle: a `.snb` file, a bundle directory, or `builtin:spatialnet-s`.
        data: a folder or zip with `<class>/<image>`, or a CSV.
        heads: evaluate only these heads; empty: every head with matching labels.
        split: use only this split, such as `val`.
        backend: use only this backend.
        corrupted: number of images for the evaluation with each corruption at each severity; 0: none.
        value_range: the pixel values of black and white in images of more than 8 bits; None: the model's range.
        gsd: metres on the ground per pixel of the images; they are then also judged in tiles at the scale that the model was
            taught, as `run` cuts them. None: only as a whole.
        progress: called with the number of decoded images and their total.

    Raises:
        UsageError: no such head, or a `gsd` for a model that does not state its scale.
        DataRefused: the images cannot be used, or no head has their labels.
    """
    opened = open_bundle(bundle)
    images = open_labelled(Path(data), split).with_range(value_range)
    try:
        known = truths(images, opened.spec, *heads)
    except KeyError as error:
        raise UsageError(str(error.args[0])) from error
    pixels = decode_images(images, opened.spec.input, lambda done: progress(done, len(images)))
    with load(bundle, backend, threads=1) as model:
        outputs = predict(model.opened.engine, pixels.images)
        engine = model.opened.record
        robust, not_land = doubts(model.opened.engine, images, known, corrupted)
        frames = () if gsd is None else tuple(compare_scales(model.opened.engine, images, known, gsd))
    withheld = float(unlabelled(opened.spec, outputs, pixels.images).mean())
    scores = tuple(judge(opened.spec, truth, outputs, pixels.kept) for truth in known)
    training = not split and len(exclude_training(images, opened.manifest.provenance.image_counts)) < len(images)
    return Evaluation(opened, scores, engine, tuple(pixels.broken), training, withheld, robust, not_land, frames)


def doubts(
    engine: Engine, images: LabelledImages, known: Sequence[Truth], corrupted: int
) -> tuple[tuple[Robustness, ...], NotLand | None]:
    """Evaluate a model on corrupted images and on pictures without land; empty if not requested."""
    if not corrupted or not can_be_corrupted(engine.spec.input):
        return (), None
    return tuple(judge_robustness(engine, images, known, corrupted)), measure_not_land(engine)
