"""The traditional baseline and the near duplicates, on real images."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from spatialnet_edge.cli.app import app
from spatialnet_edge.core.errors import DataRefused, UsageError
from spatialnet_training.data import dataset_registry as published
from spatialnet_training.data.datasets import load_split
from spatialnet_training.data.samples import Samples
from spatialnet_training.data.taxonomy import load_taxonomy
from spatialnet_training.data.tiles import structured
from spatialnet_training.studies.baseline import features, judge
from spatialnet_training.studies.near_duplicates import BITS, hashes, nearest, overlaps


@pytest.fixture(scope="module")
def parts(data_root: Path) -> dict[str, Samples]:
    source = {"eurosat": data_root / "eurosat.zip"}
    return {split: load_split(source, load_taxonomy(), split, 64) for split in ("train", "val")}


def test_features_see_colour_and_texture(parts: dict[str, Samples]) -> None:
    image = parts["train"].images[0]
    plain = features(image)
    assert plain.shape == (610,)
    assert np.isfinite(plain).all()
    assert np.abs(features(image[..., ::-1].copy()) - plain)[:216].max() > 0.1
    assert np.abs(features(cv2.GaussianBlur(image, (5, 5), 0)) - plain)[216:].max() > 0.1


def test_the_baseline_is_far_better_than_chance(parts: dict[str, Samples]) -> None:
    result = judge("eurosat", "land_use_eurosat", parts["train"], parts["val"])
    assert result.accuracy > 0.5
    assert (result.trained_on, result.judged_on) == (len(parts["train"]), len(parts["val"]))


def test_a_copy_is_found_and_another_image_is_not(parts: dict[str, Samples]) -> None:
    train = structured(parts["train"].images)
    copy = cv2.convertScaleAbs(cv2.resize(train[3], (60, 60)), alpha=1.1, beta=5)
    distances = nearest(hashes([copy]), hashes(train))
    assert distances[0] <= BITS
    assert int(np.bitwise_count(hashes([copy])[0] ^ hashes(train)).argmin()) == 3
    other = nearest(hashes(structured(parts["val"].images)), hashes(train))
    assert (other > BITS).mean() > 0.9
    flat = np.full((64, 64, 3), 90, np.uint8)
    assert structured([flat]) == []


def test_overlaps_are_counted_inside_a_data_set_and_across(parts: dict[str, Samples]) -> None:
    own = hashes(structured(parts["train"].images))
    found = overlaps({"a": own[:20], "b": own[20:40]}, {"a": (9, own[[0, 1, 25]]), "b": (2, own[:0])})
    assert (found[0].images, found[0].hashed) == (9, 3)
    assert found[0].own >= 2
    assert found[0].elsewhere >= 1
    assert (found[1].own, found[1].elsewhere) == (0, 0)


def test_both_commands_run(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(published.FILES, "eurosat", "eurosat.zip")
    for command in ("baseline", "duplicates"):
        arguments = [
            command,
            "--data-root",
            str(data_root),
            "--data-set",
            "eurosat",
            "--json",
            str(tmp_path / f"{command}.json"),
        ]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        assert "eurosat" in (tmp_path / f"{command}.json").read_text()


def test_a_missing_data_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match=r"eurosat_rgb\.zip: no such file"):
        published.data_sets(tmp_path, "eurosat")
    with pytest.raises(UsageError, match="no data set 'mars'"):
        published.data_sets(tmp_path, "mars")
