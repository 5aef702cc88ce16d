"""Make one chosen variant of a model, as fast or slow as it is, through the same gates as a build."""

from __future__ import annotations

import onnxruntime as ort

from spatialnet_edge.bundle.reader import Bundle
from spatialnet_edge.core.errors import BuildError, UsageError
from spatialnet_optimize.build.build import Job, load, package
from spatialnet_optimize.build.labelled_data import DataOptions, load_data
from spatialnet_optimize.build.variant_set import Variants
from spatialnet_optimize.build.variants import VARIANTS
from spatialnet_optimize.compilers.base import Compiled
from spatialnet_optimize.compilers.onnxruntime import preferred_engines
from spatialnet_optimize.compilers.plan_builder import silent
from spatialnet_optimize.evaluation.candidate_evaluation import Step, measure_candidates
from spatialnet_optimize.evaluation.gates import REFERENCE, Decision, record, refusal

ON_A_CPU = ("fp16", "int8-dynamic", "int8-static")
"""The variants that ONNX Runtime computes on a CPU in their own precision."""


def build_variant(job: Job, variant: str, step: Step) -> Bundle:
    """Write a bundle that prefers one variant.

    Args:
        job: for the target `cpu`.

    Raises:
        UsageError: no such variant.
        BuildError: it fails a gate; the message says which.
    """
    if variant not in ON_A_CPU:
        raise UsageError(f"no variant '{variant}' for a CPU; expected one of {', '.join(ON_A_CPU)}")
    loaded = load(job, silent)
    data = load_data(DataOptions(job.labelled, job.calibration, job.budget), job.model, loaded.spec)
    description, make = VARIANTS[variant]
    step(f"{variant}: {description}")
    contents = {REFERENCE: loaded.portable, variant: make(loaded.portable, data.calibration)}
    reference, candidate = measure_candidates(contents, data.evidence, step)
    if reason := refusal(candidate, reference, job.budget):
        raise BuildError(f"{variant}: {reason}")
    records = (record(reference, reference, False, ""), record(candidate, reference, True, "chosen"))
    decision = Decision(candidate, f"{variant} was requested, and passes the gates", records)
    compiled = Compiled(decision, preferred_engines(decision), {"onnxruntime": str(ort.__version__)})
    return package(job, loaded, data, Variants(contents), compiled)
