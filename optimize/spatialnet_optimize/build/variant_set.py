"""The variants of a build. This module needs only the runtime's libraries, because devices use it too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from spatialnet_edge.bundle.manifest import LayerSensitivity


@dataclass(frozen=True, slots=True)
class Variants:
    """The graphs of a build.

    Attributes:
        contents: name to graph, the FP32 reference first.
        sensitivity: of a search, the effect of INT8 on each single layer.
        prepared: whether the graphs passed the gates on the computer that prepared the bundle.
    """

    contents: Mapping[str, bytes]
    sensitivity: tuple[LayerSensitivity, ...] = ()
    prepared: bool = False
