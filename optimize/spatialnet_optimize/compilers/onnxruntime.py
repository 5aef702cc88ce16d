"""ONNX Runtime on the CPU: nothing is compiled; the bundle gets the fastest graph that passes."""

from __future__ import annotations

from typing import final

import onnxruntime as ort

from spatialnet_edge.bundle.manifest import EngineRecord
from spatialnet_edge.core.errors import UsageError
from spatialnet_optimize.compilers.base import Compiled, CompileRequest, simulate
from spatialnet_optimize.compilers.plan_builder import DEFAULT, PLAN_OPTIONS, PlanOptions
from spatialnet_optimize.evaluation.gates import REFERENCE, Decision, decide
from spatialnet_optimize.quantization.scheme import Scheme


@final
class OnnxRuntimeCompiler:
    """Runs the variants directly."""

    scheme: Scheme = "cpu"
    finishes_prepared = False

    def check(self, options: PlanOptions) -> None:
        if options != DEFAULT:
            raise UsageError(f"{PLAN_OPTIONS}: this target has none; remove them")

    def compile(self, request: CompileRequest) -> Compiled:
        decision = decide(simulate(request, here=True), request.budget)
        return Compiled(decision, preferred_engines(decision), {"onnxruntime": str(ort.__version__)})


def preferred_engines(decision: Decision) -> dict[EngineRecord, bytes]:
    """The chosen graph; empty if it is the portable graph, which every bundle has."""
    if decision.winner.name == REFERENCE:
        return {}
    precision = decision.winner.name
    record = EngineRecord(path=f"engines/cpu.{precision}.onnx", backend="onnxruntime", precision=precision)
    return {record: decision.winner.content}
