"""`accept` on this computer's CPU: every check is made or skipped with its reason. `tests/cuda` runs it with a GPU's
stand-in."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from conftest import SAMPLES
from spatialnet_benchmarks.acceptance_checks import answers, cameras, soak, termination
from spatialnet_benchmarks.acceptance_run import AcceptanceRun, Outcome
from spatialnet_edge.bundle.reader import open_bundle
from spatialnet_edge.cli.app import app
from spatialnet_edge.engines.fake import FakeEngine
from spatialnet_edge.engines.registry import FALLBACK, LoadedEngine
from spatialnet_training.data.labelled_dataset import open_labelled

LABELLED = next(SAMPLES.glob("*.zip"))


def test_the_cpu_is_accepted_and_what_needs_a_gpu_is_skipped(tmp_path: Path) -> None:
    options = ["--labelled", str(LABELLED), "--soak", "2", "--runs", "20", "--opens", "4"]
    files = ["--json", str(tmp_path / "a.json"), "--html", str(tmp_path / "a.html")]
    done = CliRunner().invoke(app, ["accept", "builtin:student", *options, *files])
    found = json.loads((tmp_path / "a.json").read_text())
    outcomes = {verdict["check"]: verdict["outcome"] for verdict in found["verdicts"]}
    busy = {"soak"}  # latency is not tested: other programs may use the computer
    skipped = {"layers", "trtexec", "wrong version", "failed capture", "out of memory"}
    assert {name for name, outcome in outcomes.items() if outcome == "skip"} == skipped
    assert {name for name, outcome in outcomes.items() if outcome == "fail"} <= busy, done.output
    assert found["accepted"] is (outcomes["soak"] == "pass")
    assert done.exit_code == (0 if found["accepted"] else 1)
    assert "p99.9" in done.output
    page = (tmp_path / "a.html").read_text()
    assert "<table>" in page
    assert "{&#x27;" not in page  # no Python in the table of facts


def test_a_command_without_a_result_fails_the_check_of_termination(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spatialnet_benchmarks.acceptance_checks.START_S", 0.01)
    verdict = termination(AcceptanceRun(open_bundle("builtin:student"), open_labelled(LABELLED), 0.1, 20, 2))
    assert verdict.outcome is Outcome.FAIL
    assert "without a result" in verdict.found


class Wrong:
    """Returns the outputs of the previous frame."""

    def __init__(self) -> None:
        bundle = open_bundle("builtin:student")
        self.spec, self.reentrant = bundle.spec, True
        self._right, self._last = FakeEngine(bundle.spec), None

    def infer(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        found = self._last or self._right.infer(batch)
        self._last = self._right.infer(batch)
        return dict(found)

    def close(self) -> None: ...


def test_answers_that_cross_cameras_and_change_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    module = "spatialnet_benchmarks.acceptance_checks"
    monkeypatch.setattr("spatialnet_benchmarks.acceptance_run.open_engine", lambda bundle: LoadedEngine(Wrong(), FALLBACK, ()))
    run = AcceptanceRun(open_bundle("builtin:student"), open_labelled(LABELLED), 0.1, 20, 2)
    run.images = run.images[:20]
    assert cameras(run).outcome is Outcome.FAIL
    assert answers(run).outcome is Outcome.FAIL
    sizes = iter(range(0, 10_000, 100))
    monkeypatch.setattr(f"{module}.resident_mb", lambda: float(next(sizes)))
    monkeypatch.setattr(f"{module}.SLOWER", 1e9)
    run.runs = 400
    assert soak(run).outcome is Outcome.FAIL
