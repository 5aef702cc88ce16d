"""Bands beyond colour, end to end: from GeoTIFFs to a network, a bundle that passes its gates, and results with a missing
sensor."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

import spatialnet_edge
from spatialnet_edge.bundle.reader import Bundle, open_bundle
from spatialnet_edge.cli.app import app
from spatialnet_edge.core.bands import SENTINEL_2, present_groups
from spatialnet_edge.core.errors import DataRefused
from spatialnet_edge.core.frames import Frame
from spatialnet_edge.core.spec import InputSpec
from spatialnet_edge.sources.scene import SceneSource
from spatialnet_optimize.export.from_checkpoint import golden_images
from spatialnet_training.data.bands import groups_named

GROUPS = ("rgb", "nir", "swir")
FULL_SCALE = 4000
"""Sentinel-2's integer for a reflectance of 0.4, the upper end of an optical band's range."""


def multispectral(folder: Path, count: int = 60) -> Path:
    """Two classes that differ only in near infrared: noise of 13 bands, bright or dark there."""
    chance = np.random.default_rng(0)
    for kind, brightness in (("field", 3500), ("asphalt", 300)):
        (folder / kind).mkdir(parents=True)
        for index in range(count):
            levels = chance.integers(500, 2500, (32, 32, 13), np.uint16)
            levels[..., SENTINEL_2.index("nir")] = brightness + chance.integers(0, 300, (32, 32), np.uint16)
            tifffile.imwrite(folder / kind / f"{index}.tif", levels, photometric="minisblack", planarconfig="contig")
    return folder


def built(folder: Path, groups: Sequence[str]) -> Bundle:
    """A bundle of these bands, from images through the gates."""
    images, run = multispectral(folder / "integrity"), folder / "run"
    settings = [
        f"groups={[*groups]}".replace("'", '"'),
        "group_dropout=0.2",
        "stages=[{size=32, epochs=5}]",
        "epoch_images=128",
        "batch=16",
        "ema_decay=0.9",
    ]
    commands = [
        ["train", "--data", images, "--output", run, "--start", "scratch", "--backbone", "student-1m"]
        + [word for setting in settings for word in ("--set", setting)],
        ["build", run, "--labelled", images, "-o", folder / "field.snb"],
    ]
    for command in commands:
        result = CliRunner().invoke(app, [str(word) for word in command])
        assert result.exit_code == 0, (command, result.output, result.exception)
    return open_bundle(folder / "field.snb")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return built(tmp_path_factory.mktemp("bands"), GROUPS)


def scene(near_infrared: int) -> np.ndarray:
    bands = np.random.default_rng(1).integers(32, 160, (40, 40, 6), np.uint8)
    bands[..., 3] = near_infrared
    return bands


def test_golden_frames_have_every_band(bundle: Bundle) -> None:
    frames, _ = bundle.golden()
    assert frames.shape[1:] == (32, 32, 6)
    assert all(frames[..., band].any() for band in range(6))


def test_a_bundle_with_several_bands_builds_and_runs(bundle: Bundle) -> None:
    assert bundle.manifest.build is not None
    reference = bundle.manifest.build.candidates[0]
    assert reference.accuracy["land_use (integrity)"] > 0.9
    with spatialnet_edge.load(bundle.path) as model:
        assert model.golden.passed
        assert model(scene(230)).land_use.label == "field"
        assert model(scene(25)).land_use.label == "asphalt"


def test_a_missing_sensor_still_gives_results(bundle: Bundle) -> None:
    dark = scene(230)
    dark[..., 3:] = 0  # what a sensor that is switched off gives
    with spatialnet_edge.load(bundle.path) as model:
        colour_alone = model(np.ascontiguousarray(dark[..., :3])).land_use.probabilities
        np.testing.assert_array_equal(model(dark).land_use.probabilities, colour_alone)
    assert colour_alone.sum() == pytest.approx(1, abs=1e-5)


def band_numbers() -> str:
    """Where the model's bands stand in a Sentinel-2 file, from 1."""
    return ",".join(str(SENTINEL_2.index(band) + 1) for group in groups_named(GROUPS) for band in group.bands)


def test_the_training_folder_runs_as_a_source(bundle: Bundle, tmp_path: Path) -> None:
    """Every chip is one frame, with the same result as in training."""
    results = tmp_path / "results.jsonl"
    uri = f"scene:{bundle.path.parent / 'integrity'}"  # thirteen bands: Sentinel-2's, by name
    done = CliRunner().invoke(app, ["run", str(bundle.path), uri, "--json", str(results)])
    assert done.exit_code == 0, (done.output, done.exception)
    lines = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    answers = [line for line in lines if "predictions" in line]
    assert len(answers) == 120
    right = [Path(line["source"]).parent.name == line["predictions"]["land_use"]["label"] for line in answers]
    assert sum(right) > 114


def test_a_scene_of_thirteen_bands_runs(bundle: Bundle, tmp_path: Path) -> None:
    """Fields in the west and asphalt in the east, seen by `run` with an overlay of the colours."""
    rasterio = pytest.importorskip("rasterio")
    levels = np.random.default_rng(2).integers(500, 2500, (13, 64, 128), np.uint16)
    levels[SENTINEL_2.index("nir"), :, :64], levels[SENTINEL_2.index("nir"), :, 64:] = 3600, 400
    shape = {"width": 128, "height": 64, "count": 13, "dtype": "uint16", "crs": "EPSG:32630"}
    place = rasterio.transform.from_origin(699_960.0, 5_650_000.0, 10, 10)
    with rasterio.open(tmp_path / "scene.tif", "w", driver="GTiff", transform=place, **shape) as raster:
        raster.write(levels)
    uri = f"scene:{tmp_path / 'scene.tif'}?tile=64"
    by_number = SceneSource(f"{tmp_path / 'scene.tif'}?tile=64&scale={FULL_SCALE}&bands={band_numbers()}")
    named = SceneSource(f"{tmp_path / 'scene.tif'}?tile=64")
    named.for_groups(bundle.spec.input.groups)
    for one, other in zip(by_number, named, strict=True):
        assert isinstance(one, Frame)
        assert isinstance(other, Frame)
        assert np.abs(one.pixels.astype(int) - other.pixels).max() <= 1
    results, overlay = tmp_path / "results.jsonl", tmp_path / "overlay.mp4"
    done = CliRunner().invoke(app, ["run", str(bundle.path), uri, "--json", str(results), "--video", str(overlay)])
    assert done.exit_code == 0, (done.output, done.exception)
    lines = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    assert [line["predictions"]["land_use"]["label"] for line in lines if "predictions" in line] == ["field", "asphalt"]
    assert len(list(spatialnet_edge.open_source(str(overlay)))) == 2


def test_a_model_without_colour_is_measured_on_frames_of_its_own_bands(tmp_path: Path) -> None:
    alone = built(tmp_path, ["nir"])
    options = ["--rounds", "1", "--runs", "20", "--kept", "10", "--seconds", "1", "--json", str(tmp_path / "bench.json")]
    done = CliRunner().invoke(app, ["bench", str(alone.path), *options])
    assert done.exit_code == 0, (done.output, done.exception)
    record = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    assert record["source"].endswith("&bands=1")
    assert record["input"] == [32, 32, 1]
    assert record["paced"]["latency"]["p50"] > 0
    done = CliRunner().invoke(app, ["bench", str(alone.path), "synthetic:frames=10&size=64x64", *options])
    assert "this model takes 1: nir (1)" in str(done.exception)


def test_golden_frames_without_a_band_are_refused() -> None:
    """Such golden frames would accept an engine with a wrong result for that band."""
    with pytest.raises(DataRefused, match="no image has the bands of 'thermal', so golden frames would not test them"):
        golden_images((), InputSpec(height=32, width=32, groups=groups_named((*GROUPS, "thermal"))))


def test_golden_frames_of_bands_that_no_image_has_come_from_the_generated_scene() -> None:
    groups = groups_named(("rgb", "nir", "swir", "elevation", "sar"))
    frames = golden_images((), InputSpec(height=64, width=64, groups=groups))
    present = present_groups(frames, groups)
    assert (present.sum(axis=1) == 1).sum() == 12  # the shipped samples: colour alone
    assert (present.sum(axis=1) == 5).sum() == 2
