"""Large frames in tiles at the scale that the model was taught."""

import json
import math

import numpy as np
import pytest
from msgspec.structs import replace

from conftest import SIDE, TINY, lit
from spatialnet_edge.core.errors import UsageError
from spatialnet_edge.core.frames import Frame, Pose
from spatialnet_edge.core.spec import KNOWN, Known
from spatialnet_edge.engines.fake import FakeEngine
from spatialnet_edge.engines.registry import CheckedEngine
from spatialnet_edge.runtime.pipeline import Pipeline
from spatialnet_edge.runtime.tiling import MOST_TILES, Scale, Tiling, tiles_of, tiling_for

TAUGHT = (0.8, 50.0)
SPEC = replace(TINY, heads=(replace(TINY.heads[0], gsd=TAUGHT), *TINY.heads[1:]), known=Known(threshold=0.5))


@pytest.mark.parametrize(
    ("height", "width", "gsd"), [(720, 1280, 0.05), (720, 1280, 0.5), (720, 1280, 0.02), (4000, 6000, 10), (90, 2000, 1.0)]
)
def test_tiles_cover_the_frame_and_stay_inside(height: int, width: int, gsd: float) -> None:
    tiles = tiles_of(height, width, gsd, TAUGHT, 96)
    seen = np.zeros((height, width), bool)
    for tile in tiles:
        assert tile.x >= 0
        assert tile.y >= 0
        assert tile.x + tile.side <= width
        assert tile.y + tile.side <= height
        seen[tile.y : tile.y + tile.side, tile.x : tile.x + tile.side] = True
    assert seen.all()
    assert len(set(tiles)) == len(tiles) <= MOST_TILES


def test_a_tile_shows_a_scene_of_a_size_that_was_taught() -> None:
    (first, *_) = tiles_of(720, 1280, 0.05, TAUGHT, 96)
    assert first.side == 720  # the frame shows 36 m, less than the smallest scene of 77 m: as large as can be
    (first, *_) = tiles_of(720, 1280, 1.0, TAUGHT, 96)
    assert first.side == 720  # 720 m lie within 77 to 4800 m
    tiles = tiles_of(7200, 12800, 10.0, TAUGHT, 96)
    assert TAUGHT[1] == pytest.approx(tiles[0].side * 10.0 / 96, rel=0.75)  # 4800 m, enlarged to at most 64 tiles
    assert tiles_of(4000, 4000, 5.0, TAUGHT, 96)[0].side == 960


def test_the_scale_comes_from_the_pose_and_the_field_of_view() -> None:
    frame = Frame(lit(100), 0, "test", pose=Pose(50.0, 8.0, 130.0))
    gsd = Scale(fov_deg=90.0, ground_m=30.0).of(frame, 1000)
    assert gsd == pytest.approx(2 * 100 * math.tan(math.pi / 4) / 1000)
    assert Scale(gsd=0.3, fov_deg=90.0).of(frame, 1000) == 0.3
    assert Scale(fov_deg=90.0).of(Frame(lit(100), 0, "test"), 1000) is None
    assert Scale(fov_deg=90.0, ground_m=200.0).of(frame, 1000) is None


def by_brightness(batch: np.ndarray) -> dict[str, np.ndarray]:
    """As the fake engine, and pictures brighter than 200 are unknown."""
    found = dict(FakeEngine(SPEC).infer(batch))
    found[KNOWN] = (batch.mean(axis=(1, 2, 3)) < 200).astype(np.float32)[:, None]
    return found


def tiled(picture: np.ndarray) -> Pipeline:
    pipeline = Pipeline(CheckedEngine(FakeEngine(SPEC, by_brightness)), tiling=Tiling(Scale(gsd=1.0), (1.0, 1.0), SIDE))
    assert picture.shape[0] == SIDE
    return pipeline


def test_the_frames_answer_is_the_mean_over_tiles_with_a_label() -> None:
    picture = np.concatenate([lit(60), lit(80), lit(160), lit(230)], axis=1)
    result = tiled(picture).step(Frame(picture, 7, "test"))
    assert [(tile.x, tile.y, tile.side) for tile in result.tiles] == [(SIDE * index, 0, SIDE) for index in range(4)]
    assert [tile.reason for tile in result.tiles] == [None, None, None, "unknown"]
    assert [tile.predictions["shade"].label for tile in result.tiles] == ["dark", "dark", "bright", None]
    np.testing.assert_allclose(result["shade"].probabilities, [(0.9 + 0.9 + 0.1) / 3, (0.1 + 0.1 + 0.9) / 3], rtol=1e-5)
    assert result["level"].value == pytest.approx(100, abs=1)
    assert (result.known, result.reason) == (1.0, None)
    record = json.loads(json.dumps(result.to_dict()))
    assert [tile["known"] for tile in record["tiles"]] == [1.0, 1.0, 1.0, 0.0]
    assert record["tiles"][0]["predictions"]["shade"] == {"label": "dark", "confidence": 0.9}


def test_a_frame_of_unknown_or_empty_tiles_has_no_label() -> None:
    unknown = np.concatenate([lit(230), lit(240)], axis=1)
    assert tiled(unknown).step(Frame(unknown, 0, "test")).reason == "unknown"
    dark = np.zeros((SIDE, 2 * SIDE, 3), np.uint8)
    assert tiled(dark).step(Frame(dark, 0, "test")).reason == "dark"
    half = np.concatenate([np.zeros((SIDE, SIDE, 3), np.uint8), lit(230)], axis=1)
    assert tiled(half).step(Frame(half, 0, "test")).reason == "unknown"


def test_without_a_scale_the_model_sees_the_whole_frame() -> None:
    picture = np.concatenate([lit(60), lit(160)], axis=1)
    engine = CheckedEngine(FakeEngine(SPEC, by_brightness))
    scale = Scale(fov_deg=60.0)
    result = Pipeline(engine, tiling=Tiling(scale, (1.0, 1.0), SIDE)).step(Frame(picture, 0, "test"))
    assert result.tiles == ()
    assert "tiles" not in result.to_dict()
    assert result["level"].value == Pipeline(engine).step(Frame(picture, 0, "test"))["level"].value


def test_a_model_that_states_no_scale_is_refused() -> None:
    with pytest.raises(UsageError, match="does not state the ground sampling distance"):
        tiling_for(TINY, Scale(gsd=1.0))
    assert tiling_for(SPEC, Scale(gsd=1.0)).taught == TAUGHT
    with pytest.raises(ValueError, match="smaller one first"):
        replace(TINY.heads[0], gsd=(2.0, 1.0))
