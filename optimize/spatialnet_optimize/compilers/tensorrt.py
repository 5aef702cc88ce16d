"""TensorRT's second step, on the device: compile every variant, run and time each plan, and choose the fastest that passes.

The graphs are in the bundle (see `tensorrt_host.py`). This step needs neither torch nor onnx.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, final

import onnxruntime as ort

from spatialnet_edge.bundle.manifest import DeviceRecord, EngineRecord, ExecutedLayer
from spatialnet_edge.bundle.reader import MODEL
from spatialnet_edge.core.errors import BuildError, SpatialNetError
from spatialnet_edge.core.spec import ModelSpec
from spatialnet_edge.engines.registry import CheckedEngine, Engine
from spatialnet_edge.engines.tensorrt import TensorRtEngine
from spatialnet_edge.engines.tensorrt_plans import PlanBackend
from spatialnet_optimize.compilers.base import Compiled, CompileRequest, golden_difference
from spatialnet_optimize.compilers.plan_builder import Plan, PlanBuilder, PlanOptions
from spatialnet_optimize.compilers.tensorrt_host import waiting_graph
from spatialnet_optimize.evaluation.gates import GOLDEN_TOLERANCE, REFERENCE, Measured, decide, record, unseen
from spatialnet_optimize.quantization.scheme import Scheme

WORKSPACE_SHARE = 8
"""The builder's scratch memory is at most this fraction (1/N) of the board's memory, which CPU and GPU share."""


class PlanRunner(Protocol):
    """Opens plans on the device and reads their executed layers."""

    def open(self, record: EngineRecord, content: bytes, weights: bytes | None, spec: ModelSpec) -> Engine: ...

    def layers(self, engine: Engine) -> Sequence[ExecutedLayer]:
        """The executed layers of an open plan, with precision and time."""
        ...


@final
class DeviceRunner:
    """Runs plans with the library's own runtime."""

    def __init__(self, backend: PlanBackend) -> None:
        self._backend = backend

    def open(self, record: EngineRecord, content: bytes, weights: bytes | None, spec: ModelSpec) -> Engine:
        return self._backend.open_plan(record, content, weights, spec)

    def layers(self, engine: Engine) -> Sequence[ExecutedLayer]:
        return engine.executed() if isinstance(engine, TensorRtEngine) else ()


@dataclass(frozen=True, slots=True)
class BuiltVariant:
    """A variant with a plan that runs on this device.

    Attributes:
        stripped: the same plan without weights; None if not requested.
    """

    name: str
    graph: bytes
    plan: Plan
    engine: Engine
    layers: tuple[ExecutedLayer, ...]
    stripped: bytes | None = None

    @property
    def executed(self) -> dict[str, int]:
        """Number of layers per executed precision, the most common first."""
        return dict(Counter(layer.precision for layer in self.layers if layer.precision).most_common())


@dataclass(frozen=True, slots=True)
class FailedVariant:
    """A variant that does not compile or run, and the reason."""

    name: str
    graph: bytes
    why: str


@final
@dataclass(frozen=True)
class TensorRtCompiler:
    """Compiles on this device.

    Attributes:
        builder: makes the plans.
        device: of the plans.
        runner: opens them.
    """

    builder: PlanBuilder
    device: DeviceRecord
    runner: PlanRunner
    scheme: Scheme = field(default="tensorrt", init=False)
    finishes_prepared: bool = field(default=True, init=False)

    def check(self, options: PlanOptions) -> None:
        """All options are valid here."""

    def compile(self, request: CompileRequest) -> Compiled:
        built: list[BuiltVariant] = []
        failed: list[FailedVariant] = []
        for name, graph in request.variants.items():
            request.step(f"compile {name} with {self.builder.library.title} for {self.device.name}")
            try:
                built.append(self._build(name, graph, request.spec))
            except SpatialNetError as error:  # a failing variant must not stop the others
                if name == REFERENCE:
                    raise
                failed.append(FailedVariant(name, graph, str(error)))
        try:
            judged = request.measure(
                {each.name: each.engine for each in built}, {each.name: each.plan.content for each in built}
            )
        finally:
            for each in built:
                each.engine.close()
        if self.builder.options.strip_weights:
            shape = request.spec.input.shape
            built = [replace(each, stripped=self.builder.without_weights(each.graph, shape)) for each in built]
        return self._decide(request, built, failed, judged)

    def _build(self, name: str, graph: bytes, spec: ModelSpec) -> BuiltVariant:
        plan = self.builder.compile(graph, spec.input.shape)
        engine = self.runner.open(self._record(name, plan), plan.content, None, spec)
        layers = tuple(self.runner.layers(engine))
        found = BuiltVariant(name, graph, plan, CheckedEngine(engine), layers)
        if name != REFERENCE and not found.executed:
            found.engine.close()
            raise BuildError("the library's inspector reports no precisions, so the executed precision is unknown")
        return found

    def _decide(
        self,
        request: CompileRequest,
        built: Sequence[BuiltVariant],
        failed: Sequence[FailedVariant],
        judged: Sequence[Measured],
    ) -> Compiled:
        variants = {each.name: each for each in built}
        measured = [
            replace(each, executed=variants[each.name].executed, stripped_size=len(variants[each.name].stripped or b""))
            for each in judged
        ]
        decision = decide(measured, request.budget, request.prepared)
        lost = [record(unseen(each.name, each.graph), measured[0], False, f"does not compile: {each.why}") for each in failed]
        chosen = variants[decision.winner.name]
        files = self._files(chosen)
        if chosen.stripped is not None:
            self._require_refit(request, chosen, files)
        notes: tuple[str, ...] = ()
        if self.builder.options.dla_core is not None:
            notes = (f"DLA: {chosen.plan.on_dla} of {chosen.plan.layers} layers; the GPU runs the others",)
        libraries = {"onnxruntime": str(ort.__version__), self.builder.library.module: chosen.plan.version}
        complete = replace(decision, records=(*decision.records, *lost))
        return Compiled(complete, files, libraries, chosen.layers, notes)

    def _record(self, name: str, plan: Plan, weights: str = "") -> EngineRecord:
        return EngineRecord(
            path=f"engines/tensorrt.{name}.plan",
            backend=self.builder.library.module,
            precision=name,
            device=self.device.name,
            library_version=plan.version,
            portable=False,
            weights=weights,
            built_on=self.device,
            version_compatible=self.builder.options.version_compatible,
            dla_core=self.builder.options.dla_core,
        )

    def _files(self, chosen: BuiltVariant) -> dict[EngineRecord, bytes]:
        """The plan file, and the graph with the weights of a stripped plan."""
        if chosen.stripped is None:
            return {self._record(chosen.name, chosen.plan): chosen.plan.content}
        if chosen.name == REFERENCE:
            return {self._record(chosen.name, chosen.plan, weights=MODEL): chosen.stripped}
        graph = waiting_graph(chosen.name)
        return {self._record(chosen.name, chosen.plan, weights=graph.path): chosen.stripped, graph: chosen.graph}

    def _require_refit(self, request: CompileRequest, chosen: BuiltVariant, files: Mapping[EngineRecord, bytes]) -> None:
        """Open the stripped plan as a user of the bundle does, and run the golden test.

        Raises:
            BuildError: it does not load, or its outputs differ.
        """
        request.step("load the plan without weights, with the weights of its graph")
        plan, content = next(iter(files.items()))
        try:
            engine = CheckedEngine(self.runner.open(plan, content, chosen.graph, request.spec))
        except SpatialNetError as error:
            raise BuildError(f"the plan without weights does not load: {error}; build without --strip-weights") from error
        try:
            found = golden_difference(engine, request)
        finally:
            engine.close()
        allowed = GOLDEN_TOLERANCE[chosen.name]
        if not found <= allowed:
            raise BuildError(
                f"the plan without weights gives other results: probabilities differ by {found:.3f} on the golden frames, "
                f"allowed {allowed:.3f}; build without --strip-weights"
            )


def workspace(options: PlanOptions, memory_gb: float) -> PlanOptions:
    """The options with a default limit of scratch memory, unless one was given."""
    return replace(options, workspace_mb=options.workspace_mb or int(memory_gb * 1024 / WORKSPACE_SHARE) or None)
