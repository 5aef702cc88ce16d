"""The measurement environment: device, power mode, clocks, temperatures, versions."""

from __future__ import annotations

import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from spatialnet_edge import __version__
from spatialnet_edge.core.hardware_info import cores, processor
from spatialnet_edge.service.throttle import conditions

BOARD = Path("/proc/device-tree/model")
CLOCKS = Path("/sys/devices/system/cpu")
LIBRARIES = ("onnxruntime", "opencv-python-headless", "numpy", "openvino", "torch", "tensorrt", "tensorrt-rtx-cu13")
UNKNOWN = "unknown"


def environment() -> dict[str, Any]:
    """Facts that do not change during a run."""
    versions = {"spatialnet-edge": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    board = BOARD.read_text(errors="replace").strip("\0\n ") if BOARD.exists() else processor()
    return {
        "device": board,
        "machine": f"{platform.system()} {platform.release()} {platform.machine()}, {cores()} cores",
        "power_mode": power_mode(),
        "clock_governor": first_line(CLOCKS / "cpu0/cpufreq/scaling_governor") or UNKNOWN,
        "versions": versions,
    }


def state() -> dict[str, Any]:
    """Facts that change during a run; recorded at its start and at its end."""
    clocks = [first_line(path) for path in sorted(CLOCKS.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))]
    load = first_line(Path("/proc/loadavg")).split(" ")[0]
    return {
        "hottest_c": conditions().hottest_c,
        "clocks_mhz": [round(int(clock) / 1000) for clock in clocks if clock.isdigit()] or UNKNOWN,
        "load_1_min": float(load) if load else None,
    }


def power_mode() -> str:
    """A Jetson's power mode, as `nvpmodel -q` prints it."""
    program = shutil.which("nvpmodel")
    if program is None:
        return UNKNOWN
    done = subprocess.run([program, "-q"], capture_output=True, text=True, check=False, timeout=10)
    return " ".join(done.stdout.split()) or UNKNOWN


def first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").splitlines()[0].strip()
    except (OSError, IndexError, UnicodeDecodeError):
        return ""
