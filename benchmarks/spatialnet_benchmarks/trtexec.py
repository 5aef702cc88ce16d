"""Run NVIDIA's program `trtexec` on a bundle's plan, to compare its latency with ours.

Options: NVIDIA, TensorRT documentation, "Command-Line Programs"; github.com/NVIDIA/TensorRT,
`samples/common/sampleOptions.cpp`. `--exportTimes` writes one object per inference; its `latencyMs` is copy to the device,
compute, copy back (`sampleReporting.cpp`).
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.bundle.manifest import EngineRecord
from spatialnet_edge.core.errors import EngineUnavailable
from spatialnet_edge.core.spec import IMAGE_INPUT

JETPACK = Path("/usr/src/tensorrt/bin/trtexec")
"""Path in JetPack's installation, which is not on the PATH."""
WARM_UP_MS = 500
TIMEOUT_S = 300


def find_trtexec() -> str:
    """The program's path; empty if it is not installed."""
    return shutil.which("trtexec") or (str(JETPACK) if JETPACK.exists() else "")


def command(program: str, record: EngineRecord, profile: int, shape: Sequence[int], runs: int) -> list[str]:
    """The program's arguments, for a folder with `model.plan`; the times go to `times.json`.

    Args:
        profile: number of the plan's optimisation profile.
        shape: of the input, batch first.
    """
    words = [
        program,
        "--loadEngine=model.plan",
        f"--shapes={IMAGE_INPUT}:{'x'.join(map(str, shape))}",
        f"--useProfile={profile}",
    ]
    words += [f"--iterations={runs}", "--duration=0", f"--warmUp={WARM_UP_MS}", "--exportTimes=times.json"]
    if record.version_compatible:
        words.append("--versionCompatible")
    if record.dla_core is None:
        return [*words, "--useCudaGraph"]
    return [*words, f"--useDLACore={record.dla_core}"]


def latencies_of(words: Sequence[str], plan: bytes) -> NDArray[np.float64]:
    """Milliseconds of each inference, measured by the program.

    Raises:
        EngineUnavailable: the program failed; with its last line.
    """
    with TemporaryDirectory() as folder:
        Path(folder, "model.plan").write_bytes(plan)
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        times = Path(folder, "times.json")
        if done.returncode or not times.exists():
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()
            raise EngineUnavailable(f"trtexec ended with {done.returncode}: {said[-1] if said else 'it wrote nothing'}")
        return np.array([float(each["latencyMs"]) for each in json.loads(times.read_text(encoding="utf-8"))])
