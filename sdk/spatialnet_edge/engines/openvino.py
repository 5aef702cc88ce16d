"""OpenVINO on Intel and AMD CPUs: runs the portable graph (extra `openvino`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import numpy as np
import openvino  # pyright: ignore[reportMissingImports, reportMissingTypeStubs]
from numpy.typing import NDArray

from spatialnet_edge.bundle.manifest import EngineRecord
from spatialnet_edge.core.errors import BundleError, EngineError, first_line
from spatialnet_edge.core.spec import IMAGE_INPUT, ModelSpec

ov: Any = openvino


@final
class OpenVinoEngine:
    """One compiled model, with one inference request per calling thread."""

    reentrant = True

    def __init__(self, compiled: Any, spec: ModelSpec) -> None:
        self.spec = spec
        self._compiled: Any = compiled
        self._names = [output.name for output in spec.outputs]

    def infer(self, batch: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        try:
            request = self._compiled.create_infer_request()
            request.infer({IMAGE_INPUT: batch})
            return {name: np.array(request.get_tensor(name).data, np.float32) for name in self._names}
        except RuntimeError as error:
            raise EngineError(f"OpenVINO failed: {first_line(error)}") from error

    def close(self) -> None:
        self._compiled = None


@final
class OpenVinoBackend:
    """Opens ONNX graphs."""

    name = "openvino"
    takes_graphs = True

    def refuses(self, record: EngineRecord) -> str | None:
        return None

    def open(self, content: bytes, spec: ModelSpec, threads: int) -> OpenVinoEngine:
        """Compile a graph for the CPU.

        Args:
            threads: per inference; 0: one per core.

        Raises:
            BundleError: OpenVINO refuses the graph.
        """
        core = ov.Core()
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        try:
            model = core.read_model(model=content)
            return OpenVinoEngine(core.compile_model(model, "CPU", settings), spec)
        except RuntimeError as error:
            raise BundleError(f"OpenVINO {ov.__version__} cannot load this graph: {first_line(error)}") from error
