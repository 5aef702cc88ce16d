"""spatialnet-edge: run remote-sensing classifiers on drones and satellites.

Everything public is imported on first use, so that `import spatialnet_edge` costs almost nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from spatialnet_edge.api import Model as Model
    from spatialnet_edge.api import load as load
    from spatialnet_edge.api import stream as stream
    from spatialnet_edge.bundle import Bundle as Bundle
    from spatialnet_edge.bundle import open_bundle as open_bundle
    from spatialnet_edge.errors import SpatialNetError as SpatialNetError
    from spatialnet_edge.frames import Frame as Frame
    from spatialnet_edge.frames import Pose as Pose
    from spatialnet_edge.pipeline import Pipeline as Pipeline
    from spatialnet_edge.results import FrameResult as FrameResult
    from spatialnet_edge.sinks import open_sink as open_sink
    from spatialnet_edge.sources import open_source as open_source
    from spatialnet_edge.spec import ModelSpec as ModelSpec

_PUBLIC = {
    "Model": "api",
    "load": "api",
    "stream": "api",
    "Bundle": "bundle",
    "open_bundle": "bundle",
    "SpatialNetError": "errors",
    "Frame": "frames",
    "Pose": "frames",
    "Pipeline": "pipeline",
    "FrameResult": "results",
    "open_sink": "sinks",
    "open_source": "sources",
    "ModelSpec": "spec",
}

__all__ = [
    "Bundle",
    "Frame",
    "FrameResult",
    "Model",
    "ModelSpec",
    "Pipeline",
    "Pose",
    "SpatialNetError",
    "__version__",
    "load",
    "open_bundle",
    "open_sink",
    "open_source",
    "stream",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'spatialnet_edge' has no attribute '{name}'")
    return getattr(import_module(f"spatialnet_edge.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
