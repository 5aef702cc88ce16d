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
    from spatialnet_edge.bundle.reader import Bundle as Bundle
    from spatialnet_edge.bundle.reader import open_bundle as open_bundle
    from spatialnet_edge.core.errors import SpatialNetError as SpatialNetError
    from spatialnet_edge.core.frames import Frame as Frame
    from spatialnet_edge.core.frames import Pose as Pose
    from spatialnet_edge.core.frames import Skipped as Skipped
    from spatialnet_edge.core.results import FrameResult as FrameResult
    from spatialnet_edge.core.spec import ModelSpec as ModelSpec
    from spatialnet_edge.runtime.options import StreamOptions as StreamOptions
    from spatialnet_edge.runtime.stream import Stream as Stream
    from spatialnet_edge.sinks.registry import Sink as Sink
    from spatialnet_edge.sinks.registry import open_sink as open_sink
    from spatialnet_edge.sources.registry import Source as Source
    from spatialnet_edge.sources.registry import open_source as open_source

_PUBLIC = {
    "Model": "api",
    "load": "api",
    "stream": "api",
    "Bundle": "bundle.reader",
    "open_bundle": "bundle.reader",
    "SpatialNetError": "core.errors",
    "Frame": "core.frames",
    "Pose": "core.frames",
    "Skipped": "core.frames",
    "Stream": "runtime.stream",
    "StreamOptions": "runtime.options",
    "Sink": "sinks.registry",
    "Source": "sources.registry",
    "FrameResult": "core.results",
    "open_sink": "sinks.registry",
    "open_source": "sources.registry",
    "ModelSpec": "core.spec",
}

__all__ = [
    "Bundle",
    "Frame",
    "FrameResult",
    "Model",
    "ModelSpec",
    "Pose",
    "Sink",
    "Skipped",
    "Source",
    "SpatialNetError",
    "Stream",
    "StreamOptions",
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
