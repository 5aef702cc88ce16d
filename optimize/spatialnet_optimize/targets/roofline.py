"""Roofline prediction of latency on a device from operations and bytes; never a measurement.

The roofline model of Williams, Waterman and Patterson (2009), layer by layer: each layer takes the longest of its operations at
the device's peak, its bytes at the memory's bandwidth, and a kernel launch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx

from spatialnet_optimize.export.half_weights import whole_weights
from spatialnet_optimize.targets.catalogue import Target

BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1, "fp8": 1}
PEAK_SHARE = 0.42
"""Share of the peak operations that real layers reach at batch 1. With the next two constants, the predictions for ViT-B/16,
MobileNetV2 and EfficientViT-B1 are within the band of published values: `python -m spatialnet_benchmarks.published_costs`."""

BANDWIDTH_SHARE = 0.6
LAUNCH_US = 10.0
"""Microseconds from one fused kernel to the next on a Jetson, CUDA graphs or not."""

BAND = 2.0
"""The prediction may be wrong by this factor either way."""

HEAVY = ("Conv", "MatMul", "Gemm")
OWN_KERNEL = (*HEAVY, "LayerNormalization", "Softmax", "Resize", "GlobalAveragePool", "ReduceMean", "MaxPool")
"""Operators with their own kernel; the others are fused into a neighbour."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One kernel of a graph.

    Attributes:
        operations: a multiplication and an addition count as two.
        elements: number of values read and written, including weights.
    """

    name: str
    kind: str
    operations: int
    elements: int


def layers(content: bytes) -> list[Layer]:
    """The kernels of a graph at batch 1, with ONNX shape inference."""
    model = onnx.load_from_string(whole_weights(content))
    for value in model.graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = 1
    del model.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    values = (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output)
    shapes = {v.name: [max(1, d.dim_value) for d in v.type.tensor_type.shape.dim] for v in values}
    shapes |= {tensor.name: [*tensor.dims] for tensor in inferred.graph.initializer}
    found: list[Layer] = []
    for node in inferred.graph.node:
        if node.op_type in OWN_KERNEL and node.output[0] in shapes:
            output = shapes[node.output[0]]
            inputs = [shapes[name] for name in node.input if name in shapes]
            elements = sum(prod(shape) for shape in (*inputs, output))
            found.append(Layer(node.name, node.op_type, operations(node.op_type, inputs, output), elements))
    return found


def operations(kind: str, inputs: Sequence[Sequence[int]], output: Sequence[int]) -> int:
    """The operations of one layer, from its shapes."""
    if kind == "Conv":
        return 2 * prod(output) * prod(inputs[1][1:])
    if kind in ("MatMul", "Gemm"):
        return 2 * prod(output) * inputs[0][-1]
    return 5 * prod(output)


@dataclass(frozen=True, slots=True)
class Cost:
    """A prediction for one device and precision, at batch 1.

    Attributes:
        ms: prediction; `low_ms` and `high_ms` are its error band.
        bound: share of the time limited by launches, memory and arithmetic.
    """

    target: str
    precision: str
    ms: float
    bound: dict[str, float]

    @property
    def low_ms(self) -> float:
        return self.ms / BAND

    @property
    def high_ms(self) -> float:
        return self.ms * BAND


def predict(found: Sequence[Layer], name: str, target: Target, precision: str) -> Cost:
    """Predict the time of one inference on a device.

    Args:
        found: see `layers`.
        precision: a key of the target's `tera_ops`.
    """
    peak = target.tera_ops[precision] * 1e12 * PEAK_SHARE
    bandwidth = target.bandwidth * 1e9 * BANDWIDTH_SHARE
    kinds = ("launch", "memory", "arithmetic")
    times = np.array(
        [[LAUNCH_US * 1e-6, BYTES[precision] * each.elements / bandwidth, each.operations / peak] for each in found]
    )
    slowest = times.argmax(axis=1)
    longest = times.max(axis=1)
    total = float(longest.sum())
    bound = {kind: float(longest[slowest == index].sum() / total) for index, kind in enumerate(kinds)}
    return Cost(name, precision, 1e3 * total, bound)
