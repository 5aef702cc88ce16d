"""Studies on a user's own data: the baseline, near copies across the split, and averaged weights."""

import json
from pathlib import Path

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from spatialnet_edge.cli.app import app
from spatialnet_edge.core.errors import UsageError
from spatialnet_training.config import TrainingStage
from spatialnet_training.data.custom_dataset import load_own
from spatialnet_training.loop.training_run import train
from spatialnet_training.networks.checkpoint import load_spec
from spatialnet_training.networks.checkpoint_paths import located
from training_fixtures import TINY_RUN, own_images


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three copies of each image under other names, in different splits."""
    return own_images(tmp_path_factory.mktemp("own"), broken=False)


def test_the_baseline_evaluates_own_data(folder: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["baseline", "--data", str(folder), "--json", str(tmp_path / "figures.json")])
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "figures.json").read_text())["mine"] > 0.9  # water and forest
    result = CliRunner().invoke(app, ["baseline", "--data", str(folder), "--by-place", "--json", str(tmp_path / "place.json")])
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "place.json").read_text())["mine"]["place"]["mean"] > 0.9
    result = CliRunner().invoke(app, ["baseline", "--data", str(folder), "--group", "[0-9]+"])
    assert isinstance(result.exception, UsageError)


def test_near_copies_of_own_data_are_named(folder: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["duplicates", "--data", str(folder), "--json", str(tmp_path / "copies.json")])
    assert result.exit_code == 0, result.output
    copies = json.loads((tmp_path / "copies.json").read_text())
    assert copies
    same = [copy for copy in copies if copy["val"].partition("_")[2] == copy["train"].partition("_")[2]]
    assert len(same) == len(copies)
    assert copies[0]["bits"] == 0
    assert "train --group" in result.output


def test_own_data_or_published_data_must_be_given() -> None:
    for command in (["baseline"], ["duplicates"], ["card", "builtin:spatialnet-s"], ["front", "spatialnet-s"]):
        result = CliRunner().invoke(app, command)
        assert isinstance(result.exception, UsageError)
        assert "either --data with your own images, or --data-root" in str(result.exception)


def test_own_held_out_images_select_the_averaged_weights(folder: Path, tmp_path: Path) -> None:
    data = load_own(folder, 64)
    config = replace(TINY_RUN, data={}, stages=(TrainingStage(size=32, epochs=1),), ema_decay=0.8)
    first = train(config, data, tmp_path / "first", "test").parent
    train(replace(config, start=str(first), seed=1), data, tmp_path / "second", "test")
    record = first / "dataset.json"
    command = ["soup", str(first), str(tmp_path / "second"), "--data", str(record), "-o", str(tmp_path / "soup")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, (result.output, result.exception)
    assert f"{len(data.holdout)} held-out training images" in result.output
    assert load_spec(tmp_path / "soup").heads[0].name == "land_use"


def test_a_card_and_the_front_are_of_own_data(folder: Path, tmp_path: Path) -> None:
    """One short run: its bundle on own validation images, its sizes on own held-out training images."""
    data = load_own(folder, 64)
    config = replace(TINY_RUN, data={}, stages=(TrainingStage(size=32, epochs=1),), ema_decay=0.8)
    run = train(config, data, tmp_path / "run", "test").parent
    record, bundle, card = str(run / "dataset.json"), str(tmp_path / "mine.snb"), tmp_path / "mine.md"
    result = CliRunner().invoke(
        app, ["front", str(run), "--data", record, "--size", "32,64", "-o", str(tmp_path / "front.png")]
    )
    assert result.exit_code == 0, (result.output, result.exception)
    assert f"{len(data.holdout)} held-out training images" in result.output
    points = json.loads((tmp_path / "front.json").read_text())
    assert {point["name"] for point in points} == {"run 32", "run 64"}
    assert CliRunner().invoke(app, ["export", str(run), "-o", bundle]).exit_code == 0
    result = CliRunner().invoke(app, ["card", bundle, "--data", record, "--log", str(run / "log.csv"), "-o", str(card)])
    assert result.exit_code == 0, (result.output, result.exception)
    assert data.val is not None
    (figures,) = json.loads(card.with_suffix(".json").read_text())["data_sets"]["mine"]
    assert (figures["head"], figures["images"]) == ("land_use", len(data.val))
    text = card.read_text()
    assert "on the `val` images of mine, none of" in text
    assert "AiTLAS" not in text
    assert (tmp_path / "mine.confusion.png").stat().st_size > 5000


def test_the_front_refuses_a_network_of_other_classes(folder: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, ["front", str(located("spatialnet-s")), "--data", str(folder), "-o", str(tmp_path / "front.png")]
    )
    assert isinstance(result.exception, UsageError)
    assert "does not have the classes of 'land_use'" in str(result.exception)
