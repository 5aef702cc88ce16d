"""ONNX Runtime: the default on any CPU; on a GPU only if chosen by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
import onnxruntime  # pyright: ignore[reportMissingTypeStubs]
from numpy.typing import NDArray

from spatialnet_edge.bundle.manifest import EngineRecord
from spatialnet_edge.core.errors import BundleError, EngineError, EngineUnavailable, first_line
from spatialnet_edge.core.spec import IMAGE_INPUT, ModelSpec
from spatialnet_edge.engines.external_weights import ExternalWeights, open_inspectable

ort: Any = onnxruntime  # it ships no types
CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"


@final
class OnnxRuntimeEngine:
    """One session; `infer` may be called from several threads.

    Attributes:
        weights: the memory of the weights if it was opened as inspectable; otherwise empty.
    """

    reentrant = True

    def __init__(self, session: Any, spec: ModelSpec, held: ExternalWeights | None = None) -> None:
        self.spec = spec
        self.weights: Sequence[memoryview] = () if held is None else held.memory
        self._held = held
        self._session: Any = session
        self._names = [output.name for output in spec.outputs]

    def infer(self, batch: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        try:
            outputs = self._session.run(self._names, {IMAGE_INPUT: batch})
        except Exception as error:  # its exceptions have no other common base class
            raise EngineError(f"ONNX Runtime failed: {first_line(error)}") from error
        return dict(zip(self._names, outputs, strict=True))

    def close(self) -> None:
        self._session = None
        self.weights, self._held = (), None  # in this order: the session must not outlive its memory


@final
class OnnxRuntimeBackend:
    """Opens ONNX graphs.

    Args:
        providers: execution providers, the preferred one first; later ones run the nodes that it does not support.
        fuse: fuse quantised layers into integer kernels; otherwise their values are rounded and computed in FP32.
    """

    takes_graphs = True

    def __init__(self, name: str = "onnxruntime", providers: tuple[str, ...] = (CPU,), fuse: bool = True) -> None:
        self.name = name
        self._providers = providers
        self._fuse = fuse

    def refuses(self, record: EngineRecord) -> str | None:
        return lacking(self._providers[0])

    def open(self, content: bytes, spec: ModelSpec, threads: int) -> OnnxRuntimeEngine:
        """See `open_session`."""
        return open_session(content, spec, threads, [*self._providers], fuse=self._fuse)

    def open_inspectable(self, content: bytes, spec: ModelSpec, threads: int) -> OnnxRuntimeEngine:
        """As `open`, but with accessible weights; slower, and only for the CPU."""
        return open_session(content, spec, threads, [*self._providers], inspectable_weights=self._providers == (CPU,))


def on_cuda() -> OnnxRuntimeBackend:
    """On an NVIDIA GPU, if ONNX Runtime was built for it."""
    return OnnxRuntimeBackend("onnxruntime_cuda", (CUDA, CPU))


def on_tensorrt() -> OnnxRuntimeBackend:
    """With TensorRT inside ONNX Runtime, if it was built for it."""
    return OnnxRuntimeBackend("onnxruntime_tensorrt", (TENSORRT, CUDA, CPU))


def lacking(provider: str) -> str | None:
    """Why an execution provider cannot be used; None if it can."""
    available = ort.get_available_providers()
    if provider in available:
        return None
    return f"ONNX Runtime {ort.__version__} has {', '.join(available)}, not {provider}; install onnxruntime-gpu instead"


def open_session(
    content: bytes, spec: ModelSpec, threads: int, providers: list[str], inspectable_weights: bool = False, fuse: bool = True
) -> OnnxRuntimeEngine:
    """Parse and optimise a graph.

    Args:
        content: a self-contained ONNX file.
        threads: per inference; 0: one per core.
        providers: execution providers, the preferred one first.
        inspectable_weights: keep the weights in accessible memory; see `external_weights.py`.
        fuse: see `OnnxRuntimeBackend`.

    Raises:
        BundleError: ONNX Runtime refuses the graph, or its inputs and outputs are not those of `spec`.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if not fuse:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    held: ExternalWeights | None = None
    try:
        if inspectable_weights:
            held = open_inspectable(content, options, providers)
        session = held.session if held is not None else ort.InferenceSession(content, options, providers=providers)
    except EngineUnavailable:
        raise
    except Exception as error:
        raise BundleError(f"ONNX Runtime {ort.__version__} cannot load this graph: {first_line(error)}") from error
    _check_signature(session, spec)
    return OnnxRuntimeEngine(session, spec, held)


def _check_signature(session: Any, spec: ModelSpec) -> None:
    inputs = {value.name: (value.type, list(value.shape[1:])) for value in session.get_inputs()}
    expected = {IMAGE_INPUT: ("tensor(uint8)", list(spec.input.shape))}
    if inputs != expected:
        raise BundleError(f"the graph takes {inputs}; the manifest has {expected}")
    outputs = {value.name: value.shape[-1] for value in session.get_outputs()}
    for head in spec.outputs:
        if outputs.get(head.name) != head.width:
            raise BundleError(f"the graph's outputs are {outputs}; the manifest has '{head.name}' with {head.width}")
