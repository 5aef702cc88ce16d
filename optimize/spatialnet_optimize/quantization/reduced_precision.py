"""FP16 and BF16 variants: casts are explicit in the graph, so that the executed precision is the requested one (strongly typed
networks).

Some parts stay FP32, because the range or the steps of 16-bit floats do not suffice: normalisation of the pixels,
LayerNorm (its sum of squares overflows FP16; see NVIDIA's notes on TensorRT issues 2564 and 2781), softmax, and the outputs.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

KEPT = ("LayerNormalization", "Softmax", "Sigmoid", "ReduceMean", "ReduceSum", "ReduceMax", "Range", "Shape")
"""Operators that stay FP32."""


def to_fp16(content: bytes) -> bytes:
    """Cast the graph to FP16, except for `KEPT` operators and nodes near pixels or outputs."""
    model = onnx.load_from_string(content)
    converted = convert_float_to_float16(
        model,
        keep_io_types=True,
        op_block_list=list(KEPT),
        node_block_list=[*pixel_nodes(model), *answer_nodes(model)],
        disable_shape_infer=True,
    )
    OnnxModel(converted).topological_sort()  # the converter appends its casts at the end
    del converted.graph.value_info[:]
    onnx.checker.check_model(converted, full_check=True)
    return converted.SerializeToString(deterministic=True)


def to_bf16(content: bytes) -> bytes:
    """As `to_fp16`, in bfloat16: the range of FP32 with eight bits of precision, for GPUs from compute capability 8.0."""
    model = onnx.load_from_string(to_fp16(content))
    originals = {tensor.name: tensor for tensor in onnx.load_from_string(content).graph.initializer}
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            source = originals.get(tensor.name)
            values = numpy_helper.to_array(tensor if source is None else source).astype(np.float32)
            tensor.CopyFrom(bfloat16_tensor(tensor.name, values))
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.BFLOAT16
            if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == TensorProto.FLOAT16:
                attribute.t.CopyFrom(bfloat16_tensor(attribute.t.name, numpy_helper.to_array(attribute.t).astype(np.float32)))
    return model.SerializeToString(deterministic=True)


def bfloat16_tensor(name: str, values: np.ndarray) -> onnx.TensorProto:
    rounded = values.astype(ml_dtypes.bfloat16)
    return onnx.helper.make_tensor(name, TensorProto.BFLOAT16, values.shape, rounded.tobytes(), raw=True)


def pixel_nodes(model: onnx.ModelProto) -> list[str]:
    """Everything up to the first convolution: 8-bit pixels and their normalisation."""
    names: list[str] = []
    for node in model.graph.node:
        if node.op_type in ("Conv", "MatMul", "Gemm"):
            break
        names.append(node.name)
    return names


def answer_nodes(model: onnx.ModelProto) -> list[str]:
    """The nodes between the heads' linear layers and the outputs: temperature and activation."""
    return [node.name for node in upstream(model) if node.op_type not in ("Gemm", "MatMul")]


def head_layers(model: onnx.ModelProto) -> list[str]:
    """The linear layer of each head, and of the temperature of images if the network has one."""
    return [node.name for node in upstream(model) if node.op_type in ("Gemm", "MatMul")]


def upstream(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes from the outputs back to the first linear layer on each path, inclusive."""
    producers = {output: node for node in model.graph.node for output in node.output}
    found: dict[str, onnx.NodeProto] = {}
    waiting = [output.name for output in model.graph.output]
    while waiting:
        node = producers.get(waiting.pop())
        if node is None or node.name in found:
            continue
        found[node.name] = node
        if node.op_type not in ("Gemm", "MatMul"):
            waiting.extend(node.input)
    return [*found.values()]
