"""TensorRT for RTX: says honestly whether a plan can run here.

Running plans on a GPU is not part of this version; the plan travels in the bundle, and the runtime falls back to the graph with
the reason stated.
"""

from __future__ import annotations

from typing import NoReturn, final

import tensorrt_rtx  # pyright: ignore[reportMissingTypeStubs]

from spatialnet_edge.errors import EngineUnavailable
from spatialnet_edge.manifest import EngineRecord
from spatialnet_edge.spec import ModelSpec


@final
class TensorRtRtxBackend:
    name = "tensorrt_rtx"

    def refuses(self, record: EngineRecord) -> str:
        here = str(tensorrt_rtx.__version__)
        if record.library_version != here:
            return (
                f"plan built with TensorRT for RTX {record.library_version}; here {here}; rebuild with 'spatialnet-edge build'"
            )
        return "this version builds TensorRT plans and does not run them yet; the ONNX graph runs instead"

    def open(self, content: bytes, spec: ModelSpec, threads: int) -> NoReturn:
        raise EngineUnavailable("this version builds TensorRT plans and does not run them yet")
