"""Published data sets, joined by the taxonomy."""

import csv
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.random import default_rng

from spatialnet_edge.core.errors import DataRefused
from spatialnet_edge.core.pixels import resize
from spatialnet_edge.core.spec import Multiclass
from spatialnet_training.data.datasets import load_published, load_split, load_unlabelled, with_gsd
from spatialnet_training.data.samples import held_out
from spatialnet_training.data.taxonomy import OBJECTS, load_taxonomy, rows_of
from spatialnet_training.losses.multitask import UNLABELLED
from training_fixtures import SOURCES

TAXONOMY = load_taxonomy()


def test_the_taxonomy_covers_every_class_with_one_of_twenty_land_uses() -> None:
    assert TAXONOMY.data_sets == ("eurosat", "ucmerced", "rsscn7", "aid", "nwpu_resisc45")
    assert [len(TAXONOMY.classes(name)) for name in TAXONOMY.data_sets] == [10, 21, 7, 30, 45]
    assert len(TAXONOMY.land_use_labels) == 20
    assert {kind for (name, _), kind in TAXONOMY.settlement.items() if name != "nwpu_resisc45"} == {"rural", "urban"}
    assert set(TAXONOMY.settlement.values()) == {"rural", "urban", ""}  # a cloud of RESISC45 is neither
    assert TAXONOMY.settlement["aid", "Park"] == "urban"
    assert TAXONOMY.settlement["ucmerced", "golfcourse"] == "rural"


def test_the_taxonomy_matches_the_real_data_sets(shared_data) -> None:
    names = {"eurosat": "eurosat_rgb", "ucmerced": "ucmerced", "rsscn7": "rsscn7", "aid": "aid_multilabel"}
    for data_set, file in names.items():
        with zipfile.ZipFile(shared_data(f"{file}.zip")) as archive:
            folders = {
                entry.split("/")[1] for entry in archive.namelist() if entry.startswith("images/") and entry.count("/") == 2
            }
            assert folders == set(TAXONOMY.classes(data_set))
            if "objects.csv" in archive.namelist():
                header = next(csv.reader(archive.read("objects.csv").decode().splitlines()))
                assert tuple(header[1:]) == OBJECTS


def test_splits_are_disjoint_and_labels_partial(data_root: Path) -> None:
    sources = {name: data_root / f"{name}.zip" for name in SOURCES}
    parts = {split: load_split(sources, TAXONOMY, split, 64) for split in ("train", "holdout", "val")}
    assert sum(len(part) for part in parts.values()) == 360
    assert len(parts["holdout"]) >= 5
    train_part = parts["train"]
    aerial = train_part.data_set == 1
    assert (train_part.targets["land_use_eurosat"][aerial] == UNLABELLED).all()
    assert (train_part.targets["land_use_eurosat"][~aerial] != UNLABELLED).all()
    assert set(np.unique(train_part.targets["objects"][aerial])) == {0, 1}
    for part in ("holdout", "val"):
        assert (parts[part].targets["objects"][parts[part].data_set == 0] == UNLABELLED).all()
    assert (train_part.targets["settlement"] != UNLABELLED).all()


def test_object_labels_follow_from_classes(data_root: Path) -> None:
    """At ten metres per pixel, aeroplanes are invisible; forests have trees; fields may have trees."""
    assert all(name == "eurosat" for name, _ in TAXONOMY.objects)
    assert sorted(kind for _, kind in TAXONOMY.objects) == [*TAXONOMY.classes("eurosat")]
    for row in rows_of("objects_of_classes.csv"):
        shown, perhaps = row["shown"].split(), row["perhaps"].split()
        assert len({*shown, *perhaps} & {*OBJECTS}) == len(shown) + len(perhaps), row
    assert all(known["airplane"] == 0 for known in TAXONOMY.objects.values())
    samples = load_split({"eurosat": data_root / "eurosat.zip"}, TAXONOMY, "train", 32)
    kinds = samples.targets["land_use_eurosat"]
    trees = samples.targets["objects"][:, OBJECTS.index("trees")]
    seen = {name: set(trees[kinds == index]) for index, name in enumerate(TAXONOMY.classes("eurosat"))}
    assert (seen["Forest"], seen["SeaLake"], seen["AnnualCrop"]) == ({1}, {0}, {UNLABELLED})


def test_a_head_without_any_label_is_removed(data_root: Path) -> None:
    data = load_published({"eurosat": data_root / "eurosat.zip"}, 32)
    assert [head.name for head in data.heads] == ["land_use", "land_use_eurosat", "objects", "settlement"]
    assert set(data.train.targets) == set(data.holdout.targets) == {head.name for head in data.heads}


def test_the_held_out_rule_is_the_one_that_the_samples_were_made_with() -> None:
    for archive in SOURCES.values():
        with zipfile.ZipFile(archive) as source:
            assert all(held_out(name) for name in source.namelist() if name.endswith(".jpg"))


def test_the_count_is_that_of_the_objects_labels(data_root: Path) -> None:
    samples = load_split({"ucmerced": data_root / "ucmerced.zip"}, TAXONOMY, "train", 32)
    counted = (samples.targets["objects"] == 1).sum(axis=1)
    np.testing.assert_allclose(samples.targets["object_kinds"][:, 0] * len(OBJECTS), counted, atol=1e-5)


def test_unlabelled_pictures_come_from_any_folder_and_depth(tmp_path: Path, data_root: Path) -> None:
    with zipfile.ZipFile(data_root / "eurosat.zip") as archive:
        archive.extractall(tmp_path / "some" / "where")
    (tmp_path / "some" / "broken.png").write_bytes(b"no image")
    samples = load_unlabelled(tmp_path / "some", 32)
    assert len(samples) > 100
    assert samples.targets == {}
    assert samples.broken == [f"{tmp_path / 'some'}: broken.png"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataRefused, match="no usable image among 0 files"):
        load_unlabelled(tmp_path / "empty", 32)


def test_a_large_picture_becomes_tiles_at_every_scale(tmp_path: Path) -> None:
    noise = default_rng(5).integers(0, 255, (9, 13, 3), np.uint8)
    picture = cv2.resize(noise, (208, 144), interpolation=cv2.INTER_NEAREST)
    picture[:64, :64] = 90
    cv2.imwrite(str(tmp_path / "sheet.png"), picture[..., ::-1])
    cv2.imwrite(str(tmp_path / "small.png"), picture[:40, 64:104])
    tiles = load_unlabelled(tmp_path, 48, tile=64)
    # 2 rows of 3 at the sheet's own scale, of which one is uniform, and one of 104 × 72 pixels
    assert [tile.shape for tile in tiles.images] == [(48, 48, 3)] * 6
    np.testing.assert_array_equal(tiles.images[0], resize(picture[:64, 64:128], 48, 48))
    np.testing.assert_array_equal(tiles.images[-1], resize(resize(picture, 104, 72)[:64, :64], 48, 48))
    assert len(load_unlabelled(tmp_path, 48)) == 2
    with pytest.raises(DataRefused, match="among 2 files; expected images at any depth, 500 pixels high and wide"):
        load_unlabelled(tmp_path, 48, tile=500)


def test_heads_state_the_scale_that_they_were_taught_at(data_root: Path) -> None:
    data = load_published({name: data_root / f"{name}.zip" for name in SOURCES}, 64)
    heads = {head.name: with_gsd(head, data.ground_sides, 100) for head in data.heads}
    assert heads["land_use"].gsd == (0.78, 6.4)
    assert heads["land_use_ucmerced"].gsd == (0.78, 0.78)
    assert heads["land_use_eurosat"].gsd == (6.4, 6.4)
    assert with_gsd(heads["settlement"], {}, 100).gsd == (0.78, 6.4)  # what is stated stays


def test_nwpu_has_a_head_of_its_own_for_the_classes_with_land_use(published_root: Path) -> None:
    data = load_published({"nwpu_resisc45": published_root / "nwpu_resisc45.zip"}, 64)
    head = next(head for head in data.heads if head.name == "land_use_nwpu_resisc45")
    assert isinstance(head, Multiclass)
    assert "forest" in head.labels
    assert "cloud" not in head.labels
    assert (data.train.targets[head.name] != UNLABELLED).all()
    assert len(data.train) == 2 * 6  # forest and lake, no clouds
