"""Ablation and missing modalities, on runs of seconds."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from typer.testing import CliRunner

from spatialnet_edge.cli.app import app
from spatialnet_edge.core.errors import UsageError
from spatialnet_training.config import TrainConfig
from spatialnet_training.data import dataset_registry as published
from spatialnet_training.data.bands import groups_named
from spatialnet_training.data.datasets import TrainingData, load_published, load_split
from spatialnet_training.data.samples import Samples
from spatialnet_training.loop.training_run import train
from spatialnet_training.networks.checkpoint import load_network, save_network
from spatialnet_training.networks.model import SpatialNet
from spatialnet_training.studies import soup
from spatialnet_training.studies.ablation import BASE, Outcome, markdown, variants
from spatialnet_training.studies.intervals import Interval, over_images, over_seeds
from spatialnet_training.studies.missing_bands import judge, subsets
from spatialnet_training.studies.modality_table import WITHHELD, Row, gains_table, record
from spatialnet_training.studies.modality_table import markdown as modality_markdown
from spatialnet_training.studies.soup import best_of, mixed, related
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
    assert "| no positions | 80.0 | -5.0 (-68.5 to +58.5) | 80.0, 80.0 |" in text  # t of one degree of freedom is 12.7


def test_intervals_hold_what_they_should() -> None:
    chance = np.random.default_rng(3)
    held = 0
    for _ in range(100):
        interval = over_images(chance.random((3, 200)) < 0.8)
        assert interval.low < interval.mean < interval.high
        held += interval.low <= 0.8 <= interval.high
    assert held >= 90
    assert over_seeds(np.array([0.5])).high == np.inf
    narrow, wide = over_seeds(np.array([0.5, 0.5, 0.5])), over_seeds(np.array([0.4, 0.5, 0.6]))
    assert narrow.low == narrow.high == 0.5
    assert wide.high - wide.low == pytest.approx(2 * 4.303 * 0.1 / 3**0.5, rel=1e-3)


def test_alike_tiles_of_a_scene_do_not_make_an_interval_narrow() -> None:
    chance = np.random.default_rng(5)
    scenes = [str(number) for number in range(40) for _ in range(10)]
    held = {"tiles": 0, "scenes": 0}
    for _ in range(100):
        right = np.repeat(chance.random(40) < 0.7, 10)[None]  # a scene is wholly right or wholly wrong
        for name, interval in (("tiles", over_images(right)), ("scenes", over_images(right, scenes))):
            held[name] += interval.low <= 0.7 <= interval.high
    assert held["scenes"] >= 90
    assert held["tiles"] < 60
    assert over_images(np.array([[True, False]]), ["one", "one"]) == Interval(0.5)
    assert str(Interval(0.5)) == "50.0 %"


def test_gains_are_against_the_first_group_on_the_same_images() -> None:
    alone, both = np.array([[True, False, True, False]]), np.array([[True, True, True, False]])
    scenes = ("a", "a", "b", "c")
    rows = [
        Row(kept, {WITHHELD: right}, scenes) for kept, right in ((("rgb", "nir"), both), (("rgb",), alone), (("nir",), both))
    ]
    found = record(rows, "burned", "burned")
    assert found["scenes"] == 3
    assert found["gains_over"] == "rgb"
    assert [*found["gains"]["withheld"]] == ["rgb+nir", "nir"]
    assert found["gains"]["withheld"]["nir"]["mean"] == 0.25
    assert found["gains"]["withheld"]["nir"]["low"] == 0.0
    text = modality_markdown(found)
    assert "Points gained over `rgb` alone:" in text
    assert "| nir | +25.0 (+0.0 to +" in text
    assert gains_table(rows[:1]) is None
    assert "gains" not in record(rows[:1], "burned", "burned")


def test_the_ablation_command_trains_every_variant(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(published.FILES, "eurosat", "eurosat.zip")
    small = ["stages=[{size=32, epochs=1}]", "epoch_images=32", "batch=16", 'data={eurosat="eurosat.zip"}']
    overrides = [argument for each in small for argument in ("--set", each)]
    arguments = ["ablate", "--data-root", str(data_root), "--repeats", "1", "--output", str(tmp_path), *overrides]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "ablation.md").read_text().count("\n") == 11
    result = CliRunner().invoke(app, [*arguments, "--variants", "no positions, four registers"])
    assert result.exit_code == 0, result.output
    assert [*json.loads((tmp_path / "ablation.json").read_text())] == [BASE, "no positions", "four registers"]
    result = CliRunner().invoke(app, [*arguments, "--variants", "no position"])
    assert "no variant 'no position'; the variants are: as it is, " in str(result.exception)


def test_every_subset_of_the_bands_is_tried_the_largest_first() -> None:
    assert subsets(("rgb", "nir", "sar")) == [
        ("rgb", "nir", "sar"), ("rgb", "nir"), ("rgb", "sar"), ("nir", "sar"), ("rgb",), ("nir",), ("sar",),
    ]  # fmt: skip


def test_a_network_answers_with_any_band_missing(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(published.FILES, "eurosat", "eurosat.zip")
    groups = ("red", "green", "blue", "synthetic_thermal")
    config = replace(TINY_RUN, groups=groups, group_dropout=0.3, data={"eurosat": "eurosat.zip"})
    data = load_published({"eurosat": data_root / "eurosat.zip"}, 64, groups_named(groups))
    network = train(config, data, tmp_path, "test")
    head = "land_use_eurosat"
    own = dataclasses.replace(data.holdout, targets={head: data.holdout.targets[head]})
    found = judge(network, own, 48)
    assert len(found) == 15
    assert all(0 <= each.accuracy <= 1 for each in found)
    result = CliRunner().invoke(app, ["modalities", str(network), "--data-root", str(data_root)])
    assert result.exit_code == 0, result.output
    assert "red + green + blue" in result.output
    single = train(
        replace(TINY_RUN, data=config.data), load_published({"eurosat": data_root / "eurosat.zip"}, 64), tmp_path / "1", ""
    )
    result = CliRunner().invoke(app, ["modalities", str(single), "--data-root", str(data_root)])
    assert "nothing can be withheld" in str(result.exception)


def trained_further(config: TrainConfig, data: TrainingData, folder: Path) -> tuple[Path, Path]:
    """A network and one trained further from it."""
    first = train(config, data, folder / "first", "test")
    return first, train(replace(config, seed=1, start=str(first)), data, folder / "second", "test")


@pytest.fixture(scope="module")
def two(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, TrainingData]:
    """Two related networks of two data sets."""
    data = load_published({name: data_root / f"{name}.zip" for name in ("eurosat", "ucmerced")}, 48)
    return *trained_further(TINY_RUN, data, tmp_path_factory.mktemp("two")), data


def test_a_mixture_is_between_the_two_networks_and_its_ends_equal_them(two: tuple[Path, Path, TrainingData]) -> None:
    first, second, _ = two
    network, _, towards = related(first, second)
    states = [mixed(network, towards, share).state_dict() for share in (0.0, 0.5, 1.0)]
    ends = [load_network(path)[0].state_dict() for path in (first, second)]
    statistics = next(key for key in ends[0] if key.endswith("running_var"))  # of a batch norm
    for key in ("heads.land_use.weight", statistics):
        assert torch.equal(states[0][key], ends[0][key])
        assert torch.equal(states[2][key], ends[1][key])
        torch.testing.assert_close(states[1][key], (ends[0][key] + ends[1][key]) / 2)
        assert not torch.equal(ends[0][key], ends[1][key])


def test_the_share_with_the_lowest_held_out_loss_is_taken(two: tuple[Path, Path, TrainingData]) -> None:
    first, second, data = two
    best, found = best_of(first, second, data.holdout, (0.0, 0.5, 1.0))
    assert [each.share for each in found] == [0.0, 0.5, 1.0]
    assert best.reached.loss == min(each.reached.loss for each in found)
    assert set(best.reached.figures) >= {"land_use_eurosat", "land_use_ucmerced"}


def test_networks_that_are_not_related_are_refused(two: tuple[Path, Path, TrainingData], tmp_path: Path) -> None:
    first, _, data = two
    other = train(replace(TINY_RUN, backbone="student-2m", stages=TINY_RUN.stages[1:]), data, tmp_path, "test")
    with pytest.raises(UsageError, match="different shape"):
        related(first, other)


def test_heads_that_only_the_second_network_has_are_left_out(
    two: tuple[Path, Path, TrainingData], data_root: Path, tmp_path: Path
) -> None:
    config = replace(TINY_RUN, data={"ucmerced": "ucmerced.zip"})
    first = train(config, load_published({"ucmerced": data_root / "ucmerced.zip"}, 48), tmp_path / "first", "test")
    both = train(replace(TINY_RUN, seed=1, start=str(first)), two[2], tmp_path / "second", "test")
    network, spec, towards = related(first, both)
    assert "land_use_eurosat" not in {head.name for head in spec.heads}
    end, other = mixed(network, towards, 1.0), load_network(both)[0]
    shown = torch.rand(2, 3, 32, 32)
    answers, expected = end.eval()(shown), other.eval()(shown)
    for head in spec.heads:
        torch.testing.assert_close(answers[head.name], expected[head.name])
    with pytest.raises(UsageError, match="different heads"):
        related(both, first)


def test_the_command_writes_a_network(
    two: tuple[Path, Path, TrainingData], data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, _ = two
    monkeypatch.setattr(published, "FILES", {"eurosat": "eurosat.zip", "ucmerced": "ucmerced.zip"})
    out = tmp_path / "soup"
    done = CliRunner().invoke(app, ["soup", str(first), str(second), "--data-root", str(data_root), "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert "held-out loss" in done.output
    _, spec, provenance = load_network(out)
    assert spec.input.height == TINY_RUN.size
    assert "the rest of first" in provenance.source
    done = CliRunner().invoke(app, ["soup", "spatialnet-x", str(second), "--data-root", str(data_root), "-o", str(out)])
    assert "the name of a shipped one" in str(done.exception)
    done = CliRunner().invoke(app, ["soup", "spatialnet-m", str(second), "--data-root", str(data_root), "-o", str(out)])
    assert "have different heads or inputs" in str(done.exception)


def test_a_given_share_is_used_and_images_are_at_least_the_input_size(
    two: tuple[Path, Path, TrainingData], data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published, "FILES", {"eurosat": "eurosat.zip", "ucmerced": "ucmerced.zip"})
    sides: list[int] = []

    def watched(*given: Any) -> Samples:
        sides.append(given[-1])
        return load_split(*given)

    monkeypatch.setattr(soup, "load_split", watched)
    for height in (TINY_RUN.size, 160):
        first, second = (tmp_path / f"{height}_{name}" for name in ("first", "second"))
        for path in (first, second):
            _, spec, provenance = load_network(two[0])
            spec = replace(spec, input=replace(spec.input, height=height, width=height))
            network = SpatialNet(TINY_RUN.backbone, {head.name: head.width for head in spec.heads}, height)
            save_network(path, network, TINY_RUN.backbone, spec, provenance)
        out = tmp_path / "half"
        command = ["soup", str(first), str(second), "--data-root", str(data_root), "--share", "0.5", "-o", str(out)]
        assert CliRunner().invoke(app, command).exit_code == 0
        network, _, towards = related(first, second)
        half = mixed(network, towards, 0.5).state_dict()
        assert all(torch.equal(values, half[key]) for key, values in load_network(out)[0].state_dict().items())
    assert sides == [128, 160]


def test_networks_of_one_data_set_are_averaged_on_its_images_alone(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published, "FILES", {"eurosat": "eurosat.zip", "ucmerced": "not there.zip"})
    config = replace(TINY_RUN, data={"eurosat": "eurosat.zip"}, stages=TINY_RUN.stages[:1])
    data = load_published({"eurosat": data_root / "eurosat.zip"}, 48)
    first, second = trained_further(config, data, tmp_path)
    done = CliRunner().invoke(app, ["soup", str(first), str(second), "--data-root", str(data_root), "-o", str(tmp_path / "s")])
    assert done.exit_code == 0, done.output
    assert f"{len(data.holdout)} held-out training images" in done.output
