"""Why a sink's file cannot be made, and whether waiting helps."""

from __future__ import annotations

import os

from spatialnet_edge.core.atomic_io import FULL
from spatialnet_edge.core.errors import SinkError, SinkRefused


def not_opened(where: str, error: OSError) -> SinkError | SinkRefused:
    """What to raise: SinkError on a full disk, which may have room later; SinkRefused where a person has to change something."""
    if error.errno in FULL:
        return SinkError(f"{where}: {error.strerror}")
    return SinkRefused(f"{where}: cannot be written by user {os.geteuid()}: {error.strerror}; choose another path")
