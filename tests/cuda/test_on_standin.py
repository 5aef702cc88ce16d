"""Runs the tests in `inside/` on a stand-in of NVIDIA's driver, with the real pycuda and the real cuda-bindings.

Each one runs in a separate process, because a loaded libcuda stays loaded, and other tests must not find a GPU.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from standin import HERE, build_standin, compiler

from spatialnet_edge.core.errors import EngineUnavailable, MissingExtra
from spatialnet_edge.engines.devices.registry import DEVICES, open_device

LIBRARIES = {"pycuda": "pycuda", "cuda-bindings": "cuda"}
"""Distribution to import name."""
CHECKS = sorted((HERE / "inside").glob("check_*.py"))


@pytest.fixture(scope="module")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not sys.platform.startswith("linux") or not compiler():
        pytest.skip("the stand-in of libcuda needs Linux and a C compiler")
    return build_standin(tmp_path_factory.mktemp("standin"))


@pytest.mark.fault(25)
@pytest.mark.fault(33)
@pytest.mark.fault(34)
@pytest.mark.timeout(900)
@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("checks", CHECKS, ids=lambda path: path.stem)
def test_on_the_standin(checks: Path, library: str, standin: Path) -> None:
    if importlib.util.find_spec(LIBRARIES[library]) is None:
        pytest.skip(f"{library} is not installed; 'make test-cuda' compiles pycuda without a GPU")
    paths = [HERE / "played", HERE / "inside", HERE, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    environment = os.environ | {
        "LD_LIBRARY_PATH": str(standin),
        "PYTHONPATH": os.pathsep.join(str(path) for path in paths if str(path)),
        "CUDA_LIBRARY": library,
    }
    command = [sys.executable, "-m", "pytest", str(checks), "-o", "python_files=check_*.py", "-p", "no:cacheprovider", "-x"]
    command += ["-p", "standin_fixtures"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=880, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


@pytest.mark.parametrize("library", DEVICES)
def test_without_a_library_or_a_gpu_it_says_so(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if Path("/dev/nvidia0").exists():
        pytest.skip("there is a GPU here")
    with pytest.raises((MissingExtra, EngineUnavailable)):
        open_device(library)
    for name in ("pycuda.driver", "cuda.bindings.driver"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match=r"\[(jetson|cuda)\]"):
        open_device(library)
    with pytest.raises(MissingExtra, match=r"'cuda-bindings' .*\[cuda\]"):
        open_device()
