"""Data sets with measured bands: partial labels and partial band groups in one run."""

import sys
from dataclasses import replace as replace_fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from msgspec.structs import replace
from numpy.typing import NDArray

from conftest import SHARED
from spatialnet_edge.core.bands import present_groups
from spatialnet_edge.core.errors import NotInstalled, UsageError
from spatialnet_training.data.bands import groups_named
from spatialnet_training.data.datasets import load_published, load_split
from spatialnet_training.data.measured_sets import MEASURED, scene_of
from spatialnet_training.data.taxonomy import load_taxonomy
from spatialnet_training.loop.training_run import train
from spatialnet_training.loop.watcher import Watcher
from spatialnet_training.networks.checkpoint import load_network
from spatialnet_training.studies.bit_depth import Split, bit_depth, forest
from spatialnet_training.studies.cloud_gate import cloudy, import_csmask
from training_fixtures import TINY_RUN, write_set

GROUPS = ("rgb", "nir", "swir", "elevation", "sar")


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Path]:
    return {
        "burned": write_set(tmp_path, "burned", {"Burned": 800, "Unburned": 2500}, 5),
        "flood": write_set(tmp_path, "flood", {"Land": -800, "Water": -2200}, 2),
    }


def test_each_set_has_its_own_bands_and_labels(sources: dict[str, Path]) -> None:
    groups = groups_named(GROUPS)
    data = load_published(sources, 64, groups)
    assert [head.name for head in data.heads] == ["burned", "flood"]
    burned = np.flatnonzero(data.train.data_set == 0)
    assert (data.train.targets["burned"][burned] >= 0).all()
    assert (data.train.targets["flood"][burned] == -1).all()
    present = present_groups(np.stack(data.train.images), groups)
    assert {tuple(row) for row in present[burned]} == {(1, 1, 1, 0, 0)}
    assert {tuple(row) for row in np.delete(present, burned, axis=0)} == {(0, 0, 0, 0, 1)}


def test_a_scene_is_held_out_whole(sources: dict[str, Path]) -> None:
    taxonomy = load_taxonomy()
    nir, path = groups_named(("nir",)), sources["burned"]
    parts = {split: load_split({"burned": path}, taxonomy, split, 64, nir) for split in ("train", "holdout")}
    assert len(parts["train"]) + len(parts["holdout"]) == 72
    assert len(parts["train"]) % 2 == len(parts["holdout"]) % 2 == 0
    assert scene_of("images/Land/Ghana_53713_0_224.tif") == "Ghana_53713"


def test_one_network_learns_from_sets_that_share_no_band(sources: dict[str, Path], tmp_path: Path) -> None:
    config = replace(
        TINY_RUN,
        groups=GROUPS,
        group_dropout=0.2,
        band_dropout=0.2,
        data={name: str(path) for name, path in sources.items()},
        mixup_share=0.5,
    )
    network, spec, _ = load_network(train(config, load_published(sources, 64, groups_named(GROUPS)), tmp_path / "run", "test"))
    assert [head.name for head in spec.heads] == ["burned", "flood"]
    assert spec.input.channels == 10
    assert spec.input.groups[4].ranges[0].unit == "dB"
    assert network is not None


def test_a_run_without_a_held_out_image_says_that_it_is_not_calibrated(sources: dict[str, Path], tmp_path: Path) -> None:
    """A set of few scenes may have none, because scenes are held out as a whole."""
    groups = groups_named(("sar",))
    data = load_published({"flood": sources["flood"]}, 64, groups)
    data = replace_fields(data, holdout=data.holdout.subset([]))
    notes: list[str] = []

    class Listener(Watcher):
        def note(self, text: str) -> None:
            notes.append(text)

    config = replace(TINY_RUN, groups=("sar",), data={"flood": str(sources["flood"])})
    _, spec, _ = load_network(train(config, data, tmp_path / "run", "test", Listener()))
    assert notes == ["flood: no training image is held out, so its probabilities are not calibrated"]
    assert spec.heads[0].temperature == 1


@pytest.mark.skipif(not (SHARED / "hls_landcover.zip").exists(), reason="the full data sets are not here")
@pytest.mark.parametrize("name", MEASURED)
def test_the_real_sets_have_the_layout_and_the_classes_that_the_table_says(name: str) -> None:
    samples = load_split({name: SHARED / MEASURED[name].file}, load_taxonomy(), "val", 64, groups_named(GROUPS))
    assert len(samples) > 0
    assert not samples.broken
    assert all(image.max() > 1 for image in samples.images[:20])


def test_classes_closer_than_a_level_of_8_bits_need_16() -> None:
    row = MEASURED["burned"]
    step = 0.4 / 255

    def split(seed: int) -> Split:
        rng = np.random.default_rng(seed)
        classes = ["Burned", "Unburned"] * 20
        levels = [0.2 + step / 4 * (kind == "Burned") + rng.uniform(0, step / 16, (8, 8, 5)) for kind in classes]
        scenes = [str(number) for number in range(len(classes))]
        return Split([each.astype(np.float32) for each in levels], classes, scenes)

    accuracy = {bits: forest(split(0), split(1), row, bits, 1).mean() for bits in (8, 16, None)}
    assert accuracy[16] == accuracy[None] == 1
    assert accuracy[8] < 0.8


def test_the_comparison_of_depths_reads_a_set_and_prints_a_row(
    sources: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    root = sources["burned"].parent
    sources["burned"].rename(root / MEASURED["burned"].file)
    bit_depth(root, 1)
    shown = capsys.readouterr().out
    assert "burned" in shown
    assert "100.0 %" in shown
    with pytest.raises(UsageError, match="has none of hls_landcover"):
        bit_depth(root / "elsewhere", 1)


def test_a_cloud_gate_reads_a_tile_in_the_order_and_size_of_the_package() -> None:
    class Recorder:
        """The interface of the package: a mask that is cloud wherever blue is above 0.5."""

        def CSmask(self, img: NDArray[np.float32], band_order: list[str], **_: object) -> SimpleNamespace:
            assert img.shape == (256, 256, 4)
            return SimpleNamespace(csm=(img[..., band_order.index("blue")] > 0.5).astype(np.uint8)[..., None])

    tile = np.zeros((32, 32, 5), np.float32)
    tile[:8, :, 1] = 0.9
    bands = ("elevation", "blue", "green", "red", "nir")
    assert cloudy(Recorder(), tile, bands, "l2a") == pytest.approx(0.25)  # pyright: ignore[reportArgumentType]


def test_a_missing_cloud_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ukis_csmask", None)
    with pytest.raises(NotInstalled, match="pip install --no-deps ukis-csmask"):
        import_csmask()
