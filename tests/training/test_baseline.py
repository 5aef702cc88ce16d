"""The traditional baseline and the near duplicates, on real images."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from spatialnet_edge.cli.app import app
from spatialnet_edge.core.errors import DataRefused, UsageError
from spatialnet_training.data import dataset_registry as published
from spatialnet_training.data.datasets import load_split
from spatialnet_training.data.samples import Samples
from spatialnet_training.data.taxonomy import load_taxonomy
from spatialnet_training.data.tiles import structured
from spatialnet_training.studies.baseline import features, judge
from spatialnet_training.studies.by_place import beside, compare, consecutive, shuffled
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


def test_what_is_learnt_of_places_is_lost_when_places_are_kept_apart() -> None:
    """40 images of two classes, five in a row of each place; only the place can be recognised, not the class."""
    names = tuple(f"{kind}/image{number}.jpg" for kind in "ab" for number in range(1, 21))
    classes = np.repeat(np.array([0, 1], np.int64), 20)
    place = np.arange(40) // 4

    def recognises_places(train: NDArray[np.int64], test: NDArray[np.int64]) -> NDArray[np.int64]:
        known = dict(zip(place[train].tolist(), classes[train].tolist(), strict=True))
        return np.array([known.get(int(each), -1) for each in place[test]])

    found = compare(names, classes, recognises_places)
    assert found.random.mean == 1
    assert found.place.mean == 0
    assert found.difference.high == -1
    assert beside(consecutive(names, classes), names, classes) < 0.5 < beside(shuffled(classes), names, classes)
    assert compare(names, classes, recognises_places, r"image(\d)").images == 40
    with pytest.raises(DataRefused, match="a class has 3 images; a comparison by place needs at least 5"):
        compare(names[:23], classes[:23], recognises_places)


def test_images_of_a_published_set_keep_their_file_names(parts: dict[str, Samples]) -> None:
    assert all(name.endswith(".jpg") for name in parts["train"].names)
    assert len(set(parts["train"].names)) == len(parts["train"])
