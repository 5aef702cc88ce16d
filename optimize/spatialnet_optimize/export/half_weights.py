"""Weights of a graph as float16, each with a Cast to float32 behind it: half the size, and the computation stays float32.

Inference libraries fold the Cast when they load the graph. Compilers and quantisers look for float32 weights, so a build restores
these first (`whole_weights`); both forms of a graph give the same answers.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from spatialnet_edge.core.errors import BuildError
from spatialnet_edge.core.predictions import difference
from spatialnet_edge.core.spec import IMAGE_INPUT, ModelSpec, Multiclass

HALF_FROM = 8192
"""Smallest matrix, in elements, that is stored as float16: the same as in checkpoints."""
SUFFIX = ".float16"
"""What a stored tensor's name has behind the name of the weight."""
ALLOWED = 0.01
"""The largest change of a probability that rounding may cause on the golden frames; labels must not change at all."""


def half_weights(content: bytes) -> bytes:
    """Round large float32 matrices to float16 and store them so. Graphs that are stored so already come back unchanged."""
    model = onnx.load_from_string(content)
    casts: list[onnx.NodeProto] = []
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 1 and np.prod(tensor.dims) >= HALF_FROM:
            name, stored = tensor.name, tensor.name + SUFFIX
            with np.errstate(over="ignore"):  # checked below
                values = numpy_helper.to_array(tensor).astype(np.float16)
            if not np.isfinite(values).all():
                raise BuildError(f"weight '{name}' has values beyond float16's range; export without --half")
            tensor.CopyFrom(numpy_helper.from_array(values, stored))
            casts.append(onnx.helper.make_node("Cast", [stored], [name], stored, to=TensorProto.FLOAT))
    return with_nodes(model, [*casts, *model.graph.node])


def whole_weights(content: bytes) -> bytes:
    """The graph with its weights in float32 and without the Casts; one without float16 weights comes back unchanged."""
    model = onnx.load_from_string(content)
    stored = {tensor.name: tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    restored = [node for node in model.graph.node if node.op_type == "Cast" and node.name in stored]
    if not restored:
        return content
    for node in restored:
        tensor = stored[node.input[0]]
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), node.output[0]))
    names = {node.name for node in restored}
    return with_nodes(model, [node for node in model.graph.node if node.name not in names])


def with_nodes(model: onnx.ModelProto, nodes: Iterable[onnx.NodeProto]) -> bytes:
    """The model with these nodes in place of its own."""
    kept = [*nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model.SerializeToString(deterministic=True)


def rounded(
    content: bytes, spec: ModelSpec, expected: dict[str, NDArray[np.float32]], images: NDArray[np.uint8]
) -> tuple[bytes, dict[str, NDArray[np.float32]]]:
    """The graph with half weights, and what it answers.

    Args:
        expected: what the graph answered with whole weights: float32 `[N, width]` for each output.
        images: uint8 `[N, H, W, bands]`.

    Raises:
        BuildError: rounding changes a label, or a probability by more than `ALLOWED`.
    """
    graph = half_weights(content)
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    names = [head.name for head in spec.outputs]
    answers = dict(zip(names, (np.asarray(each) for each in session.run(names, {IMAGE_INPUT: images})), strict=True))
    for head in spec.outputs:
        found = difference(head, answers[head.name], expected[head.name])
        if not found <= ALLOWED:
            raise BuildError(
                f"float16 weights change a probability of '{head.name}' by {found:.3f} on the golden frames; allowed {ALLOWED}; "
                f"export without --half"
            )
        if isinstance(head, Multiclass) and (answers[head.name].argmax(1) != expected[head.name].argmax(1)).any():
            raise BuildError(f"float16 weights change a label of '{head.name}' on the golden frames; export without --half")
    return graph, answers
