"""INT8 variants of the portable graph: dynamic, with activation scales computed at run time, and static, with explicit Q/DQ
nodes.

Attention products, residual additions, norms and heads are never quantised. Quantising everything can destroy the accuracy of a
transformer, and Q/DQ around the attention breaks its fusion (NVIDIA's TensorRT issues 3186 and 4273).
"""

from __future__ import annotations

import io
import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.calibrate import CalibrationDataReader

from spatialnet_edge.core.spec import IMAGE_INPUT
from spatialnet_optimize.quantization.activation_ranges import activations, least_squares_ranges
from spatialnet_optimize.quantization.reduced_precision import head_layers
from spatialnet_optimize.quantization.scheme import Scheme

METHODS = {
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
    "minmax": CalibrationMethod.MinMax,
    "mse": CalibrationMethod.MinMax,  # with the ranges of `activation_ranges.py` instead of its own
}
PERCENTILE = 99.99
QUANTISED = ("Conv", "MatMul")
"""Operators that run in INT8."""


def int8_dynamic(content: bytes) -> bytes:
    """Dynamic INT8 of the linear layers: weights per channel in advance, activations at run time.

    Weights keep 7 bits (`reduce_range`): processors without VNNI add pairs of 8-bit products in 16 bits, which overflows with
    8; measured on such a processor, the largest error of a probability fell from 0.136 to 0.012.
    """
    with forgotten_shapes(content) as (model, target):
        quantize_dynamic(
            model,
            target,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
        return target.read_bytes()


def int8_static(
    content: bytes,
    images: NDArray[np.uint8],
    scheme: Scheme,
    layers: Sequence[str] | None = None,
    method: str = "mse",
) -> bytes:
    """Explicit INT8: Q/DQ around the convolutions and linear layers, weights per channel, activations calibrated.

    Args:
        images: real ones, uint8 `[N, H, W, bands]` at the model's size.
        scheme: `tensorrt`: symmetric, signed, no quantised biases (its parser refuses them), Q/DQ only at the inputs of layers.
            `cpu`: unsigned activations and 7-bit weights, for which ONNX Runtime's kernels are fast and exact, and Q/DQ also
            at the outputs. TensorRT fuses the operator after a layer, and should not round an output that is added to another
            one (see `OpTypesToExcludeOutputQuantization` of ONNX Runtime's quantiser).
        layers: of `linear_layers`; None: all. If empty, the graph is returned unchanged.
        method: calibration method of `METHODS`; only least squared error worked well with every student so far (decision 10).
    """
    chosen = [*(linear_layers(content) if layers is None else layers)]
    if not chosen:  # ONNX Runtime treats an empty list as "everything"
        return content
    symmetric = scheme == "tensorrt"
    overrides = {}
    if method == "mse":
        left = clipped_afterwards(content, chosen)
        measured = {name: left.get(name, name) for name in activations_of(content, chosen, outputs=not symmetric)}
        ranges = least_squares_ranges(content, [*dict.fromkeys(measured.values())], images, symmetric)
        dtype = weight_dtype(content, chosen)
        overrides = {name: [as_override(ranges[where], dtype)] for name, where in measured.items()}
    with forgotten_shapes(content) as (model, target):
        quantize_static(
            model,
            target,
            OneByOne(images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=[*QUANTISED],
            nodes_to_quantize=chosen,
            per_channel=True,
            reduce_range=not symmetric,
            activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=METHODS[method],
            extra_options={
                "ActivationSymmetric": symmetric,
                "WeightSymmetric": True,
                "QuantizeBias": not symmetric,
                "CalibPercentile": PERCENTILE,
                "TensorQuantOverrides": overrides,
                "OpTypesToExcludeOutputQuantization": [*QUANTISED] if symmetric else [],
            },
        )
        return target.read_bytes()


def linear_layers(content: bytes) -> list[str]:
    """The convolutions and linear layers that may be quantised, in execution order: those with weights, without heads."""
    model = onnx.load_from_string(content)
    weights = {tensor.name for tensor in model.graph.initializer}
    heads = set(head_layers(model))
    return [
        node.name
        for node in model.graph.node
        if node.op_type in QUANTISED and node.input[1] in weights and node.name not in heads
    ]


def activations_of(content: bytes, layers: Sequence[str], outputs: bool) -> list[str]:
    """The input tensors of these layers and, if `outputs`, their output tensors."""
    nodes = [node for node in onnx.load_from_string(content).graph.node if node.name in set(layers)]
    return sorted({name for node in nodes for name in (node.input[0], *(node.output[:1] if outputs else ()))})


def weight_dtype(content: bytes, layers: Sequence[str]) -> type[np.floating]:
    """The type of these layers' weights: float16 in a cast graph, otherwise float32. Scales must have the same type."""
    graph = onnx.load_from_string(content).graph
    weights = {node.input[1] for node in graph.node if node.name in set(layers) and node.op_type in QUANTISED}
    half = any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in graph.initializer if tensor.name in weights)
    return np.float16 if half else np.float32


def clipped_afterwards(content: bytes, layers: Sequence[str]) -> dict[str, str]:
    """Map an output that only a ReLU or Clip consumes to that node's output.

    Eight bits only need to represent the clipped range, because saturation equals clipping. Lite networks clip at 6 values that
    reach far beyond; the full range would leave only a few levels for the useful part.
    """
    graph = onnx.load_from_string(content).graph
    readers = readers_of(graph)
    outputs = [node.output[0] for node in graph.node if node.name in set(layers)]
    only = {name: readers[name][0] for name in outputs if len(readers.get(name, [])) == 1}
    return {name: reader.output[0] for name, reader in only.items() if reader.op_type in ("Relu", "Clip")}


def readers_of(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    """Each tensor to the nodes that read it, in execution order."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return readers


def as_override(limits: tuple[float, float], dtype: type[np.floating]) -> dict[str, np.floating]:
    """A range in the format of ONNX Runtime's quantiser."""
    return {"rmin": dtype(limits[0]), "rmax": dtype(limits[1])}


class OneByOne(CalibrationDataReader):
    """Calibration data reader for ONNX Runtime's quantiser."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self._images: Iterator[NDArray[np.uint8]] = iter(images)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:  # type: ignore[override]
        image = next(self._images, None)
        return None if image is None else {IMAGE_INPUT: image[None]}


def smooth(content: bytes, images: NDArray[np.uint8], strength: float = 0.5) -> bytes:
    """SmoothQuant: move outliers of activations into the following weights; the function stays the same (Xiao et al. 2022,
    arXiv 2211.10438, equation 4).

    Each channel of a LayerNorm that feeds a linear layer is divided by `max|X|^strength / max|W|^(1 - strength)`, and the
    layer's weights are multiplied by it.

    Args:
        images: real ones, uint8 `[N, H, W, bands]`, over which the maxima are taken.
    """
    model = onnx.load_from_string(content)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    norms = {node.output[0]: node for node in model.graph.node if node.op_type == "LayerNormalization"}
    readers = readers_of(model.graph)
    pairs = [
        (norm, users[0])
        for name, norm in norms.items()
        if len(users := readers.get(name, [])) == 1 and users[0].op_type == "MatMul" and users[0].input[1] in weights
    ]
    largest = channel_maxima(content, [norm.output[0] for norm, _ in pairs], images)
    for norm, linear in pairs:
        matrix = onnx.numpy_helper.to_array(weights[linear.input[1]])
        activations = largest[norm.output[0]].clip(min=1e-5)
        scale = activations**strength / np.abs(matrix).max(axis=1).clip(min=1e-5) ** (1 - strength)
        scale = (scale / np.exp(np.log(scale).mean())).astype(np.float32)
        set_values(weights[linear.input[1]], matrix * scale[:, None])
        for name in norm.input[1:3]:
            set_values(weights[name], onnx.numpy_helper.to_array(weights[name]) / scale)
    return model.SerializeToString(deterministic=True)


def set_values(tensor: onnx.TensorProto, values: NDArray[np.float32]) -> None:
    tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), tensor.name))


def channel_maxima(content: bytes, names: Sequence[str], images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """The largest magnitude of each channel (last axis) of some tensors over all images."""
    largest: dict[str, NDArray[np.float32]] = {}
    for name, values in activations(content, names, images):
        magnitude = np.abs(values).reshape(-1, values.shape[-1]).max(axis=0)
        largest[name] = np.maximum(largest[name], magnitude) if name in largest else magnitude
    return largest


@contextmanager
def forgotten_shapes(content: bytes) -> Iterator[tuple[onnx.ModelProto, Path]]:
    """The model prepared for the quantiser, and a file for its result.

    The quantiser transposes weights, and older versions then fail on recorded shapes, so these are removed. Its advice to
    preprocess the model is suppressed, because the exporter has done it.
    """
    model = onnx.load_from_string(content)
    del model.graph.value_info[:]
    logging.getLogger().addFilter(_no_preprocessing_hint)
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            redirect_stdout(io.StringIO()),
        ):  # its calibrator prints to standard output
            yield model, Path(folder, "int8.onnx")
    finally:
        logging.getLogger().removeFilter(_no_preprocessing_hint)


def _no_preprocessing_hint(record: logging.LogRecord) -> bool:
    return "pre-processing before quantization" not in record.getMessage()
