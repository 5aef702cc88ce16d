"""The model card has the metrics of the exported graph on its training data sets."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spatialnet_edge.cli.app import app
from spatialnet_training.data import dataset_registry as published
from spatialnet_training.data.datasets import load_published, load_split
from spatialnet_training.data.taxonomy import load_taxonomy
from spatialnet_training.loop.prediction import accuracies, predict
from spatialnet_training.loop.training_run import train
from spatialnet_training.networks.checkpoint import load_network
from training_fixtures import TINY_RUN


def test_a_card_has_the_figures_of_the_data_sets_that_the_model_learnt(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model was trained only on UC Merced: EuroSAT's classes match none of its heads, and RSSCN7 and AID are absent."""
    for name in ("eurosat", "ucmerced"):
        monkeypatch.setitem(published.FILES, name, f"{name}.zip")
    sources = {"ucmerced": data_root / "ucmerced.zip"}
    network = train(TINY_RUN, load_published(sources, 64), tmp_path / "run", "train this")
    bundle, card, notes = tmp_path / "tiny.snb", tmp_path / "tiny.md", tmp_path / "notes.md"
    notes.write_text("Trained in a test.")
    runner = CliRunner()
    result = runner.invoke(app, ["export", str(network), "-o", str(bundle)])
    assert result.exit_code == 0, result.output
    log = str(tmp_path / "run" / "log.csv")
    options = ["--data-root", str(data_root), "--log", log, "--notes", str(notes), "-o", str(card)]
    result = runner.invoke(app, ["card", str(bundle), *options])
    assert result.exit_code == 0, result.output
    record = json.loads(card.with_suffix(".json").read_text())
    assert list(record["data_sets"]) == ["ucmerced"]
    val = load_split(sources, load_taxonomy(), "val", 256)
    expected = accuracies(predict(load_network(network)[0], val, 48), val)
    found = {each["head"]: each.get("accuracy") for each in record["data_sets"]["ucmerced"]}
    for head in ("land_use_ucmerced", "land_use", "settlement"):
        assert found[head] == pytest.approx(expected[head], abs=1e-5)
    text = card.read_text()
    assert "train this" in text
    assert "Trained in a test." in text
    assert f"| ucmerced | `land_use_ucmerced` | {len(val)} | {100 * expected['land_use_ucmerced']:.2f} |" in text
    assert "| `land_use_ucmerced` | 1.6 |" in text  # 256 pixels of 0.3 m become 48
    for plot in ("confusion", "curves", "robustness", "risk"):
        assert f"tiny.{plot}.png" in text
        assert (tmp_path / f"tiny.{plot}.png").stat().st_size > 5000
    result = runner.invoke(app, ["card", str(bundle), *options, "--corrupted", "0"])
    assert result.exit_code == 0, result.output
    assert "## Degraded pictures" in text
    assert "## Degraded pictures" not in card.read_text()
