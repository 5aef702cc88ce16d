"""The forms of the portable graph that a target may run, from precise to less precise."""

from __future__ import annotations

from collections.abc import Callable

from spatialnet_optimize.evaluation.gates import REFERENCE
from spatialnet_optimize.quantization.fp8 import fp8_static
from spatialnet_optimize.quantization.int8 import int8_dynamic, int8_static
from spatialnet_optimize.quantization.int8_calibration import Calibration
from spatialnet_optimize.quantization.reduced_precision import to_bf16, to_fp16

Make = Callable[[bytes, Calibration], bytes]

FORMS: dict[str, tuple[str, Make]] = {
    REFERENCE: ("the portable graph", lambda content, calibration: content),
    "fp16": ("cast to FP16; norms, softmax and answers stay FP32", lambda content, calibration: to_fp16(content)),
    "bf16": ("cast to BF16; norms, softmax and answers stay FP32", lambda content, calibration: to_bf16(content)),
    "int8-dynamic": ("dynamic INT8 of the linear layers", lambda content, calibration: int8_dynamic(content)),
    "int8-static": (
        "static INT8 of convolutions and linear layers",
        lambda content, calibration: int8_static(content, calibration.images, "cpu"),
    ),
    "int8-qdq": (
        "INT8 Q/DQ of convolutions and linear layers, as TensorRT wants it",
        lambda content, calibration: int8_static(content, calibration.images, "tensorrt"),
    ),
    "fp8-qdq": (
        "FP8 Q/DQ of linear layers, as TensorRT wants it",
        lambda content, calibration: fp8_static(content, calibration.images),
    ),
}
"""Name to what it is and how it is made from the portable graph."""
