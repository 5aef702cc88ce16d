"""`train` from Python, and what its result is good for: a bundle that classifies."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import spatialnet_edge
from spatialnet_edge.core.errors import UsageError
from spatialnet_optimize.api import evaluate, export
from spatialnet_training.api import train
from spatialnet_training.cli.next_steps import next_commands
from spatialnet_training.cli.train_options import Recipe
from spatialnet_training.data.custom_dataset import load_own
from spatialnet_training.lineage import command_line
from spatialnet_training.networks.checkpoint import load_network

SETTINGS = ('backbone="student-1m"', "linear_head=false", 'fine_tune="always"', "epoch_images=160", "batch=16")


def fields(folder: Path) -> Path:
    """Forty bright and forty dark pictures of 32 pixels."""
    chance = np.random.default_rng(0)
    for label, level in (("bright", 200), ("dark", 50)):
        (folder / label).mkdir(parents=True)
        for number in range(40):
            levels = np.clip(level + chance.integers(-30, 30, (32, 32, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(levels).save(folder / label / f"{number}.png")
    return folder


def test_train_gives_a_checkpoint_that_becomes_a_bundle(tmp_path: Path) -> None:
    data, output = fields(tmp_path / "fields"), tmp_path / "run"
    checkpoint = train(data, output, start="scratch", epochs=1, size=32, seed=3, settings=SETTINGS)
    assert checkpoint == output / "model.safetensors"
    _, spec, provenance = load_network(output)
    (head,) = spec.heads
    assert head.labels == ("bright", "dark")
    assert "spatialnet_training.api.train" in provenance.command
    assert (output / "log.csv").read_text().count("\n") == 2

    bundle = export(output, tmp_path / "fields.snb", golden=data)
    assert evaluate(bundle.path, data).scores[0].images == 80
    with spatialnet_edge.load(bundle.path) as model:
        found = model(data / "dark" / "0.png")[head.name]
    assert sum(found.probabilities) == pytest.approx(1, abs=1e-4)

    assert train(data, output, start="scratch", epochs=1, size=32, seed=3, settings=SETTINGS) == checkpoint
    with pytest.raises(UsageError, match="--output"):
        train(data, output, start="scratch", epochs=1, size=32, seed=4, settings=SETTINGS)


def test_train_names_an_unknown_configuration(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no configuration 'folders'"):
        train(tmp_path, tmp_path / "run", config="folders")


def test_a_start_brings_its_backbone_unless_another_one_is_named() -> None:
    shipped = Recipe(start="spatialnet-s").read(own=True)
    assert (shipped.start, shipped.backbone) == ("spatialnet-s", "student-2m")
    assert Recipe(start="spatialnet-s", backbone="student-3m").read(own=True).backbone == "student-3m"
    assert Recipe(start="spatialnet-s", set_=["backbone=student-3m"]).read(own=True).backbone == "student-3m"
    assert Recipe(start="spatialnet-m", config="spatialnet-vit").read(own=False).backbone.startswith("spatialnet-vit+")
    assert Recipe().read(own=True).backbone == "timm-trunk:tf_efficientnet_lite0"


def test_printed_commands_can_be_pasted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.argv", ["spatialnet-edge", "train", "--set", "stages=[{size=64, epochs=1}]", "-o", "my runs/a"])
    assert command_line() == "spatialnet-edge train --set 'stages=[{size=64, epochs=1}]' -o 'my runs/a'"
    data = load_own(fields(tmp_path / "fields"), 32)
    assert next_commands(Path("my runs/a b"), data)[0] == (
        "next: spatialnet-edge build 'my runs/a b' --labelled 'my runs/a b/dataset.json' -o 'a b.snb'"
    )
