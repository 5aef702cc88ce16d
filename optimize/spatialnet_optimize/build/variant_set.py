"""The variants of a build, as a device receives them too: no library beyond the runtime's is needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from spatialnet_edge.bundle.manifest import LayerSensitivity


@dataclass(frozen=True, slots=True)
class Variants:
    """Graphs by name, the FP32 reference first; and of a search, what INT8 does to each layer alone."""

    contents: Mapping[str, bytes]
    sensitivity: tuple[LayerSensitivity, ...] = ()
