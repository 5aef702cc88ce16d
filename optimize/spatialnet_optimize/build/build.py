"""`build`: from a bundle or a checkpoint to the fastest bundle that passes the gates, in one call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

from spatialnet_edge.bundle.manifest import BuildRecord, LayerSensitivity
from spatialnet_edge.bundle.reader import MODEL, Bundle
from spatialnet_edge.core.errors import DataRefused, EngineUnavailable, MissingExtra, UsageError
from spatialnet_edge.core.hardware_info import machine
from spatialnet_edge.core.output_paths import bundle_to_be_written
from spatialnet_edge.core.spec import ModelSpec
from spatialnet_edge.engines.registry import Engine
from spatialnet_optimize.build.bundle_writer import built_bundle
from spatialnet_optimize.compilers.base import Compiler, CompileRequest
from spatialnet_optimize.compilers.device import device_here
from spatialnet_optimize.compilers.plan_builder import DEFAULT, PlanOptions, Progress, silent
from spatialnet_optimize.compilers.registry import CompilerSettings, make_compiler
from spatialnet_optimize.compilers.tensorrt_host import waiting
from spatialnet_optimize.evaluation.candidate_evaluation import Step, measure_engines
from spatialnet_optimize.evaluation.gates import GOLDEN_TOLERANCE, NEEDS_CALIBRATION, Decision, Measured
from spatialnet_optimize.quantization.int8_calibration import (
    Calibration,
    exclude_training,
    from_folder,
    from_labelled,
    split_calibration,
)
from spatialnet_optimize.targets.catalogue import HERE, find_target
from spatialnet_training.data.ground_truth import truths
from spatialnet_training.data.labelled_dataset import LabelledImages, open_labelled


@dataclass(frozen=True, slots=True)
class Job:
    """What to build.

    Attributes:
        model: a bundle or `builtin:student`; a checkpoint is exported first (see `spatialnet_optimize.cli.build`).
        target: a row of the table of targets, or `here`.
        labelled: folders or zips of labelled images for the accuracy gate; empty for the shipped samples.
        budget: points of accuracy that a candidate may lose on any head.
        heads: keep these alone; empty for all.
        precision: try these forms alone besides the FP32 reference: `fp16`, `bf16` or `int8`; empty for all.
        plan: how NVIDIA's builders are to build: batches, level, stripped, for the deep-learning accelerator …
        targets: a file with rows of the user's own.
        search: also quantise as many layers as the budget allows, the least sensitive first.
        calibration: a folder of real images for static INT8; None to set some of the labelled ones aside.
    """

    model: Bundle
    target: str
    output: Path
    labelled: tuple[Path, ...] = ()
    budget: float = 0.5
    heads: tuple[str, ...] = ()
    calibration: Path | None = None
    precision: str = ""
    plan: PlanOptions = DEFAULT
    targets: Path | None = None
    search: bool = False

    @property
    def dla(self) -> bool:
        return self.plan.dla_core is not None


def shipped_samples() -> tuple[Path, ...]:
    """The labelled sample sets that come with the package: held-out training images, with their licence beside them."""
    return tuple(sorted(Path(str(files("spatialnet_optimize"))).joinpath("samples").glob("*.zip")))


def build(job: Job, step: Step = lambda text: None, progress: Progress = silent) -> tuple[Bundle, Decision]:
    """Make the bundle, and say why it is the one.

    Args:
        progress: told how far NVIDIA's builder is, where one works.

    Raises:
        UsageError: an unknown target or head.
        EngineUnavailable: a target that this version cannot build for, or a bundle that waits for a device which is not here.
        BuildError: the graph does not reproduce its golden vectors here, or a compiler refused it.
    """
    name, target = find_target(job.target, job.targets, job.precision, job.dla)
    check_output(job)
    settings = CompilerSettings(job.target == HERE, target.memory_gb, job.plan, progress)
    compiler = make_compiler(target.compile, settings)
    require_device(job, compiler)
    spec = keep_heads(job.model.spec, job.heads)
    portable = job.model.read(MODEL)
    if job.heads:
        from spatialnet_optimize.build.variants import prune

        portable = prune(portable, spec)
    sets, problems = usable_sets(job.labelled or shipped_samples(), spec, bool(job.labelled))
    calibration, sets = calibrate(job, spec, sets)
    sets = disambiguate(sets)
    problems += small_set_warnings(sets, job) if job.labelled else []
    calibrated = any(form in NEEDS_CALIBRATION for form in target.precisions)
    for problem in (*problems, *(calibration.warnings if calibrated else ())):
        step(f"warning: {problem}")
    contents = waiting(job.model) if compiler.finishes_prepared and not job.heads else {}
    sensitivity: tuple[LayerSensitivity, ...] = ()
    if not contents:
        # Imported here: it needs onnx and more, which a device that was sent the forms does not have.
        from spatialnet_optimize.build.variants import make_forms

        contents, sensitivity = make_forms(job, target, compiler.scheme, spec, portable, calibration, sets, step)

    def measure(engines: Mapping[str, Engine], files: Mapping[str, bytes]) -> list[Measured]:
        return measure_engines(engines, files, spec, job.model, sets, step)

    made = compiler.compile(CompileRequest(contents, job.model, spec, job.budget, measure, step))
    for note in made.notes:
        step(note)
    decision = made.decision
    tolerance = GOLDEN_TOLERANCE[decision.winner.name]
    step("write: hash, golden vectors, manifest")
    record = BuildRecord(
        target=name,
        machine=machine(),
        libraries=made.libraries,
        budget_points=job.budget,
        labelled_images=sum(len(each) for each in sets),
        calibration=calibration.origin if calibrated else "none needed",
        candidates=decision.records,
        reason=decision.reason,
        sensitivity=sensitivity,
        layers=made.layers,
    )
    return built_bundle(job.model, job.output, spec, portable, made.files, tolerance, record), decision


def check_output(job: Job) -> None:
    bundle_to_be_written(job.output)
    if job.output.resolve() == job.model.path.resolve() and job.output.is_dir():
        raise UsageError("a bundle directory cannot be rebuilt in place; choose another output")


def require_device(job: Job, compiler: Compiler) -> None:
    """Refuse to make a bundle for this computer's CPU of one that waits for a GPU, unless that is asked for by name.

    Raises:
        EngineUnavailable: the bundle waits for TensorRT, and why TensorRT cannot compile here.
    """
    if job.target != HERE or compiler.finishes_prepared or not waiting(job.model):
        return
    try:
        device_here()
        why = "this computer's GPU is no target of the table"
    except (EngineUnavailable, MissingExtra) as error:
        why = str(error)
    raise EngineUnavailable(
        f"{job.model.path} waits to be compiled by TensorRT, which cannot be done here: {why}. Build it on its device; or for this "
        f"computer's CPU, with --target cpu"
    )


def keep_heads(spec: ModelSpec, heads: tuple[str, ...]) -> ModelSpec:
    try:
        return spec.keep(heads) if heads else spec
    except KeyError as error:
        raise UsageError(str(error.args[0])) from error


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


def small_set_warnings(sets: list[LabelledImages], job: Job) -> list[str]:
    """Where a single image is worth more than the budget: what is lost there is left to chance."""
    return [
        f"{len(images)} images of {images.name} judge the candidates, so that one answer more or less is "
        f"{100 / len(images):.1f} points and the budget {job.budget:g}; more labelled images judge better"
        for images in sets
        if len(images) * job.budget < 100
    ]


def calibrate(job: Job, spec: ModelSpec, sets: list[LabelledImages]) -> tuple[Calibration, list[LabelledImages]]:
    """The calibration images, and the labelled ones that are left to judge by."""
    golden, _ = job.model.golden()
    learnt = job.model.manifest.provenance.image_counts
    if job.calibration is not None:
        return from_folder(job.calibration, spec.input, golden), [exclude_training(each, learnt) for each in sets]
    pairs = [split_calibration(each, learnt) for each in sets]
    return from_labelled([aside for aside, _ in pairs], spec.input, golden), [judged for _, judged in pairs]
