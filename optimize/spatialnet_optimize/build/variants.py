"""The variants of a portable graph that a target may run: FP32, FP16, BF16, INT8, FP8.

They are made on the host. A device receives the variants and does not need this module.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx
import onnx.utils

from spatialnet_edge.bundle.manifest import LayerSensitivity
from spatialnet_edge.core.errors import BuildError
from spatialnet_edge.core.spec import IMAGE_INPUT, ModelSpec
from spatialnet_optimize.build.variant_set import Variants
from spatialnet_optimize.evaluation.candidate_evaluation import Evidence, Step, measure_candidates
from spatialnet_optimize.evaluation.gates import MODELOPT, PARTIAL, QAT, REFERENCE, better, loss_points, refusal
from spatialnet_optimize.export.metadata import with_metadata
from spatialnet_optimize.quantization.fp8 import fp8_static
from spatialnet_optimize.quantization.int8 import int8_dynamic, int8_static
from spatialnet_optimize.quantization.int8_calibration import Calibration
from spatialnet_optimize.quantization.modelopt_int8 import installed as modelopt_installed
from spatialnet_optimize.quantization.modelopt_int8 import int8_modelopt
from spatialnet_optimize.quantization.reduced_precision import to_bf16, to_fp16
from spatialnet_optimize.quantization.scheme import QatRequest, Scheme
from spatialnet_optimize.quantization.sensitivity import most_that_pass, sensitivities

Make = Callable[[bytes, Calibration], bytes]

VARIANTS: dict[str, tuple[str, Make]] = {
    REFERENCE: ("the portable graph", lambda content, calibration: content),
    "fp16": ("cast to FP16; norms, softmax and outputs stay FP32", lambda content, calibration: to_fp16(content)),
    "bf16": ("cast to BF16; norms, softmax and outputs stay FP32", lambda content, calibration: to_bf16(content)),
    "int8-dynamic": ("dynamic INT8 of the linear layers", lambda content, calibration: int8_dynamic(content)),
    "int8-static": (
        "static INT8 of convolutions and linear layers",
        lambda content, calibration: int8_static(content, calibration.images, "cpu"),
    ),
    "int8-qdq": (
        "INT8 Q/DQ of convolutions and linear layers, in TensorRT's layout",
        lambda content, calibration: int8_static(content, calibration.images, "tensorrt"),
    ),
    "int8-qdq-fp16": (
        "the same INT8 Q/DQ, with FP16 between the quantised layers instead of FP32",
        lambda content, calibration: int8_static(to_fp16(content), calibration.images, "tensorrt"),
    ),
    MODELOPT: (
        "INT8 by NVIDIA's Model Optimizer, with FP16 between the quantised layers",
        lambda content, calibration: int8_modelopt(content, calibration.images),
    ),
    "fp8-qdq": (
        "FP8 Q/DQ of linear layers, in TensorRT's layout",
        lambda content, calibration: fp8_static(content, calibration.images),
    ),
}
"""Name to description and factory, from precise to less precise."""

SEARCH_IMAGES = 32
"""Number of images for ranking the layers; the gates evaluate the result on all labelled images."""


@dataclass(frozen=True, slots=True)
class VariantRequest:
    """Request for variants.

    Attributes:
        portable: the FP32 graph.
        precisions: names in `VARIANTS`, the reference among them.
        calibration: for static INT8 and FP8.
        scheme: INT8 layout of the search: for ONNX Runtime or for TensorRT.
        search: whether to also quantise as many layers as the gates allow.
        budget: percentage points of accuracy that the search may lose on any head.
        qat: a checkpoint for quantisation-aware training; None: no such variant.
    """

    portable: bytes
    precisions: tuple[str, ...]
    calibration: Calibration
    scheme: Scheme
    search: bool
    budget: float
    qat: QatRequest | None = None


def precisions_to_try(target: Sequence[str], scheme: Scheme, wanted: str) -> tuple[str, ...]:
    """The names of the variants to make.

    Args:
        target: what the target's row names.
        wanted: a precision, such as `int8`, to try alone besides the reference; empty for all.
    """
    further = (MODELOPT,) if scheme == "tensorrt" and "int8-qdq" in target and modelopt_installed() else ()
    return tuple(each for each in (*target, *further) if each == REFERENCE or each.startswith(wanted))


def make_variants(request: VariantRequest, evidence: Evidence, step: Step) -> Variants:
    """Make every requested variant."""
    contents: dict[str, bytes] = {}
    for name in request.precisions:
        description, make = VARIANTS[name]
        step(f"{name}: {description}")
        try:
            contents[name] = make(request.portable, request.calibration)
        except BuildError as error:
            if name != MODELOPT:
                raise
            step(f"warning: no candidate {name}: {error}")
    if request.qat is not None and "int8-qdq" in contents:
        add_qat(contents, request.qat, request, evidence, step)
    if not request.search:
        return Variants(contents)
    contents[PARTIAL], sensitivity = search(request, evidence, step)
    return Variants(contents, sensitivity)


def add_qat(contents: dict[str, bytes], qat: QatRequest, request: VariantRequest, evidence: Evidence, step: Step) -> None:
    """Add the candidate of quantisation-aware training if it comes out of the gates better than post-training quantisation."""
    # Imported here: they need torch.
    from spatialnet_optimize.quantization.int8_qat import int8_qat
    from spatialnet_training.loop.quantization_aware import QatOptions

    calibration = request.calibration
    training = calibration.images if calibration.training is None else calibration.training
    step(f"{QAT}: train with rounded layers, {qat.epochs} epochs over {len(training)} images")
    trained = int8_qat(
        qat.checkpoint,
        calibration.images,
        QatOptions(epochs=qat.epochs),
        lambda epoch, loss: step(f"{QAT}: epoch {epoch}, loss {loss:.5f}"),
        training,
    )
    trained = prune(trained, evidence.spec)
    judged = {REFERENCE: request.portable, "int8-qdq": contents["int8-qdq"], QAT: trained}
    reference, plain, learnt = measure_candidates(judged, evidence, lambda text: None, here=False)
    if better(learnt, plain, reference, request.budget):
        contents[QAT] = trained
    else:
        lost, before = (loss_points(each, reference) for each in (learnt, plain))
        step(
            f"{QAT}: left out: no better than int8-qdq: it loses {lost:.2f} points of accuracy, int8-qdq {before:.2f}; "
            f"{learnt.agreement:.2%} of the labels as FP32, int8-qdq {plain.agreement:.2%}"
        )


def search(request: VariantRequest, evidence: Evidence, step: Step) -> tuple[bytes, tuple[LayerSensitivity, ...]]:
    """Static INT8 of as many layers as the gates allow, the least sensitive first; and the sensitivity of each layer."""
    portable, images = request.portable, request.calibration.images
    ranked = sensitivities(portable, evidence.spec, images[:SEARCH_IMAGES], request.scheme, step)

    def quantised(layers: Sequence[str]) -> bytes:
        return int8_static(portable, images, request.scheme, layers)

    def passes(layers: Sequence[str]) -> bool:
        contents = {REFERENCE: portable, PARTIAL: quantised(layers)}
        reference, candidate = measure_candidates(contents, evidence, lambda text: None, here=False)
        verdict = refusal(candidate, reference, request.budget)
        step(f"search: {len(layers)} of {len(ranked)} layers: {verdict or 'passes'}")
        return not verdict

    kept = most_that_pass(ranked, passes)
    record = tuple(LayerSensitivity(layer=s.layer, change=round(s.change, 7), quantised=s.layer in kept) for s in ranked)
    return quantised(kept), record


def prune(content: bytes, spec: ModelSpec) -> bytes:
    """The graph without the heads that were not requested."""
    model = onnx.load_from_string(content)
    outputs = [output.name for output in spec.outputs]
    pruned = onnx.utils.Extractor(model).extract_model([IMAGE_INPUT], outputs)
    licence = {each.key: each.value for each in model.metadata_props}.get("model_license", "")
    return with_metadata(pruned.SerializeToString(), spec, licence)
