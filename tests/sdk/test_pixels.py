"""Stills are decoded by Pillow, and resized by OpenCV or, where it is not installed, by NumPy: the same pixels either way."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from conftest import SAMPLES, clip_frames
from spatialnet_edge.core.installation import install_command
from spatialnet_edge.core.pixels import decode_png, decode_rgb, encode_png, resize, resize_by_numpy

WITHOUT_OPENCV = "import sys; sys.modules['cv2'] = None; from spatialnet_edge.cli.app import main; main()"


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 900), st.integers(1, 900), st.sampled_from([1, 3, 4, 7]))
def test_numpy_resizes_as_opencv_does(width: int, height: int, bands: int) -> None:
    frame = clip_frames(1)[0][:300, :500]
    image = np.ascontiguousarray(np.dstack([frame, frame, frame])[..., :bands])
    difference = resize(image, width, height).astype(int) - resize_by_numpy(image, width, height)
    assert difference.shape == (height, width, bands)
    assert np.abs(difference).max() <= 1


def test_a_mean_over_areas_keeps_the_mean() -> None:
    frame = clip_frames(1)[0]
    assert abs(resize_by_numpy(frame, 96, 96).mean() - frame.mean()) < 0.1


def encoded(image: NDArray[np.generic], kind: str, **options: object) -> bytes:
    target = io.BytesIO()
    Image.fromarray(image).save(target, kind, **options)
    return target.getvalue()


def test_png_is_lossless() -> None:
    frame = clip_frames(1)[0]
    np.testing.assert_array_equal(decode_rgb(encode_png(frame)), frame)


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 13])
def test_any_number_of_bands_goes_through_a_png(bands: int) -> None:
    pixels = np.random.default_rng(bands).integers(0, 256, (9, 12, bands), np.uint8)
    np.testing.assert_array_equal(decode_png(encode_png(pixels), bands), pixels)


def test_a_png_of_another_number_of_bands_is_refused() -> None:
    with pytest.raises(ValueError, match="24 pixels wide; expected 5 bands side by side"):
        decode_png(encode_png(np.zeros((9, 12, 2), np.uint8)), 5)


def test_grey_becomes_colour_and_a_turned_photograph_is_upright() -> None:
    frame = clip_frames(1)[0]
    grey = decode_rgb(encoded(frame[..., 0], "PNG"))
    np.testing.assert_array_equal(grey, np.dstack([frame[..., 0]] * 3))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    np.testing.assert_array_equal(decode_rgb(encoded(frame, "PNG", exif=exif)), np.rot90(frame, -1))


@pytest.mark.fault(6)
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda good: good[: len(good) // 2], "damaged"),
        (lambda good: b"hello, I am a text", "not an image"),
        (lambda good: b"", "not an image"),
        (lambda good: encoded(np.zeros((4, 4), np.uint16), "PNG"), "8 bits"),
    ],
)
def test_an_invalid_picture_gives_the_reason(spoil: object, words: str) -> None:
    assert callable(spoil)
    with pytest.raises(ValueError, match=words):
        decode_rgb(spoil(encoded(clip_frames(1)[0], "JPEG")))


def without_opencv(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line in a Python that has no `cv2`."""
    return subprocess.run([sys.executable, "-c", WITHOUT_OPENCV, *arguments], capture_output=True, text=True, timeout=120)


def test_the_shipped_student_runs_without_opencv(tmp_path: Path) -> None:
    with zipfile.ZipFile(SAMPLES / "ucmerced.zip") as archive:
        for name in [n for n in archive.namelist() if n.endswith(".jpg")][:6]:
            archive.extract(name, tmp_path)
    ran = without_opencv("run", "builtin:student", str(tmp_path), "--json", str(tmp_path / "results.jsonl"))
    assert ran.returncode == 0, ran.stderr
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 6


def test_a_recording_runs_without_opencv() -> None:
    ran = without_opencv("run", "builtin:student", "samples/brighton_beach.mp4", "--limit", "3")
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize(
    ("library", "source", "extra"), [("av", "samples/brighton_beach.mp4", "video"), ("cv2", "0", "opencv")]
)
def test_a_missing_library_names_its_extra(library: str, source: str, extra: str) -> None:
    program = f"import sys; sys.modules[{library!r}] = None; from spatialnet_edge.sources.registry import open_source as o"
    ran = subprocess.run([sys.executable, "-c", f"{program}; o({source!r})"], capture_output=True, text=True, timeout=120)
    assert f"MissingExtra: the library '{library}' is not installed" in ran.stderr
    assert f"install it with: {install_command(extra)}\n" in ran.stderr
