"""TensorRT in two steps, since its compiler times kernels on the very GPU: what the host can do, and what the device must.

On the host every form is made and judged, simulated by ONNX Runtime, where there is memory for it (quantisers run out of it on 8 GB
boards). The graphs that pass travel in the bundle. On the device `build BUNDLE --target here` compiles them, runs every plan over
the same images, times it, and keeps the fastest that still passes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from msgspec.structs import replace as replace_struct

from spatialnet_edge.bundle.manifest import EngineRecord, ExecutedLayer
from spatialnet_edge.bundle.reader import MODEL, Bundle
from spatialnet_edge.core.errors import BuildError, EngineUnavailable, MissingExtra
from spatialnet_edge.core.spec import ModelSpec
from spatialnet_edge.engines.devices import PycudaDevice
from spatialnet_edge.engines.registry import CheckedEngine, Engine
from spatialnet_edge.engines.tensorrt import TensorRtEngine, tensorrt
from spatialnet_optimize.compilers.base import Compiler
from spatialnet_optimize.compilers.plan_builder import TENSORRT, Plan, PlanOptions, load_library
from spatialnet_optimize.evaluation.gates import REFERENCE, Decision, Measured, decide, record, refusal, unseen

GRAPHS = "graphs"
"""Where the forms that wait for their device lie in a bundle."""
WORKSPACE_SHARE = 8
"""The builder's scratch memory is at most one part in so many of the board's, which the GPU shares with everything else."""

Judge = Callable[[Mapping[str, Engine], Mapping[str, bytes]], Sequence[Measured]]
"""Accuracy, agreement and latency of engines; the contents are for their sizes."""
Open = Callable[[bytes, ModelSpec], Engine]
Look = Callable[[Engine], Sequence[ExecutedLayer]]
"""The layers that a plan really runs, with precision and time."""


def workspace(options: PlanOptions, memory_gb: float) -> PlanOptions:
    """The options with a limit of scratch memory that leaves the board room to work, unless one was given."""
    return replace(options, workspace_mb=options.workspace_mb or int(memory_gb * 1024 / WORKSPACE_SHARE) or None)


def executed_layers(engine: Engine) -> Sequence[ExecutedLayer]:
    """What TensorRT's inspector and profiler say of a plan that runs here; nothing of other engines."""
    return engine.executed(load_library(TENSORRT)) if isinstance(engine, TensorRtEngine) else ()


@dataclass(frozen=True, slots=True)
class DeviceHere:
    """The GPU of this machine, with the TensorRT that drives it."""

    name: str
    compute_capability: str


def device_here() -> DeviceHere | None:
    """The GPU that TensorRT can use here; None where there is neither."""
    try:
        load_library(TENSORRT)
        device = PycudaDevice()
    except (EngineUnavailable, MissingExtra):
        return None
    found = DeviceHere(device.name, device.compute_capability)
    device.close()
    return found


def prepare(
    contents: Mapping[str, bytes], measured: Sequence[Measured], budget: float
) -> tuple[Decision, dict[EngineRecord, bytes]]:
    """What the host does: keep the graphs that passed, for the device to compile.

    Returns:
        The decision (nothing is chosen yet but FP32, which runs everywhere), and the graphs that travel.

    Raises:
        BuildError: as `gates.decide`.
    """
    reference = decide(measured[:1], budget).winner
    judged = {each.name: each for each in measured}
    graphs: dict[EngineRecord, bytes] = {}
    records = []
    for form, content in contents.items():
        each = judged.get(form)
        verdict = "" if each is None else refusal(each, reference, budget)
        if not verdict:
            if form != REFERENCE:  # which travels as the portable graph anyway
                graphs[EngineRecord(path=f"{GRAPHS}/{form}.onnx", backend=TENSORRT.module, precision=form, portable=False)] = (
                    content
                )
            unjudged = "not judged: ONNX Runtime has no CPU kernels for it"
            verdict = f"to be compiled on the device; {unjudged if each is None else 'passes, simulated by ONNX Runtime'}"
        shown = unseen(form, content) if each is None else each
        records.append(record(replace(shown, p50_ms=0.0, p99_ms=0.0), reference, False, verdict))
    reason = f"{len(graphs) + 1} forms wait for their device: run 'spatialnet-edge build BUNDLE --target here' there"
    return Decision(reference, reason, tuple(records)), graphs


def waiting(bundle: Bundle) -> dict[str, bytes]:
    """The forms that a bundle brings for its device, FP32 first; empty for a bundle that was not prepared."""
    found = {
        PurePosixPath(engine.path).stem: bundle.read(engine.path)
        for engine in bundle.manifest.engines
        if engine.path.startswith(f"{GRAPHS}/")
    }
    return {REFERENCE: bundle.read(MODEL)} | found if found else {}


@dataclass(frozen=True, slots=True)
class Compiled:
    """What came of compiling on the device.

    Attributes:
        files: the plan that goes into the bundle, and the graph that its weights come from if it has none.
        version: of the library.
        layers: of the chosen plan.
        plan: the chosen one, whole.
    """

    decision: Decision
    files: dict[EngineRecord, bytes]
    version: str
    layers: tuple[ExecutedLayer, ...]
    plan: Plan


def compile_here(
    contents: Mapping[str, bytes],
    spec: ModelSpec,
    judge: Judge,
    budget: float,
    device: DeviceHere,
    compiler: Compiler,
    step: Callable[[str], None],
    open_plan: Open = lambda content, spec: tensorrt().open(content, spec, 0),
    look: Look = executed_layers,
) -> Compiled:
    """What the device does: compile every form, judge and time each plan, keep the fastest that passes.

    Args:
        compiler, open_plan, look: what makes plans, runs them and looks into them; others in tests.

    Raises:
        BuildError: the FP32 plan does not reproduce the golden vectors, or does not compile.
    """
    shape, library = spec.input.shape, compiler.library
    plans: dict[str, Plan] = {}
    engines: dict[str, Engine] = {}
    layers: dict[str, tuple[ExecutedLayer, ...]] = {}
    failed: list[Measured] = []
    why: dict[str, str] = {}
    for form, content in contents.items():
        step(f"compile {form} with {library.title} for {device.name}")
        try:
            plans[form] = compiler.compile(content, shape)
            engine = open_plan(plans[form].content, spec)
            layers[form] = tuple(look(engine))
            engines[form] = CheckedEngine(engine)
        except (BuildError, EngineUnavailable) as error:
            if form == REFERENCE:
                raise
            why[form] = str(error)
            failed.append(unseen(form, content))
    judged = judge(engines, {form: plans[form].content for form in engines})
    for engine in engines.values():
        engine.close()
    stripped = (
        {form: compiler.without_weights(contents[form], shape) for form in engines} if compiler.options.strip_weights else {}
    )
    measured = [
        replace(each, executed=precisions_of(layers[each.name]), stripped_size=len(stripped.get(each.name, b"")))
        for each in judged
    ]
    decision = decide(measured, budget)
    lost = tuple(record(each, measured[0], False, f"does not compile: {why[each.name]}") for each in failed)
    version = plans[REFERENCE].version
    chosen = decision.winner.name
    plan = EngineRecord(
        path=f"engines/tensorrt.{chosen}.plan",
        backend=library.module,
        precision=chosen,
        device=device.name,
        library_version=version,
        portable=False,
    )
    files = {plan: plans[chosen].content}
    if stripped:
        graph = EngineRecord(path=f"{GRAPHS}/{chosen}.onnx", backend=library.module, precision=chosen, portable=False)
        source = MODEL if chosen == REFERENCE else graph.path
        files = {replace_struct(plan, weights=source): stripped[chosen]}
        if source != MODEL:
            files[graph] = contents[chosen]
    complete = replace(decision, records=(*decision.records, *lost))
    return Compiled(complete, files, version, layers[chosen], plans[chosen])


def precisions_of(layers: Sequence[ExecutedLayer]) -> dict[str, int]:
    """How many layers run in each precision, the commonest first."""
    return dict(Counter(layer.precision for layer in layers if layer.precision).most_common())
