"""The acceptance run on the stand-in of the driver: every check is made, none is skipped."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import tensorrt
from typer.testing import CliRunner

from conftest import ROOT, SAMPLES
from spatialnet_edge.bundle.reader import open_bundle
from spatialnet_edge.cli.app import app
from spatialnet_optimize.build import labelled_data
from spatialnet_optimize.build.build import Job, build


def test_every_check_is_made_on_a_gpu(tmp_path: Path, discrete: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labelled_data, "shipped_samples", lambda: ())
    monkeypatch.setenv("PATH", f"{ROOT / 'tests' / 'cuda' / 'played' / 'bin'}{os.pathsep}{os.environ['PATH']}")
    labelled = (SAMPLES / "ucmerced.zip",)
    job = Job(open_bundle("builtin:student"), "orin-nano", tmp_path / "orin.snb", labelled=labelled, precision="fp16")
    prepared = build(job)[0]
    finished = build(Job(prepared, "here", tmp_path / "done.snb"))[0]
    options = ["--labelled", str(next(SAMPLES.glob("*.zip"))), "--soak", "1", "--runs", "20", "--opens", "4"]
    done = CliRunner().invoke(app, ["accept", str(finished.path), *options, "--json", str(tmp_path / "a.json")])
    found = json.loads((tmp_path / "a.json").read_text())
    outcomes = {verdict["check"]: verdict["outcome"] for verdict in found["verdicts"]}
    assert set(outcomes.values()) <= {"pass", "fail"}, done.output
    assert {name for name, outcome in outcomes.items() if outcome == "fail"} <= {"soak"}, (
        done.output
    )  # others use this computer
    verdicts = {verdict["check"]: verdict for verdict in found["verdicts"]}
    assert "Format/Datatype" in verdicts["layers"]["figures"]["inspector"]
    latencies = verdicts["latency"]["figures"]
    assert {name.rpartition(", ")[0] for name in latencies} == {
        f"{memory}, {how}" for memory in ("mapped", "pinned", "pageable") for how in ("graphs", "layer by layer")
    }
    assert verdicts["trtexec"]["figures"]["batch 1"]["trtexec"]["p50"] == 1.5  # what the played program writes
    assert f"built with TensorRT 0.0; here {tensorrt.__version__}" in verdicts["wrong version"]["found"]
    assert "layer by layer: " in verdicts["failed capture"]["found"]
    assert verdicts["out of memory"]["found"].startswith("model.onnx runs; ")
