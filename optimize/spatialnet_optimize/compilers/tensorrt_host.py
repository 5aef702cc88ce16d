"""TensorRT's first step, on the host: evaluate the variants, and add those that pass to the bundle.

TensorRT times kernels on the target GPU, so it compiles only on the device. The host has the memory for quantisation
(quantisers run out of memory on 8 GB boards), and evaluates every variant with ONNX Runtime.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath
from typing import final

import onnxruntime as ort

from spatialnet_edge.bundle.manifest import EngineRecord
from spatialnet_edge.bundle.reader import MODEL, Bundle
from spatialnet_edge.core.errors import UsageError
from spatialnet_optimize.compilers.base import Compiled, CompileRequest, simulate
from spatialnet_optimize.compilers.plan_builder import DEFAULT, PLAN_OPTIONS, TENSORRT, PlanOptions
from spatialnet_optimize.evaluation.gates import REFERENCE, Decision, decide, record, refusal, unseen
from spatialnet_optimize.quantization.scheme import Scheme

GRAPHS = "graphs"
"""The folder of a bundle with the graphs to be compiled on the device."""


@final
class TensorRtHost:
    """Prepares a bundle for its device."""

    scheme: Scheme = "tensorrt"
    finishes_prepared = False

    def check(self, options: PlanOptions) -> None:
        if options != DEFAULT:
            raise UsageError(f"{PLAN_OPTIONS}: give them on the device, where the plan is compiled, with --target here")

    def compile(self, request: CompileRequest) -> Compiled:
        """Choose only FP32 for now, which runs everywhere; the files are the graphs that passed."""
        measured = simulate(request, here=False)
        reference = decide(measured[:1], request.budget).winner
        judged = {each.name: each for each in measured}
        graphs: dict[EngineRecord, bytes] = {}
        records = []
        for name, content in request.variants.items():
            each = judged.get(name)
            verdict = None if each is None else refusal(each, reference, request.budget)
            if not verdict:
                if name != REFERENCE:  # already in the bundle as the portable graph
                    graphs[waiting_graph(name)] = content
                how = (
                    "not evaluated: ONNX Runtime has no CPU kernels for it"
                    if each is None
                    else "passes, simulated by ONNX Runtime"
                )
                verdict = f"to be compiled on the device; {how}"
            shown = unseen(name, content) if each is None else each
            records.append(record(replace(shown, p50_ms=0.0, p99_ms=0.0), reference, False, verdict))
        reason = f"{len(graphs) + 1} variants are prepared: run 'spatialnet-edge build BUNDLE --target here' on the device"
        return Compiled(Decision(reference, reason, tuple(records)), graphs, {"onnxruntime": str(ort.__version__)})


def waiting_graph(name: str) -> EngineRecord:
    """The record of a graph to be compiled on the device."""
    return EngineRecord(path=f"{GRAPHS}/{name}.onnx", backend=TENSORRT.module, precision=name, portable=False)


def waiting(bundle: Bundle) -> dict[str, bytes]:
    """The variants of a prepared bundle, FP32 first; empty for a bundle that was not prepared."""
    found = {
        PurePosixPath(engine.path).stem: bundle.read(engine.path)
        for engine in bundle.manifest.engines
        if engine.path.startswith(f"{GRAPHS}/")
    }
    return {REFERENCE: bundle.read(MODEL)} | found if found else {}
