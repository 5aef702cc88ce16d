"""Errors for a sink's file that cannot be opened."""

from __future__ import annotations

import os

from spatialnet_edge.core.atomic_io import FULL
from spatialnet_edge.core.errors import SinkError, SinkRefused


def not_opened(where: str, error: OSError) -> SinkError | SinkRefused:
    """The error to raise: SinkError for a full disk, where a retry may succeed; SinkRefused if a person must change
    something."""
    if error.errno in FULL:
        return SinkError(f"{where}: {error.strerror}")
    return SinkRefused(f"{where}: cannot be written by user {os.geteuid()}: {error.strerror}; choose another path")
