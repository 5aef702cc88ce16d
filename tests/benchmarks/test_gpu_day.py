"""The plan for the first day with a GPU: every step is rehearsed on the stand-in of the driver."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT

sys.path.insert(0, str(ROOT / "tests" / "cuda"))
from standin import compiler

DAY = ROOT / "benchmarks" / "gpu_day" / "day.py"
MINUTES = 30


def run(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(DAY), *options], capture_output=True, text=True, timeout=600, check=False)


@pytest.mark.timeout(900)
def test_every_step_is_rehearsed_and_claims_no_figure(tmp_path: Path) -> None:
    if not compiler() or importlib.util.find_spec("cuda") is None:
        pytest.skip("the rehearsal needs a C compiler and cuda-bindings")
    done = run("--rehearse", "--out", str(tmp_path))
    day = json.loads((tmp_path / "day.json").read_text())
    outcomes = {each["step"]: each["outcome"] for each in day["steps"]}
    assert done.returncode == 0, done.stdout + "".join(path.read_text()[-2000:] for path in tmp_path.glob("*.log"))
    passed = {name for name, outcome in outcomes.items() if outcome == "pass"}
    assert passed >= {"facts", "cuda-bindings", "torch-engine", "tensorrt", "training"}
    assert set(outcomes) - passed <= {"pycuda", "onnxruntime"}
    assert day["device"] == "rehearsal: no GPU"
    assert all(each["figures"] is None for each in day["steps"])


def test_without_a_gpu_nothing_is_claimed(tmp_path: Path) -> None:
    if Path("/dev/nvidia0").exists():
        pytest.skip("there is a GPU here")
    done = run("--out", str(tmp_path))
    assert done.returncode == 1
    assert "no NVIDIA GPU here, so nothing is measured" in done.stderr
    assert not (tmp_path / "day.json").exists()


def test_a_step_that_breaks_or_takes_too_long_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DAY.parent))
    day, steps = importlib.import_module("day"), importlib.import_module("steps")
    monkeypatch.setattr(day, "PLAN", {"facts": steps.Step(steps.facts, 0.1)})
    record = day.supervised(steps.Day(tmp_path, rehearsal=True), "facts", {})
    assert record["outcome"] == "fail"
    assert "ended with -9" in record["found"]
    assert sum(step.limit_s for step in steps.PLAN.values()) <= 60 * MINUTES
    assert max(step.limit_s for step in steps.PLAN.values()) < 600
