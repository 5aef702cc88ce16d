"""Scores against hand-counted cases, and labelled images as users lay them out."""

import zipfile
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from conftest import SAMPLES, SHARED, TINY, lit
from spatialnet_edge.core.errors import DataRefused, UsageError
from spatialnet_edge.core.spec import ModelSpec
from spatialnet_edge.engines.fake import FakeEngine
from spatialnet_optimize.evaluation.latency import latencies
from spatialnet_optimize.evaluation.metrics import (
    agreement,
    align,
    calibration_error,
    decode_images,
    predict,
    score,
)
from spatialnet_optimize.evaluation.tiled import compare_scales
from spatialnet_training.data.ground_truth import Truth, truths
from spatialnet_training.data.labelled_dataset import open_labelled


def test_a_hand_counted_multiclass_score() -> None:
    truth = Truth("shade", np.arange(4), np.array([0, 0, 1, 1]))
    probabilities = np.array([[0.9, 0.1], [0.45, 0.55], [0.2, 0.8], [0.3, 0.7]], np.float32)
    found = score(TINY, truth, probabilities)
    assert found.metrics["accuracy"] == 0.75
    assert found.metrics["macro_f1"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert found.metrics["answered"] == 0.75  # 0.55 is below the tiny model's 0.6
    assert found.metrics["accuracy_of_answered"] == 1.0
    assert found.confusion == [[1, 1], [0, 2]]
    assert found.per_label == {"dark": 0.5, "bright": 1.0}


def test_a_hand_counted_multilabel_score_leaves_out_labels_without_positives() -> None:
    truth = Truth("bands", np.arange(3), np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0]], np.float32))
    probabilities = np.array([[0.9, 0.8, 0.1], [0.2, 0.7, 0.1], [0.6, 0.9, 0.1]], np.float32)
    found = score(TINY, truth, probabilities)
    assert set(found.per_label) == {"red", "green"}
    assert found.per_label["red"] == 1.0
    assert found.per_label["green"] == pytest.approx((1 + 2 / 3) / 2)


def test_perfect_calibration_has_no_error_and_overconfidence_has_its_gap() -> None:
    right = np.array([True] * 8 + [False] * 2)
    assert calibration_error(np.full(10, 0.8, np.float32), right) == pytest.approx(0, abs=1e-6)
    assert calibration_error(np.full(10, 0.99, np.float32), right) == pytest.approx(0.19, abs=1e-6)


def test_agreement_counts_answers() -> None:
    a = {"shade": np.array([[0.9, 0.1], [0.2, 0.8]], np.float32), "bands": np.full((2, 3), 0.9, np.float32)}
    b = a | {"shade": np.array([[0.9, 0.1], [0.7, 0.3]], np.float32)}
    assert agreement(TINY.keep(("shade", "bands")), a, a) == 1.0
    assert agreement(TINY.keep(("shade", "bands")), b, a) == pytest.approx(0.75)


def test_labels_are_matched_to_heads_and_broken_images_drop_out(image_folder: Path) -> None:
    images = open_labelled(image_folder)
    assert len(images) == 7
    (truth,) = truths(images, TINY)
    pixels = decode_images(images, TINY.input)
    assert pixels.broken == ("dark/broken.jpg",)
    where, known = align(truth, pixels.kept)
    outputs = predict(FakeEngine(TINY), pixels.images)
    assert score(TINY, known, outputs["shade"][where]).metrics["accuracy"] == 1.0


def test_zip_and_folder_give_the_same(image_folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in sorted(image_folder.rglob("*.*")):
            archive.write(path, f"images/{path.relative_to(image_folder)}")
    folder, packed = open_labelled(image_folder), open_labelled(tmp_path / "set.zip")
    assert folder.classes == packed.classes
    np.testing.assert_array_equal(decode_images(folder, TINY.input).images, decode_images(packed, TINY.input).images)


def test_objects_come_from_their_table(student_spec: ModelSpec) -> None:
    found = {truth.head: truth for truth in truths(open_labelled(SAMPLES / "ucmerced.zip"), student_spec)}
    assert set(found) == {"land_use", "land_use_ucmerced", "objects", "settlement", "object_kinds"}
    assert found["objects"].values.shape == (60, 17)
    assert 0 < found["objects"].values.mean() < 1


def test_objects_without_positives_are_not_evaluated(student_spec: ModelSpec) -> None:
    """Ten pictures of the open sea: precision is undefined, and the other heads are evaluated."""
    images = open_labelled(SAMPLES / "ucmerced.zip")
    objects = {name: dict.fromkeys(labels, 0.0) for name, labels in images.objects.items()}
    empty = replace(images, objects=objects)
    assert [truth.head for truth in truths(empty, student_spec)] == [
        "land_use",
        "land_use_ucmerced",
        "settlement",
        "object_kinds",
    ]
    with pytest.raises(DataRefused, match="'objects': none of these images has any of its labels"):
        truths(empty, student_spec, "objects")
    columns = {name: {label.replace("-", "_"): "0" for label in labels} for name, labels in objects.items()}
    with pytest.raises(DataRefused, match="'objects': none of these images"):
        truths(replace(empty, columns=columns), student_spec, "objects")
    for cells in columns.values():
        cells["ship"] = ""
    with pytest.raises(DataRefused, match="'objects' has no row in which its 17 columns are all filled"):
        truths(replace(empty, columns=columns), student_spec, "objects")


def test_an_unknown_split_is_reported_with_the_known_ones(image_folder: Path) -> None:
    with pytest.raises(DataRefused, match="no split 'test'; its splits are train"):
        open_labelled(image_folder, "test")


def test_splits_of_the_full_set(shared_data) -> None:
    path = shared_data("ucmerced.zip")
    assert SHARED in path.parents
    assert len(open_labelled(path, "val")) == 420
    assert len(open_labelled(path, "train")) == 1260


def test_latencies_distinguish_a_slow_engine_from_a_fast_one() -> None:
    image = np.zeros(TINY.input.shape, np.uint8)
    fast, slow = latencies([FakeEngine(TINY), FakeEngine(TINY, delay_s=0.005)], [image, image], rounds=10, warm_up=1)
    assert slow.p50_ms > fast.p50_ms + 4
    assert slow.p99_ms >= slow.p50_ms


def test_a_quantity_is_scored_by_its_mean_error() -> None:
    truth = Truth("level", np.arange(2), np.array([[100.0], [200.0]], np.float32))
    found = score(TINY, truth, np.array([[110.0], [170.0]], np.float32))
    assert found.metrics == {"mean_absolute_error": pytest.approx(20)}
    assert found.headline == pytest.approx(1 - 20 / 255)


def test_a_frame_is_judged_as_a_whole_and_in_tiles(tmp_path: Path) -> None:
    """Half of the frame is dark: its mean is bright, and its two tiles contradict each other."""
    heads = tuple(msgspec.structs.replace(head, gsd=(1.0, 1.0)) for head in TINY.heads)
    engine = FakeEngine(msgspec.structs.replace(TINY, heads=heads))
    for label, levels in (("bright", (60, 200)), ("dark", (40, 90))):
        (tmp_path / label).mkdir()
        Image.fromarray(np.concatenate([lit(level) for level in levels], axis=1)).save(tmp_path / label / "frame.png")
    images = open_labelled(tmp_path)
    known = [truth for truth in truths(images, engine.spec) if truth.head == "shade"]
    whole, tiles = compare_scales(engine, images, known, gsd=1.0)
    assert (whole.shown, whole.images, whole.tiles, whole.accuracy, whole.confident_right) == ("whole", 2, 1, 1, 1)
    assert (tiles.shown, tiles.tiles, tiles.labelled, tiles.right, tiles.confident) == ("tiles", 2, 0.5, 1, 0.5)
    with pytest.raises(UsageError, match="does not state the ground sampling distance"):
        compare_scales(FakeEngine(TINY), images, known, gsd=1.0)
