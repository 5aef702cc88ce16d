"""Facts about this computer: its cores, its processor and its power mode."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> str:
    """System, architecture, cores and processor in one line."""
    return f"{platform.system()} {platform.machine()}, {cores()} cores, {processor()}"


def processor() -> str:
    """The processor's name, if the system reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    return names[0] if names else "unknown processor"


NVPMODEL_STATUS = Path("/var/lib/nvpmodel/status")
"""Pattern for the number of a Jetson's current power mode: "pmode:0002"."""
NVPMODEL_CONFIG = Path("/etc/nvpmodel.conf")
"""Pattern for the names of its power modes: "< POWER_MODEL ID=2 NAME=MODE_30W >"."""


def power_mode(status: Path = NVPMODEL_STATUS, config: Path = NVPMODEL_CONFIG) -> str | None:
    """The name of a Jetson's current power mode, such as "MAXN" or "15W"; None on other computers."""
    try:
        number = re.search(r"pmode:0*(\d+)", status.read_text(encoding="utf-8", errors="replace"))
        text = config.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    if number is None:
        return None
    name = re.search(rf"POWER_MODEL\s+ID={number[1]}\s+NAME=(\S+)", text)
    return name[1] if name else number[1]
