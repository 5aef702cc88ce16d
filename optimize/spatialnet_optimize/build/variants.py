"""From the portable graph to every form that a target may run. Done on the host; a device gets the forms and needs none of this."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import onnx
import onnx.utils

from spatialnet_edge.bundle.manifest import LayerSensitivity
from spatialnet_edge.core.spec import IMAGE_INPUT, ModelSpec
from spatialnet_optimize.build.candidates import FORMS
from spatialnet_optimize.evaluation.candidate_evaluation import Step, measure_candidates
from spatialnet_optimize.evaluation.gates import PARTIAL, REFERENCE, refusal
from spatialnet_optimize.export.metadata import with_metadata
from spatialnet_optimize.quantization.int8 import int8_static
from spatialnet_optimize.quantization.int8_calibration import Calibration
from spatialnet_optimize.quantization.scheme import Scheme
from spatialnet_optimize.quantization.sensitivity import most_that_pass, sensitivities
from spatialnet_optimize.targets.catalogue import Target
from spatialnet_training.data.labelled_dataset import LabelledImages

if TYPE_CHECKING:
    from spatialnet_optimize.build.build import Job

SEARCH_IMAGES = 32
"""Enough to rank the layers by; the gates judge what comes of it on all labelled images."""


def make_forms(
    job: Job,
    target: Target,
    scheme: Scheme,
    spec: ModelSpec,
    portable: bytes,
    calibration: Calibration,
    sets: list[LabelledImages],
    step: Step,
) -> tuple[dict[str, bytes], tuple[LayerSensitivity, ...]]:
    """Every form that the target may run, and what a search found of the layers."""
    contents: dict[str, bytes] = {}
    for form in [each for each in target.precisions if each == REFERENCE or each.startswith(job.precision)]:
        description, make = FORMS[form]
        step(f"{form}: {description}")
        contents[form] = make(portable, calibration)
    if not job.search:
        return contents, ()
    contents[PARTIAL], sensitivity = search(portable, spec, calibration, scheme, job, sets, step)
    return contents, sensitivity


def search(
    portable: bytes,
    spec: ModelSpec,
    calibration: Calibration,
    scheme: Scheme,
    job: Job,
    sets: list[LabelledImages],
    step: Step,
) -> tuple[bytes, tuple[LayerSensitivity, ...]]:
    """Static INT8 of as many layers as the gates allow, the least sensitive first; and what each layer does alone."""
    few = calibration.images[:SEARCH_IMAGES]
    ranked = sensitivities(portable, spec, few, scheme, step)

    def quantised(layers: Sequence[str]) -> bytes:
        return int8_static(portable, calibration.images, scheme, layers)

    def passes(layers: Sequence[str]) -> bool:
        contents = {REFERENCE: portable, PARTIAL: quantised(layers)}
        reference, candidate = measure_candidates(contents, spec, job.model, sets, lambda text: None)
        verdict = refusal(candidate, reference, job.budget)
        step(f"search: {len(layers)} of {len(ranked)} layers: {verdict or 'passes'}")
        return not verdict

    kept = most_that_pass(ranked, passes)
    record = tuple(LayerSensitivity(layer=s.layer, change=round(s.change, 7), quantised=s.layer in kept) for s in ranked)
    return quantised(kept), record


def prune(content: bytes, spec: ModelSpec) -> bytes:
    """The graph without the heads that nobody asked for."""
    model = onnx.load_from_string(content)
    outputs = [output.name for output in spec.outputs]
    pruned = onnx.utils.Extractor(model).extract_model([IMAGE_INPUT], outputs)
    licence = {each.key: each.value for each in model.metadata_props}.get("model_license", "")
    return with_metadata(pruned.SerializeToString(), spec, licence)
