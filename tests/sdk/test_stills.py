"""Still images: the content determines the format; unsupported images are refused with the reason."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import spatialnet_edge
from conftest import clip_frames
from spatialnet_edge.core import still_decoder
from spatialnet_edge.core.errors import SourceRefused
from spatialnet_edge.core.frames import Frame, Skipped
from spatialnet_edge.core.still_decoder import decode_still
from spatialnet_edge.sources.registry import open_source


def picture() -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(clip_frames(1)[0][:100, :200]))


def encoded(kind: str, image: Image.Image | None = None, **options: object) -> bytes:
    target = io.BytesIO()
    (image or picture()).save(target, kind, **options)  # type: ignore[arg-type]
    return target.getvalue()


@pytest.mark.parametrize("name", ["p", "p.jfif", "p.jpe", "p.mpo", "p.JPG", "p.dat", "p.png", "p.mp4"])
def test_a_jpeg_of_any_name_is_upright_and_keeps_its_place(tmp_path: Path, name: str) -> None:
    exif = Image.Exif()
    exif[0x112] = 6
    exif.get_ifd(0x8825).update({1: "S", 2: (33.0, 52.0, 12.0), 3: "W", 4: (70.0, 12.0, 36.0)})
    (tmp_path / name).write_bytes(encoded("JPEG", exif=exif))
    (frame,) = open_source(tmp_path / name)
    assert isinstance(frame, Frame)
    assert frame.pixels.shape == (200, 100, 3)
    assert frame.pose is not None
    assert frame.pose.latitude == pytest.approx(-33.87)


def test_every_format_is_counted_in_a_folder(tmp_path: Path) -> None:
    kinds = {
        "a.jp2": "JPEG2000",
        "b.avif": "AVIF",
        "c.gif": "GIF",
        "d.webp": "WEBP",
        "e.bmp": "BMP",
        "f.tif": "TIFF",
        "g": "JPEG",
    }
    for name, kind in kinds.items():
        (tmp_path / name).write_bytes(encoded(kind))
    (tmp_path / "notes").write_text("no image")
    items = list(open_source(f"{tmp_path}/"))
    assert len(items) == len(kinds)
    for item in items:
        assert isinstance(item, Frame), item
        assert np.abs(item.pixels.astype(int) - np.asarray(picture())).mean() < 20


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "WEBP", "PNG", "MPO"])
def test_of_several_pictures_the_first_is_taken_and_that_is_said(tmp_path: Path, tiny_path: Path, kind: str) -> None:
    content = encoded(kind, save_all=True, append_images=[Image.new("RGB", (200, 100)), Image.new("RGB", (200, 100), "red")])
    (tmp_path / "x").write_bytes(content)
    (result,) = spatialnet_edge.stream(tiny_path, tmp_path / "x")
    assert result.to_dict()["note"] == "the first of 3 pictures in the file"
    assert np.abs(result.frame.pixels.astype(int) - np.asarray(picture())).mean() < 20
    (tmp_path / "x").write_bytes(encoded("JPEG"))
    (result,) = spatialnet_edge.stream(tiny_path, tmp_path / "x")
    assert "note" not in result.to_dict()


def deep_png() -> bytes:
    """A PNG of 16-bit colour, which Pillow cannot write."""
    import cv2

    return cv2.imencode(".png", np.asarray(picture()).astype(np.uint16) << 4)[1].tobytes()


def tiff(values: np.ndarray) -> bytes:
    tifffile = pytest.importorskip("tifffile")
    target = io.BytesIO()
    tifffile.imwrite(target, values, photometric="rgb")
    return target.getvalue()


@pytest.mark.fault(9)
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (deep_png, "uint16; expected"),
        (lambda: tiff(np.asarray(picture()).astype(np.uint16) * 16), "3 bands of uint16"),
        (lambda: encoded("TIFF", Image.fromarray(np.zeros((9, 9), np.uint16))), "1 band of uint16"),
        (lambda: tiff(np.zeros((9, 9, 3), np.float32)), "3 bands of float32"),
        (lambda: tiff(np.zeros((9, 9, 5), np.uint8)), "5 bands of uint8"),
    ],
)
def test_more_than_eight_bits_or_four_bands_are_refused_as_such(make: object, words: str) -> None:
    """Pillow returns the high byte of 16-bit colour: 12-bit data become black, and black was classified as "water"."""
    assert callable(make)
    with pytest.raises(ValueError, match=words) as caught:
        decode_still(make())
    assert "scene:PATH?scale=" in str(caught.value)


@pytest.mark.fault(12)
@pytest.mark.fault(60)
def test_a_picture_that_is_too_large_is_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for side in (9_500, 14_000):  # Pillow warns of the first, and refuses the second
        (tmp_path / "big.png").write_bytes(large_png(side))
        with pytest.raises(SourceRefused, match=r"too large: .*scene:PATH"):
            open_source(tmp_path / "big.png")
    with (tmp_path / "sparse.jpg").open("wb") as file:
        file.truncate(5 << 30)
    with pytest.raises(SourceRefused, match="too large: 5368709120 bytes"):
        open_source(tmp_path / "sparse.jpg")


def large_png(side: int) -> bytes:
    """A black PNG of this side, in a few hundred bytes to some kilobytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(b"\0" * (1 + 3 * side)) for _ in range(side)) + packer.flush()
    head = side.to_bytes(4, "big") * 2 + bytes((8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.fault(60)
def test_the_largest_picture_fits_in_the_units_memory(tmp_path: Path) -> None:
    """The unit allows 2 GB. A file of a few kilobytes can decode to the largest allowed picture."""
    side = int(still_decoder.MAX_PIXELS**0.5)
    (tmp_path / "x.png").write_bytes(large_png(side))
    program = (
        "from spatialnet_edge.sources.registry import open_source\n"
        f"(frame,) = open_source({str(tmp_path / 'x.png')!r})\n"
        # VmHWM is the peak of this program; ru_maxrss would include the peak of its parent process
        "status = dict(line.split(':', 1) for line in open('/proc/self/status'))\n"
        "print(frame.pixels.shape[0], status['VmHWM'].split()[0])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    rows, peak_kb = map(int, done.stdout.split())
    assert rows == side
    assert peak_kb < 1_500_000


@pytest.mark.parametrize(
    "content", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"P6 9 9 255\n" + b"x" * 243, b"<svg/>"]
)
def test_other_formats_start_no_decoder(content: bytes) -> None:
    with pytest.raises(ValueError, match="not an image"):
        decode_still(content)


@pytest.mark.fault(13)
def test_each_broken_file_of_a_folder_is_named(tmp_path: Path) -> None:
    whole = encoded("JPEG")
    for index in range(6):
        (tmp_path / f"{index}.jpg").write_bytes(whole[: 200 + 100 * index])
    items = list(open_source(f"{tmp_path}/"))
    assert [f"{index}.jpg" in item.detail for index, item in enumerate(items) if isinstance(item, Skipped)] == [True] * 6
    assert json.dumps([item.detail for item in items if isinstance(item, Skipped)])
