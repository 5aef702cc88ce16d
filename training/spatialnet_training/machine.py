"""What this is trained or built on, for the record."""

from __future__ import annotations

import platform
from pathlib import Path

from spatialnet_edge.api import cores


def machine() -> str:
    """System, architecture, cores and processor in one line."""
    return f"{platform.system()} {platform.machine()}, {cores()} cores, {processor()}"


def processor() -> str:
    """The processor's own name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    return names[0] if names else "unknown processor"
