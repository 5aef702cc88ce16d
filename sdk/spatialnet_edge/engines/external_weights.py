"""Weights of ONNX Runtime in our own memory, so that checksums can detect flipped bits.

ONNX Runtime does not expose its weights. But it takes initial values from its caller (`SessionOptions.add_initializer`) and
reads those in place unless it may repack them. So the graph is optimised once as usual, the optimised graph's weights are
copied into our memory, and a second session runs on them without packing. This costs some milliseconds at the start, and speed
(decision 11).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime  # pyright: ignore[reportMissingTypeStubs]
from numpy.typing import NDArray

from spatialnet_edge.core.errors import EngineUnavailable

ort: Any = onnxruntime
LEAST_BYTES = 64
"""Smaller constants stay in the graph: shapes, axes, single scales."""
NUMPY_TYPES = {1: np.float32, 2: np.uint8, 3: np.int8, 6: np.int32, 7: np.int64, 10: np.float16, 11: np.float64}
"""`TensorProto.DataType` of onnx.proto."""


@dataclass(frozen=True, slots=True)
class ExternalWeights:
    """A session, and the memory of its weights.

    Attributes:
        memory: one array of bytes per tensor; the session reads it directly.
        values: ONNX Runtime's handles; they must live as long as the session.
    """

    session: Any
    memory: tuple[memoryview, ...]
    values: tuple[Any, ...]


def open_inspectable(content: bytes, options: Any, providers: list[str]) -> ExternalWeights:
    """Open a graph with its weights in our own memory.

    Args:
        options: of the session, with the wanted optimisation; modified here.

    Raises:
        EngineUnavailable: this release of ONNX Runtime copies the weights.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "optimised.onnx")
        options.optimized_model_filepath = str(path)
        ort.InferenceSession(content, options, providers=providers)
        optimised = path.read_bytes()
    options.optimized_model_filepath = ""
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # already optimised
    values: list[Any] = []
    memory: list[memoryview] = []
    for name, array in initialisers(optimised):
        if array.nbytes >= LEAST_BYTES:
            value = ort.OrtValue.ortvalue_from_numpy(array)
            if value.data_ptr() != array.ctypes.data:
                raise EngineUnavailable(
                    f"ONNX Runtime {ort.__version__} copies the weights, so they cannot be checked; set scrub_s = 0"
                )
            options.add_initializer(name, value)
            values.append(value)
            memory.append(np.ravel(array).data.cast("B"))
    session = ort.InferenceSession(optimised, options, providers=providers)
    return ExternalWeights(session, tuple(memory), tuple(values))


def initialisers(content: bytes) -> Iterator[tuple[str, NDArray[Any]]]:
    """The constants of an ONNX file with raw data, by name (onnx.proto: ModelProto.graph = 7, GraphProto.initializer = 5)."""
    model = model_message()()
    model.ParseFromString(content)
    for tensor in model.graph.initializer:
        if tensor.data_type in NUMPY_TYPES and tensor.raw_data:
            flat: NDArray[Any] = np.frombuffer(tensor.raw_data, NUMPY_TYPES[tensor.data_type])
            yield tensor.name, np.array(np.reshape(flat, tuple(tensor.dims)))


def model_message() -> Any:
    """The needed subset of onnx.proto as a protobuf class: ONNX Runtime installs protobuf, but not onnx."""
    described: Any = import_module("google.protobuf.descriptor_pb2")
    pools: Any = import_module("google.protobuf.descriptor_pool")
    factory: Any = import_module("google.protobuf.message_factory")
    file = described.FileDescriptorProto(name="weights_of_onnx.proto", package="weights_of_onnx", syntax="proto2")
    kind = described.FieldDescriptorProto
    once, repeated = kind.LABEL_OPTIONAL, kind.LABEL_REPEATED
    fields: dict[str, tuple[tuple[str, int, int, int, str], ...]] = {
        "Tensor": (
            ("dims", 1, kind.TYPE_INT64, repeated, ""),
            ("data_type", 2, kind.TYPE_INT32, once, ""),
            ("name", 8, kind.TYPE_STRING, once, ""),
            ("raw_data", 9, kind.TYPE_BYTES, once, ""),
        ),
        "Graph": (("initializer", 5, kind.TYPE_MESSAGE, repeated, ".weights_of_onnx.Tensor"),),
        "Model": (("graph", 7, kind.TYPE_MESSAGE, once, ".weights_of_onnx.Graph"),),
    }
    for message, members in fields.items():
        added = file.message_type.add(name=message)
        for name, number, of, label, other in members:
            field = added.field.add(name=name, number=number, type=of, label=label)
            if other:
                field.type_name = other
    pool = pools.DescriptorPool()
    pool.Add(file)
    return factory.GetMessageClass(pool.FindMessageTypeByName("weights_of_onnx.Model"))
