"""Which plan of TensorRT for RTX goes into a bundle; its builder needs no GPU, so nothing is timed here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from spatialnet_edge.bundle.manifest import CandidateRecord, EngineRecord
from spatialnet_edge.core.spec import ModelSpec
from spatialnet_optimize.compilers.base import Compiler
from spatialnet_optimize.evaluation.gates import Decision, Measured, record, refusal, unseen

PREFERRED = ("fp16", "fp32")
"""Without a GPU nothing can be timed. FP16 is what RTX GPUs are made for; INT8 need not be faster for a transformer (TensorRT
issues 3186 and 4273), so it is compiled and reported, and chosen only where it was timed."""


def compile_passing(
    contents: Mapping[str, bytes], measured: Sequence[Measured], spec: ModelSpec, budget: float, compiler: Compiler
) -> tuple[Decision, dict[EngineRecord, bytes], str]:
    """Compile every form; the bundle gets the most promising one that passed the gates, simulated by ONNX Runtime.

    Args:
        contents: form to graph; what is not among `measured` could not be judged without the device.
        measured: the FP32 reference first.

    Returns:
        The decision, the plan that goes into the bundle, and the library's version.
    """
    reference = measured[0]
    verdicts = {each.name: refusal(each, reference, budget) for each in measured}
    plans = {form: compiler.compile(content, spec.input.shape) for form, content in contents.items()}
    chosen = next(form for form in PREFERRED if form in plans and not verdicts.get(form, "not judged"))
    version = plans[chosen].version
    library = f"{compiler.library.title} {version}"
    simulated = {each.name: each for each in measured}
    records: list[CandidateRecord] = []
    for form, plan in plans.items():
        each = replace(simulated.get(form) or unseen(form, plan.content), content=plan.content, p50_ms=0.0, p99_ms=0.0)
        passed = f"compiled with {library}; accuracy simulated by ONNX Runtime; not timed: no GPU was used"
        unjudged = f"compiled with {library}; not judged: ONNX Runtime has no CPU kernels for it"
        verdict = verdicts.get(form, unjudged) or (f"chosen: {passed}" if form == chosen else passed)
        records.append(record(each, reference, form == chosen, verdict))
    reason = f"{chosen} is the most precise of the fast forms that keeps its accuracy; nothing was timed on a GPU"
    engine = EngineRecord(
        path=f"engines/rtx.{chosen}.plan",
        backend="tensorrt_rtx",
        precision=chosen,
        device="any RTX GPU",
        library_version=version,
        portable=False,
    )
    return Decision(simulated[chosen], reason, tuple(records)), {engine: plans[chosen].content}, version
