"""Still images of more than 8 bits: the model's range, the option's, and neither."""

import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from msgspec.structs import replace
from numpy.typing import NDArray
from typer.testing import CliRunner

import spatialnet_edge
from conftest import TINY, lit, write_tiny_bundle
from spatialnet_edge.bundle.reader import open_bundle
from spatialnet_edge.cli.app import app
from spatialnet_edge.core import deep_still
from spatialnet_edge.core.deep_still import decode_deep, depth_of
from spatialnet_edge.core.errors import SourceRefused
from spatialnet_edge.core.still_decoder import NotDecoded
from spatialnet_edge.sources.registry import open_source

TWELVE_BITS = (0.0, 4095.0)


@pytest.fixture(scope="module")
def ranged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, trained as it were with `--range 0,4095`."""
    spec = replace(TINY, input=replace(TINY.input, value_range=TWELVE_BITS))
    return write_tiny_bundle(tmp_path_factory.mktemp("ranged") / "ranged.snb", spec=spec).path


def test_inspect_prints_the_range(ranged: Path) -> None:
    shown = CliRunner().invoke(app, ["inspect", str(ranged)])
    assert "values 0 to 4095 of images with more than 8 bits become levels 0 to 255" in shown.output


def picture() -> NDArray[np.uint8]:
    """Three bands that differ."""
    levels = lit(120)
    levels[..., 0] += 60
    levels[..., 2] -= 60
    return levels


def deep(levels: NDArray[np.uint8], high: float, dtype: type) -> NDArray[np.generic]:
    return (
        np.round(levels / 255 * high, 6).astype(dtype) if dtype is np.float32 else np.rint(levels / 255 * high).astype(dtype)
    )


def tiff(values: NDArray[np.generic]) -> bytes:
    target = io.BytesIO()
    tifffile.imwrite(target, values, photometric="rgb" if values.ndim == 3 else "minisblack")
    return target.getvalue()


def png(values: NDArray[np.generic]) -> bytes:
    return cv2.imencode(".png", values[..., ::-1] if values.ndim == 3 else values)[1].tobytes()


@pytest.mark.parametrize("encode", [png, tiff])
def test_the_range_of_the_bundle_gives_the_answers_of_eight_bits(ranged: Path, tmp_path: Path, encode: object) -> None:
    assert callable(encode)
    assert open_bundle(ranged).spec.input.value_range == TWELVE_BITS
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a").write_bytes(encode(deep(picture(), 4095, np.uint16)))
    with spatialnet_edge.load(ranged) as model:
        wanted = model(picture())
        single = model(tmp_path / "deep" / "a")
        (streamed,) = model.stream(tmp_path / "deep")
    for found in (single, streamed):
        assert found["level"].value == pytest.approx(wanted["level"].value, abs=0.5)
        assert found["bands"].probabilities == pytest.approx(wanted["bands"].probabilities, abs=0.02)


def test_an_option_overrides_the_bundle(ranged: Path, tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(deep(picture(), 1.0, np.float32)))
    with spatialnet_edge.load(ranged) as model:
        wanted = model(picture())["level"].value
        (found,) = model.stream(tmp_path / "a.tif", value_range=(0, 1))
    assert found["level"].value == pytest.approx(wanted, abs=0.5)
    answers = tmp_path / "answers.jsonl"
    done = CliRunner().invoke(app, ["run", str(ranged), str(tmp_path / "a.tif"), "--range", "0,1", "--json", str(answers)])
    assert done.exit_code == 0, done.output
    written = json.loads(answers.read_text().splitlines()[0])
    assert written["predictions"]["level"]["value"] == pytest.approx(wanted, abs=0.5)


def test_without_a_range_a_deep_picture_is_skipped_with_what_to_do(tiny_path: Path, tmp_path: Path) -> None:
    (tmp_path / "deep.png").write_bytes(png(deep(picture(), 4095, np.uint16)))
    cv2.imwrite(str(tmp_path / "plain.png"), picture())
    with spatialnet_edge.load(tiny_path) as model:
        with model.stream(tmp_path) as results:
            assert len(list(results)) == 1
            assert results.stats.skipped == {"format": 1}
        with pytest.raises(SourceRefused, match=r"deep\.png: its pixels are uint16, .*--range LOW,HIGH"):
            model(tmp_path / "deep.png")
    done = CliRunner().invoke(app, ["run", str(tiny_path), str(tmp_path / "deep.png")])
    assert done.exit_code == 1
    assert "--range LOW,HIGH" in " ".join(done.output.split())


def test_pixels_of_a_deep_picture_have_no_levels_before_a_range_is_given(tmp_path: Path) -> None:
    (tmp_path / "deep.png").write_bytes(png(deep(picture(), 4095, np.uint16)))
    (frame,) = open_source(tmp_path / "deep.png")
    with pytest.raises(SourceRefused, match="--range LOW,HIGH"):
        frame.rgb()
    with pytest.raises(SourceRefused, match="--range LOW,HIGH"):
        frame.at(8, 8)


def test_grey_and_four_bands_are_taken_for_a_camera_of_three(ranged: Path, tmp_path: Path) -> None:
    grey = deep(lit(120)[..., 0], 4095, np.uint16)
    (tmp_path / "grey.tif").write_bytes(tiff(grey))
    four = np.dstack([deep(picture(), 4095, np.uint16), np.full(grey.shape, 4000, np.uint16)])
    target = io.BytesIO()
    tifffile.imwrite(target, four, photometric="rgb", extrasamples=["unspecified"])
    (tmp_path / "four.tif").write_bytes(target.getvalue())
    with spatialnet_edge.load(ranged) as model:
        assert model(tmp_path / "grey.tif")["level"].value == pytest.approx(120, abs=0.5)
        wanted = model(picture())["bands"].probabilities
        assert model(tmp_path / "four.tif")["bands"].probabilities == pytest.approx(wanted, abs=0.02)


def test_without_opencv_grey_is_read_and_colour_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deep_still, "cv2", None)
    grey = deep(lit(120)[..., 0], 4095, np.uint16)
    np.testing.assert_array_equal(decode_deep(png(grey))[..., 0], grey)
    np.testing.assert_array_equal(decode_deep(tiff(grey))[..., 0], grey)
    for encoded in (png(deep(picture(), 4095, np.uint16)), tiff(deep(picture(), 4095, np.uint16))):
        with pytest.raises(NotDecoded, match="opencv"):
            decode_deep(encoded)


def test_damaged_deep_files_are_said_to_be(tmp_path: Path) -> None:
    whole = png(deep(picture(), 4095, np.uint16))
    assert depth_of(whole) == "uint16"
    for encoded in (whole[:30], whole[:60]):
        (tmp_path / "a.png").write_bytes(encoded)
        with pytest.raises(SourceRefused, match=r"a\.png: damaged"):
            open_source(tmp_path / "a.png")
