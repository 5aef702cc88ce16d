"""Ablation and missing modalities, on runs of seconds."""

from pathlib import Path

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from spatialnet_edge.cli.app import app
from spatialnet_training import published
from spatialnet_training.ablation import BASE, Outcome, markdown, variants
from spatialnet_training.bands import groups_named
from spatialnet_training.datasets import load_published
from spatialnet_training.modalities import judge, withheld
from spatialnet_training.model import SpatialNet
from spatialnet_training.run import train
from training_fixtures import TINY_RUN


def test_every_variant_differs_from_the_base_in_one_thing_and_can_be_built() -> None:
    base = replace(TINY_RUN, backbone="student-1m", mixup_share=0.2)
    (name, first), *others = variants(base)
    assert (name, first) == (BASE, base)
    assert len({name for name, _ in others}) == len(others) == 8
    for name, config in others:
        assert config != base, name
        SpatialNet(config.backbone, {"a": 2}, 32)


def test_mean_pooling_stays_the_mean() -> None:
    network = SpatialNet("student-1m/mean-pooling", {"a": 2}, 32)
    assert not any(parameter.requires_grad for parameter in network.pooling.parameters())
    assert (network.pooling.query == 0).all()


def test_the_table_says_what_each_variant_costs() -> None:
    text = markdown([Outcome(BASE, (0.8, 0.9)), Outcome("no positions", (0.8, 0.8))])
    assert "| as it is | 85.0 | +0.0 | 80.0, 90.0 |" in text
    assert "| no positions | 80.0 | -5.0 | 80.0, 80.0 |" in text


def test_the_ablation_command_trains_every_variant(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(published.FILES, "eurosat", "eurosat.zip")
    small = ["stages=[{size=32, epochs=1}]", "epoch_images=32", "batch=16", 'data={eurosat="eurosat.zip"}']
    overrides = [argument for each in small for argument in ("--set", each)]
    arguments = ["ablate", "--data-root", str(data_root), "--seeds", "1", "--out", str(tmp_path), *overrides]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "ablation.md").read_text().count("\n") == 11


def test_what_is_withheld_goes_from_nothing_to_all_but_one() -> None:
    names = withheld(groups_named(("red", "green", "blue")))
    assert names[0] == ()
    assert set(names) == {(), ("red",), ("green",), ("blue",), ("red", "green"), ("red", "blue"), ("green", "blue")}
    assert withheld(groups_named(("rgb", "sar"))) == [(), ("rgb",), ("sar",)]


def test_a_network_answers_with_any_band_missing(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(published.FILES, "eurosat", "eurosat.zip")
    groups = ("red", "green", "blue", "synthetic_thermal")
    config = replace(TINY_RUN, groups=groups, group_dropout=0.3, data={"eurosat": "eurosat.zip"})
    data = load_published({"eurosat": data_root / "eurosat.zip"}, 64, groups_named(groups))
    network = train(config, data, tmp_path, "test")
    found = dict(judge(network, data.tune, 48))
    assert len(found) == 9
    assert all(0 <= value <= 1 for figures in found.values() for value in figures.values())
    result = CliRunner().invoke(app, ["modalities", str(network), "--data-root", str(data_root)])
    assert result.exit_code == 0, result.output
    assert "red + green + blue" in result.output
    single = train(
        replace(TINY_RUN, data=config.data), load_published({"eurosat": data_root / "eurosat.zip"}, 64), tmp_path / "1", ""
    )
    result = CliRunner().invoke(app, ["modalities", str(single), "--data-root", str(data_root)])
    assert "nothing to withhold" in str(result.exception)
