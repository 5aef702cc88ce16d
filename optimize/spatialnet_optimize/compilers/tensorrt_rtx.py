"""TensorRT for RTX: its builder needs no GPU, so plans are built on any Linux computer and not timed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import final

import onnxruntime as ort

from spatialnet_edge.bundle.manifest import CandidateRecord, EngineRecord
from spatialnet_edge.core.errors import UsageError
from spatialnet_edge.engines.tensorrt_plans import ANY_RTX
from spatialnet_optimize.compilers.base import Compiled, CompileRequest, simulate
from spatialnet_optimize.compilers.plan_builder import PlanBuilder, PlanOptions
from spatialnet_optimize.evaluation.gates import Decision, record, refusal, unseen
from spatialnet_optimize.quantization.scheme import Scheme

PREFERRED = ("fp16", "fp32")
"""Order of preference without timings. RTX GPUs are made for FP16. INT8 may not be faster for a transformer (TensorRT issues
3186 and 4273), so it is compiled and reported, but chosen only if it was timed."""


@final
@dataclass(frozen=True)
class TensorRtRtxCompiler:
    """Compiles every variant; the bundle gets the most promising one that passed the gates, simulated by ONNX Runtime."""

    builder: PlanBuilder
    scheme: Scheme = field(default="tensorrt", init=False)
    finishes_prepared: bool = field(default=False, init=False)

    def check(self, options: PlanOptions) -> None:
        if options.strip_weights:
            raise UsageError("TensorRT for RTX strips weights only with a GPU; remove --strip-weights")

    def compile(self, request: CompileRequest) -> Compiled:
        measured = simulate(request, here=False)
        request.step(f"compile: {self.builder.library.title} (no GPU needed)")
        simulated = {each.name: each for each in measured}
        reference = measured[0]
        verdicts = {each.name: refusal(each, reference, request.budget) for each in measured}
        plans = {name: self.builder.compile(graph, request.spec.input.shape) for name, graph in request.variants.items()}
        chosen = next(name for name in PREFERRED if name in plans and not verdicts.get(name, "not evaluated"))
        version = plans[chosen].version
        library = f"{self.builder.library.title} {version}"
        records: list[CandidateRecord] = []
        for name, plan in plans.items():
            each = replace(simulated.get(name) or unseen(name, plan.content), content=plan.content, p50_ms=0.0, p99_ms=0.0)
            passed = f"compiled with {library}; accuracy simulated by ONNX Runtime; not timed: no GPU was used"
            unjudged = f"compiled with {library}; not evaluated: ONNX Runtime has no CPU kernels for it"
            verdict = verdicts.get(name, unjudged) or (f"chosen: {passed}" if name == chosen else passed)
            records.append(record(each, reference, name == chosen, verdict))
        reason = f"{chosen} is the most precise of the fast variants that keep their accuracy; nothing was timed on a GPU"
        engine = EngineRecord(
            path=f"engines/rtx.{chosen}.plan",
            backend=self.builder.library.module,
            precision=chosen,
            device=ANY_RTX,
            library_version=version,
            portable=False,
            version_compatible=self.builder.options.version_compatible,
        )
        libraries = {"onnxruntime": str(ort.__version__), self.builder.library.module: version}
        return Compiled(Decision(simulated[chosen], reason, tuple(records)), {engine: plans[chosen].content}, libraries)
