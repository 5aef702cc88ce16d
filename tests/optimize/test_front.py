"""Accuracy against latency."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spatialnet_edge.cli.app import app
from spatialnet_optimize.evaluation.pareto import Point, on_front
from spatialnet_training.data import dataset_registry as published
from spatialnet_training.data.datasets import load_published
from spatialnet_training.loop.training_run import train
from training_fixtures import TINY_RUN


def test_the_front_is_what_nothing_else_beats() -> None:
    points = [
        Point("slow good", 1, 1, 0.9, 0.1, 5.0),
        Point("fast", 1, 1, 0.7, 0.3, 1.0),
        Point("slow bad", 1, 1, 0.6, 0.4, 4.0),
    ]
    points.append(Point("same, slower", 1, 1, 0.9, 0.1, 6.0))
    assert [(point.network, point.best) for point in on_front(points)] == [
        ("fast", True),
        ("slow bad", False),
        ("slow good", True),
        ("same, slower", False),
    ]


def test_the_command_measures_every_size(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("eurosat", "ucmerced"):
        monkeypatch.setitem(published.FILES, name, f"{name}.zip")
    data = load_published({name: data_root / f"{name}.zip" for name in ("eurosat", "ucmerced")}, 64)
    network = train(TINY_RUN, data, tmp_path / "run", "test")
    output = tmp_path / "front.png"
    monkeypatch.chdir(network.parent)  # the folder names the network, given or not
    arguments = ["front", network.name, "--data-root", str(data_root), "--size", "32,96", "-o", str(output)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    small, large = json.loads(output.with_suffix(".json").read_text())
    assert small["name"] == "run 32"
    assert small["best"]
    assert min(small["loss"], large["loss"]) > 0
    assert small["loss"] != large["loss"]
    assert large["p50_ms"] > small["p50_ms"]
    assert output.stat().st_size > 5000
    result = CliRunner().invoke(app, [*arguments[:5], "30", "-o", str(output)])
    assert "30 is not a multiple of 16" in str(result.exception)
