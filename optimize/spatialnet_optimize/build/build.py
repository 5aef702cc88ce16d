"""`build`: from a bundle or a checkpoint to the fastest bundle that passes the gates.

Stages: load → decode the images → make variants → compile, measure and gate → package. Each stage is one function. Its result
is the input of the next one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from spatialnet_edge.bundle.manifest import BuildRecord
from spatialnet_edge.bundle.reader import MODEL, Bundle
from spatialnet_edge.core.errors import EngineUnavailable, MissingExtra, UsageError
from spatialnet_edge.core.hardware_info import machine
from spatialnet_edge.core.output_paths import bundle_to_be_written
from spatialnet_edge.core.spec import ModelSpec
from spatialnet_edge.engines.registry import Engine
from spatialnet_optimize.build.bundle_writer import built_bundle
from spatialnet_optimize.build.labelled_data import BuildData, DataOptions, load_data
from spatialnet_optimize.build.variant_set import Variants
from spatialnet_optimize.compilers.base import Compiled, Compiler, CompileRequest
from spatialnet_optimize.compilers.device import device_here
from spatialnet_optimize.compilers.plan_builder import DEFAULT, PlanOptions, Progress, silent
from spatialnet_optimize.compilers.registry import CompilerSettings, make_compiler
from spatialnet_optimize.compilers.tensorrt_host import waiting
from spatialnet_optimize.evaluation.candidate_evaluation import Step, measure_engines
from spatialnet_optimize.evaluation.gates import GOLDEN_TOLERANCE, NEEDS_CALIBRATION, Decision, Measured
from spatialnet_optimize.quantization.scheme import QatRequest
from spatialnet_optimize.targets.catalogue import HERE, Target, find_target


@dataclass(frozen=True, slots=True)
class Job:
    """What to build.

    Attributes:
        model: a bundle or `builtin:spatialnet-s`; a checkpoint is exported first (see `spatialnet_optimize.api.open_model`).
        target: a row of the table of targets, or `here`.
        labelled: folders or zips of labelled images for the accuracy gate; empty for the shipped samples.
        budget: percentage points of accuracy that a variant may lose on any head.
        heads: keep only these; empty: all.
        precision: try only these variants besides the FP32 reference: `fp16`, `bf16` or `int8`; empty: all.
        plan: options of NVIDIA's builders: batches, level, stripped, deep-learning accelerator …
        targets: a file with rows of the user's own.
        search: also quantise as many layers as the budget allows, the least sensitive first.
        calibration: a folder of real images for static INT8; None: use some of the labelled ones.
        qat: the checkpoint of `model`, for quantisation-aware training as one more variant; None: no such variant.
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
    qat: QatRequest | None = None

    @property
    def dla(self) -> bool:
        return self.plan.dla_core is not None


@dataclass(frozen=True, slots=True)
class Loaded:
    """Result of the stage `load`.

    Attributes:
        name: of the target.
        spec: with the kept heads.
        portable: the FP32 graph with these heads.
    """

    name: str
    target: Target
    compiler: Compiler
    spec: ModelSpec
    portable: bytes

    @property
    def calibrated(self) -> bool:
        """Whether any of the target's variants needs calibration images."""
        return any(variant in NEEDS_CALIBRATION for variant in self.target.precisions)


def build(job: Job, step: Step = lambda text: None, progress: Progress = silent) -> tuple[Bundle, Decision]:
    """Make the bundle and report the reason for the choice.

    Args:
        progress: called with the progress of NVIDIA's builder, if it runs.

    Raises:
        UsageError: an unknown target or head.
        EngineUnavailable: this version cannot build for the target, or the bundle must be compiled on another device.
        BuildError: the graph does not reproduce its golden frames on this computer, or a compiler refused it.
    """
    loaded = load(job, progress)
    prepared = prepared_variants(job, loaded.compiler)
    options = DataOptions(job.labelled, job.calibration, job.budget, prepared is not None, job.qat is not None)
    data = load_data(options, job.model, loaded.spec)
    for problem in (*data.problems, *(data.calibration.warnings if loaded.calibrated else ())):
        step(f"warning: {problem}")
    variants = prepared or new_variants(job, loaded, data, step)
    compiled = compile_variants(job, loaded, data, variants, step)
    for note in compiled.notes:
        step(note)
    step("write: hash, golden vectors, manifest")
    return package(job, loaded, data, variants, compiled), compiled.decision


def load(job: Job, progress: Progress) -> Loaded:
    """Find the target and its compiler, and keep the requested heads. Impossible requests are refused before any work."""
    name, target = find_target(job.target, job.targets, job.precision, job.dla)
    check_output(job)
    compiler = make_compiler(target.compile, CompilerSettings(job.target == HERE, target.memory_gb, job.plan, progress))
    require_device(job, compiler)
    if job.qat is not None and (compiler.scheme != "tensorrt" or "int8-qdq" not in target.precisions):
        raise UsageError(
            f"quantisation-aware training is for TensorRT's INT8, which target '{job.target}' has not; leave it out"
        )
    spec = keep_heads(job.model.spec, job.heads)
    return Loaded(name, target, compiler, spec, portable_graph(job, compiler, spec))


def portable_graph(job: Job, compiler: Compiler, spec: ModelSpec) -> bytes:
    """The FP32 graph of the heads that are kept, with float32 weights. A bundle that was prepared for this device has it ready."""
    content = job.model.read(MODEL)
    if compiler.finishes_prepared and not job.heads and waiting(job.model):
        return content
    from spatialnet_optimize.build.variants import prune
    from spatialnet_optimize.export.half_weights import whole_weights

    return prune(whole_weights(content), spec) if job.heads else whole_weights(content)


def prepared_variants(job: Job, compiler: Compiler) -> Variants | None:
    """The variants of a prepared bundle; None if new ones must be made."""
    if compiler.finishes_prepared and not job.heads and (contents := waiting(job.model)):
        return Variants(contents, prepared=True)
    return None


def new_variants(job: Job, loaded: Loaded, data: BuildData, step: Step) -> Variants:
    """Make the target's variants."""
    # Imported here: it needs onnx and more, which a device with a prepared bundle does not have.
    from spatialnet_optimize.build.variants import VariantRequest, make_variants, precisions_to_try

    precisions = precisions_to_try(loaded.target.precisions, loaded.compiler.scheme, job.precision)
    request = VariantRequest(
        loaded.portable, precisions, data.calibration, loaded.compiler.scheme, job.search, job.budget, job.qat
    )
    return make_variants(request, data.evidence, step)


def compile_variants(job: Job, loaded: Loaded, data: BuildData, variants: Variants, step: Step) -> Compiled:
    """Compile, measure and gate; the compiler determines the order."""

    def measure(engines: Mapping[str, Engine], files: Mapping[str, bytes], timed: bool = True) -> list[Measured]:
        return measure_engines(engines, files, data.evidence, step, timed)

    return loaded.compiler.compile(
        CompileRequest(variants.contents, job.model, loaded.spec, job.budget, measure, step, variants.prepared)
    )


def package(job: Job, loaded: Loaded, data: BuildData, variants: Variants, compiled: Compiled) -> Bundle:
    """Write the bundle with the record of its build."""
    decision = compiled.decision
    record = BuildRecord(
        target=loaded.name,
        machine=machine(),
        libraries=compiled.libraries,
        budget_points=job.budget,
        labelled_images=data.labelled_images,
        calibration=data.calibration.origin if loaded.calibrated else "none needed",
        candidates=decision.records,
        reason=decision.reason,
        sensitivity=variants.sensitivity,
        layers=compiled.layers,
    )
    tolerance = GOLDEN_TOLERANCE[decision.winner.name]
    return built_bundle(job.model, job.output, loaded.spec, loaded.portable, compiled.files, tolerance, record)


def check_output(job: Job) -> None:
    bundle_to_be_written(job.output)
    if job.output.resolve() == job.model.path.resolve() and job.output.is_dir():
        raise UsageError("a bundle directory cannot be rebuilt in place; choose another output")


def require_device(job: Job, compiler: Compiler) -> None:
    """Refuse to build for this computer's CPU from a bundle prepared for a GPU, unless the target is `cpu`.

    Raises:
        EngineUnavailable: the bundle was prepared for TensorRT, and TensorRT cannot compile on this computer; with the reason.
    """
    if job.target != HERE or compiler.finishes_prepared or not waiting(job.model):
        return
    try:
        device_here()
        why = "this computer's GPU is not in the table of targets"
    except (EngineUnavailable, MissingExtra) as error:
        why = str(error)
    raise EngineUnavailable(
        f"{job.model.path} was prepared for TensorRT, which cannot compile on this computer: {why}. Build it on its "
        "device, or for this computer's CPU with --target cpu"
    )


def keep_heads(spec: ModelSpec, heads: tuple[str, ...]) -> ModelSpec:
    try:
        return spec.keep(heads) if heads else spec
    except KeyError as error:
        raise UsageError(str(error.args[0])) from error
