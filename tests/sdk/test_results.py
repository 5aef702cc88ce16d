"""Decoding, abstention and smoothing."""

import json

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import TINY
from spatialnet_edge.core.frames import SAMPLED, Frame, Pose, in_memory_order, preprocess, quality, sampled
from spatialnet_edge.core.predictions import Classification, MultilabelPrediction, RegressionPrediction, decode, difference
from spatialnet_edge.core.results import assemble, readable
from spatialnet_edge.core.smoothing import Smoother
from spatialnet_edge.core.spec import RGB, InputSpec, Known, ModelSpec

BLANK = np.zeros((4, 4, 3), np.uint8)


def rows(shade: float, bands: tuple[float, ...] = (0.1, 0.5, 0.9), level: float = 7.0) -> dict[str, np.ndarray]:
    return {
        "shade": np.array([1 - shade, shade], np.float32),
        "bands": np.array(bands, np.float32),
        "level": np.array([level], np.float32),
    }


def test_each_kind_of_task_decodes_to_its_own_answer() -> None:
    result = assemble(TINY, Frame(BLANK, 3, "here"), rows(0.8), 1.5, ())
    assert isinstance(result.shade, Classification)
    assert (result.shade.label, round(result.shade.confidence, 3)) == ("bright", 0.8)
    assert result.shade.top(1) == [("bright", pytest.approx(0.8))]
    assert isinstance(result.bands, MultilabelPrediction)
    assert result.bands.present == ("green", "blue")
    assert isinstance(result.level, RegressionPrediction)
    assert result.level.value == 7.0
    assert (result.seq, result.source) == (3, "here")
    assert result.age_ms >= 0


def test_below_the_threshold_the_label_is_withheld_and_the_confidence_is_not() -> None:
    answer = decode(TINY.head("shade"), np.array([0.55, 0.45], np.float32))
    assert isinstance(answer, Classification)
    assert answer.label is None
    assert answer.confidence == pytest.approx(0.55)


def test_an_unknown_head_names_the_known_ones() -> None:
    result = assemble(TINY, Frame(BLANK, 0, ""), rows(0.8), 0, ())
    with pytest.raises(AttributeError, match="no head 'ships'; this model has shade, bands, level"):
        _ = result.ships


def test_a_result_is_one_json_object_with_pose() -> None:
    frame = Frame(BLANK, 0, "clip.mp4", pose=Pose(40.5, -73.9, 120.0))
    record = json.loads(json.dumps(assemble(TINY, frame, rows(0.8), 1.23456, ("soft",)).to_dict()))
    assert record["predictions"]["shade"] == {"label": "bright", "confidence": 0.8}
    assert record["predictions"]["bands"]["present"] == ["green", "blue"]
    assert record["pose"]["altitude"] == 120.0
    assert record["quality"] == ["soft"]
    assert record["engine_ms"] == 1.235


def test_smoothing_halves_the_old_answer_in_one_half_life() -> None:
    smoother = Smoother(half_life_s=1.0, reset_after_s=5)
    smoother.update(rows(0.0), 10.0)
    smoothed = smoother.update(rows(1.0), 11.0)
    assert smoothed["shade"] == pytest.approx([0.5, 0.5])


def test_smoothing_starts_anew_after_a_gap_and_when_time_runs_backwards() -> None:
    smoother = Smoother(half_life_s=1.0, reset_after_s=2)
    for seconds in (3012.5, 0.0):  # 3000 half-lives are more than a float can hold
        smoother.update(rows(0.0), 3000.0)
        assert smoother.update(rows(1.0), seconds)["shade"] == pytest.approx([0.0, 1.0])


def test_without_a_half_life_nothing_is_smoothed() -> None:
    smoother = Smoother()
    smoother.update(rows(0.0), 1.0)
    given_rows = rows(1.0)
    assert smoother.update(given_rows, 1.1) is given_rows


def test_smoothing_leaves_how_well_a_frame_is_known_as_it_is() -> None:
    smoother = Smoother(half_life_s=1.0)
    smoother.update(rows(0.0) | {"known": np.float32([0.9])}, 1.0)
    smoothed = smoother.update(rows(1.0) | {"known": np.float32([0.4])}, 1.5)
    assert smoothed["known"] == pytest.approx([0.4])
    assert 0 < smoothed["shade"][1] < 1


@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.floats(0.001, 1)), min_size=1, max_size=30))
def test_smoothed_probabilities_stay_probabilities(steps: list[tuple[float, float]]) -> None:
    smoother = Smoother(half_life_s=0.3)
    now = 0.0
    for shade, elapsed in steps:
        now += elapsed
        smoothed = smoother.update(rows(shade), now)["shade"]
        assert smoothed.sum() == pytest.approx(1, abs=1e-5)
        assert smoothed.min() >= 0


@pytest.mark.parametrize("shape", [(8, 8, 3), (480, 640, 3), (97, 33, 3), (1000, 20, 3)])
def test_fit_gives_the_same_pixels_for_a_bgr_view_as_for_rgb(shape: tuple[int, ...]) -> None:
    bgr = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    spec = InputSpec(height=16, width=24, groups=(RGB,))
    from_view = preprocess(bgr[..., ::-1], spec)
    from_rgb = preprocess(np.ascontiguousarray(bgr[..., ::-1]), spec)
    assert from_view.shape == (16, 24, 3)
    assert from_view.flags.c_contiguous
    np.testing.assert_array_equal(from_view, from_rgb)


def test_fit_averages_rather_than_picks() -> None:
    stripes = np.zeros((960, 960, 3), np.uint8)
    stripes[:, ::2] = 200
    fitted = preprocess(stripes, InputSpec(height=32, width=32, groups=(RGB,)))
    assert fitted.min() >= 99
    assert fitted.max() <= 101


@pytest.mark.parametrize(("level", "flags"), [(3, ("dark",)), (252, ("saturated",)), (120, ("featureless",))])
def test_frames_without_a_picture_are_flagged(level: int, flags: tuple[str, ...]) -> None:
    assert quality(sampled(np.full((32, 32, 3), level, np.uint8))) == flags


def test_a_flat_frame_with_one_bright_line_is_featureless_and_two_grey_levels_are_a_picture() -> None:
    flat = np.full((96, 96, 3), (40, 90, 160), np.uint8)
    flat[3] = 255
    assert quality(sampled(flat)) == ("featureless",)
    flat[:, 48:, 2] += 2
    assert quality(sampled(flat)) == ()


KNOWING = msgspec.structs.replace(TINY, known=Known(threshold=0.3))


@pytest.mark.parametrize(
    ("spec", "known", "flags", "reason"),
    [
        (TINY, None, (), None),
        (TINY, None, ("dark",), "dark"),
        (TINY, None, ("saturated",), "saturated"),
        (TINY, None, ("featureless",), "featureless"),
        (KNOWING, 0.31, (), None),
        (KNOWING, 0.29, (), "unknown"),
        (KNOWING, 0.99, ("dark",), "dark"),
    ],
)
def test_without_a_picture_or_below_the_threshold_no_head_has_a_label(
    spec: ModelSpec, known: float | None, flags: tuple[str, ...], reason: str | None
) -> None:
    given_rows = rows(0.8) | ({} if known is None else {"known": np.array([known], np.float32)})
    result = assemble(spec, Frame(BLANK, 0, ""), given_rows, 0, flags)
    assert result.reason == reason
    assert result.known == (None if known is None else pytest.approx(known))
    assert (result.shade.label is None, result.bands.present is None, result.level.value is None) == (reason is not None,) * 3
    assert result.shade.confidence == pytest.approx(0.8)
    record = json.loads(json.dumps(result.to_dict()))
    assert (record["reason"], record["predictions"]["shade"]["label"] is None) == (reason, reason is not None)


def test_a_hot_pixel_does_not_hide_that_a_frame_is_dark() -> None:
    night = np.full((96, 96, 3), 3, np.uint8)
    night[0, 0] = 255
    assert quality(sampled(night)) == ("dark",)


@pytest.mark.parametrize("side", [8, 32, 96, 225, 1080])
def test_few_values_are_sampled_from_all_over_a_picture(side: int) -> None:
    picture = np.arange(side, dtype=np.uint8)[:, None, None].repeat(side, axis=1).repeat(3, axis=2)
    sample = sampled(picture)
    assert 100 < sample.size <= 1.25 * SAMPLED
    assert sample.min() == 0
    assert side > 255 or sample.max() >= 0.8 * (side - 1)


def test_answers_differ_by_probability_or_by_a_share_of_the_range() -> None:
    shade, _, level = TINY.heads
    assert difference(shade, np.float32([0.2, 0.8]), np.float32([0.3, 0.7])) == pytest.approx(0.1)
    assert difference(level, np.float32([100]), np.float32([151])) == pytest.approx(0.2)
    assert difference(level, np.float32([np.nan]), np.float32([1])) == float("inf")


def test_people_are_shown_the_shared_heads_and_not_those_of_single_data_sets() -> None:
    from spatialnet_edge.core.spec import Multiclass

    labels = ("water", "forest")
    heads = tuple(Multiclass(name=name, labels=labels) for name in ("land_use", "land_use_eurosat", "settlement"))
    spec = msgspec.structs.replace(TINY, heads=heads)
    given_rows = {head.name: np.float32([0.9, 0.1]) for head in heads}
    found = assemble(spec, Frame(BLANK, 0, ""), given_rows, 0, ())
    assert list(readable(found)) == ["land_use", "settlement"]
    assert "settlement" in str(found)
    assert "eurosat" not in str(found)


@pytest.mark.parametrize("resize", ["stretch", "area"])
def test_a_reversed_view_is_resized_in_the_order_of_its_memory(resize: str) -> None:
    bgr = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    spec = msgspec.structs.replace(TINY.input, resize=resize)
    np.testing.assert_array_equal(preprocess(bgr[..., ::-1], spec), preprocess(bgr[..., ::-1].copy(), spec))
    frame = in_memory_order(Frame(bgr[..., ::-1], 0, "test"))
    assert isinstance(frame.image, np.ndarray)
    assert frame.image.flags.c_contiguous  # no copy at full size
    assert np.shares_memory(frame.image, bgr)
    np.testing.assert_array_equal(frame.pixels, bgr[..., ::-1])
