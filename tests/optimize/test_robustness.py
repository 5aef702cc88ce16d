"""Corruptions, pictures without land, and the metrics on them."""

import io
from pathlib import Path

import msgspec
import numpy as np
import pytest
from rich.console import Console

from conftest import SAMPLES, TINY, clip_frames, lit
from spatialnet_edge.core.spec import Known
from spatialnet_edge.engines.fake import FakeEngine
from spatialnet_optimize.cli.evaluate import robustness_table
from spatialnet_optimize.evaluation.metrics import area_under_risk_coverage
from spatialnet_optimize.evaluation.robustness import (
    COVERAGES,
    Robustness,
    judge_not_land,
    judge_robustness,
    not_land_pictures,
    risk_curve,
    unlabelled,
)
from spatialnet_training.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt, recompressed
from spatialnet_training.data.ground_truth import truths
from spatialnet_training.data.labelled_dataset import open_labelled


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_is_the_same_for_the_same_seed_and_grows_with_its_severity(name: str) -> None:
    image = clip_frames(1)[0][:180, :240]
    made = [corrupt(image, name, severity, 3) for severity in SEVERITIES]
    assert all(each.shape == image.shape and each.dtype == np.uint8 for each in made)
    np.testing.assert_array_equal(made[1], corrupt(image, name, SEVERITIES[1], 3))
    changes = [np.abs(each.astype(int) - image).mean() for each in made]
    assert 0 < changes[0] < changes[1] < changes[2]


def test_other_seeds_give_other_noise() -> None:
    image = clip_frames(1)[0][:64, :64]
    assert (corrupt(image, "gaussian_noise", 3, 1) != corrupt(image, "gaussian_noise", 3, 2)).mean() > 0.5


def test_jpeg_of_a_low_quality_changes_more() -> None:
    image = clip_frames(1)[0][:64, :64].astype(int)
    high, low = (np.abs(recompressed(image.astype(np.uint8), quality) - image).mean() for quality in (95, 20))
    assert 0 < high < low


def test_the_area_under_the_risk_coverage_curve_is_lower_where_wrong_answers_are_less_confident() -> None:
    right = np.array([True, True, True, False])
    assert area_under_risk_coverage(np.float32([0.9, 0.8, 0.7, 0.6]), right) == pytest.approx((0 + 0 + 0 + 1 / 4) / 4)
    assert area_under_risk_coverage(np.float32([0.6, 0.7, 0.8, 0.9]), right) == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)


def test_pictures_without_land_are_withheld_by_their_statistics_or_by_known() -> None:
    pictures = not_land_pictures(TINY.input, 2)
    spec = msgspec.structs.replace(TINY, known=Known(threshold=0.5))
    for known, least, most in ((0.4, 1.0, 1.0), (0.6, 0.1, 0.6)):
        outputs = dict(FakeEngine(spec).infer(pictures))
        outputs["known"] = np.full((len(pictures), 1), known, np.float32)
        judged = judge_not_land(spec, outputs, pictures)
        assert least <= judged.withheld <= most
        assert judged.confident <= 1 - judged.withheld
    frames = np.stack([lit(120), np.zeros_like(lit(120))])
    assert unlabelled(TINY, FakeEngine(TINY).infer(frames), frames).tolist() == [False, True]


def test_a_brightness_head_is_evaluated_under_corruption(tmp_path: Path, image_folder: Path) -> None:
    (image_folder / "dark" / "broken.jpg").unlink()
    images = open_labelled(image_folder)
    (found,) = judge_robustness(FakeEngine(TINY), images, truths(images, TINY, "shade"), 10)
    assert found.images == 6
    assert found.clean == 1.0
    assert found.jpeg_75 == 1.0
    assert set(found.accuracy) == {(name, severity) for name in CORRUPTIONS for severity in SEVERITIES}
    assert found.accuracy["contrast", 5] > found.accuracy["brightness", 5]  # a dark picture made bright is answered wrong
    assert found.mean(1) >= found.mean(5)
    assert 0 <= found.calibration_error <= 1
    assert len(found.risk) == len(COVERAGES)
    assert set(found.labelled_right) == set(SEVERITIES)  # the fake engine is always sure
    assert found.labelled_right[1] >= found.labelled_right[5]
    right = sum(found.accuracy.values()) / len(found.accuracy)
    assert found.risk[-1] == pytest.approx(1 - right)


def test_risk_is_the_share_of_wrong_answers_among_the_most_confident() -> None:
    confidence, right = np.linspace(1, 0, 100).astype(np.float32), np.arange(100) < 50
    curve = risk_curve(confidence, right)
    assert curve[:10] == (0.0,) * 10
    assert curve[-1] == 0.5
    assert curve[14] == pytest.approx(25 / 75)
    assert risk_curve(confidence[:1], right[:1]) == (0.0,) * 20


def test_shared_heads_are_evaluated_through_the_taxonomy(student_spec) -> None:
    for data_set in ("eurosat", "ucmerced"):
        images = open_labelled(SAMPLES / f"{data_set}.zip")
        found = {truth.head: truth for truth in truths(images, student_spec)}
        assert {"land_use", "settlement", f"land_use_{data_set}"} <= set(found)
        labels = student_spec.head("land_use").labels
        truth = found["land_use"]
        answers = {images.classes[row]: labels[value] for row, value in zip(truth.rows, truth.values, strict=True)}
        assert answers["Residential" if data_set == "eurosat" else "denseresidential"] == "residential"
        assert answers["SeaLake" if data_set == "eurosat" else "river"] == "water"


def test_the_table_of_three_heads_is_readable_at_80_columns() -> None:
    accuracy = {(name, severity): 0.5 for name in ("fog", "noise") for severity in SEVERITIES}
    found = [
        Robustness(name, 20, 1.0, accuracy, 0.9, 0.06, 0.97, 0.025, labelled_right={1: 1.0, 3: 0.875, 5: None})
        for name in ("land_use", "land_use_eurosat", "settlement")
    ]
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(robustness_table(found))
    lines = [" ".join(line.split()) for line in console.export_text().splitlines()]
    assert "│ severity 3 │ 50.0% │ 50.0% │ 50.0% │" in lines
    assert "│ severity 3, label ≥ 0.9 │ 87.5% │ 87.5% │ 87.5% │" in lines
    assert "│ severity 5, label ≥ 0.9 │ — │ — │ — │" in lines
    assert "│ ECE, all severities │ 0.060 │ 0.060 │ 0.060 │" in lines
