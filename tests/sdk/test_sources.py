"""A conformance suite for every source, tests of single sources, and invalid input."""

import functools
import http.server
import itertools
import json
import os
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import spatialnet_edge
from conftest import CLIP, clip_frames
from spatialnet_edge.core.errors import SourceRefused
from spatialnet_edge.core.frames import Frame, Skipped
from spatialnet_edge.sinks.registry import open_sink
from spatialnet_edge.sources.buffer_pool import Recycled
from spatialnet_edge.sources.gstreamer import load_gstreamer, opencv_has_gstreamer
from spatialnet_edge.sources.registry import SourceUri, open_source, parse_uri, split_options

CLIP_FRAMES = 242


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def http_clip() -> Iterator[str]:
    """The shipped clip, served over HTTP on the loopback interface."""
    handler = functools.partial(QuietHandler, directory=str(CLIP.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/{CLIP.name}"
        server.shutdown()


def gst_available() -> bool:
    return load_gstreamer() is not None or opencv_has_gstreamer()


@pytest.fixture(params=["video", "image", "folder", "synthetic", "live", "stream", "gst"])
def uri(request: pytest.FixtureRequest, image_folder: Path) -> str:
    if request.param == "gst" and not gst_available():
        pytest.skip("no GStreamer visible in this environment")
    if request.param == "stream":
        return request.getfixturevalue("http_clip")
    return {
        "video": str(CLIP),
        "image": str(image_folder / "bright" / "0.jpg"),
        "folder": f"{image_folder}/",
        "synthetic": "synthetic:frames=5&size=64x48",
        "live": "synthetic:frames=5&size=64x48&fps=200",
        "gst": "gst:videotestsrc num-buffers=5 ! video/x-raw,width=66,height=48",
    }[request.param]


def test_every_source_gives_frames_in_order_and_closes_twice(uri: str) -> None:
    source = open_source(uri)
    items = list(source) if source.length is not None else [item for item, _ in zip(source, range(5), strict=False)]
    source.close()
    source.close()
    frames = [item for item in items if isinstance(item, Frame)]
    assert frames
    assert [item.seq for item in items] == list(range(len(items)))
    assert source.length is None or len(items) == source.length
    assert all(frame.pixels.dtype == np.uint8 and frame.pixels.shape[2] == 3 for frame in frames)
    times = [frame.captured_ns for frame in frames]
    assert times == sorted(times)


def test_a_video_gives_rgb_and_positions() -> None:
    source = open_source(str(CLIP))
    assert source.length == CLIP_FRAMES
    assert source.fps == pytest.approx(30)
    frames = [item for item in source if isinstance(item, Frame)]
    source.close()
    assert len(frames) == CLIP_FRAMES
    assert frames[30].media_time_s == pytest.approx(1.0)
    np.testing.assert_array_equal(frames[19].pixels, clip_frames(1)[0])


def test_a_path_and_a_number_are_sources(image_folder: Path) -> None:
    assert open_source(image_folder / "bright" / "0.jpg").length == 1
    assert len(list(open_source(image_folder))) == 7
    with pytest.raises(SourceRefused, match="/dev/video63"):
        open_source(63)


def test_what_a_desktop_leaves_on_a_card_is_not_flown_over(image_folder: Path) -> None:
    """Deleted pictures are in `.Trash-1000`, and macOS adds `._0.jpg` to every `0.jpg`."""
    before = list(open_source(f"{image_folder}/"))
    content = (image_folder / "bright" / "0.jpg").read_bytes()
    for name in (".Trash-1000/files/old.jpg", "bright/._0.jpg", "__MACOSX/bright/._0.jpg"):
        (image_folder / name).parent.mkdir(parents=True, exist_ok=True)
        (image_folder / name).write_bytes(content)
    assert len(list(open_source(f"{image_folder}/"))) == len(before)


def test_a_folder_skips_what_is_broken_with_its_path_and_first_bytes(image_folder: Path) -> None:
    items = list(open_source(f"{image_folder}/"))
    skipped = [item for item in items if isinstance(item, Skipped)]
    assert len(items) == 7
    assert [item.reason for item in skipped] == ["decode_error"]
    assert "broken.jpg" in skipped[0].detail
    assert "xff" in skipped[0].detail


def test_a_live_source_keeps_its_pace() -> None:
    source = open_source("synthetic:frames=20&size=32x32&fps=100")
    started = time.monotonic_ns()
    frames = [item for item in source if isinstance(item, Frame)]
    assert source.live
    assert (frames[-1].captured_ns - started) / 1e9 >= 0.18


def test_a_gst_pipeline_gives_its_colours() -> None:
    if not gst_available():
        pytest.skip("no GStreamer visible in this environment")
    source = open_source("gst:videotestsrc num-buffers=3 pattern=red ! video/x-raw,width=66,height=48")
    frames = [item for item in source if isinstance(item, Frame)]
    source.close()
    assert len(frames) == 3
    assert frames[0].pixels.shape == (48, 66, 3)
    assert frames[0].pixels[20, 30, 0] > 200
    assert frames[0].pixels[20, 30, 1:].max() < 60


@pytest.mark.parametrize(
    ("uri", "kind"),
    [
        ("0", "camera"),
        ("12", "camera"),
        ("0?size=1280x720&fps=30&format=MJPG", "camera"),
        ("/dev/video2", "camera"),
        ("/dev/v4l/by-path/pci-0000:00:14.0-usb-0:1:1.0-video-index0?fps=15", "camera"),
        ("rtsp://10.0.0.1/stream", "stream"),
        ("gst:videotestsrc", "gst"),
        ("synthetic:", "synthetic"),
        ("clip.mp4", "video"),
        ("file:clip.mp4", "video"),
        ("file:///tmp/clip.mp4", "video"),
        ("photo.JPG", "image"),
        (".", "folder"),
    ],
)
def test_the_uri_grammar(uri: str, kind: str) -> None:
    assert parse_uri(uri).kind == kind


@pytest.mark.parametrize(
    ("made", "uri", "kind", "rest"),
    [
        ("20240612/", "20240612", "folder", "20240612"),
        ("rtsp:", "rtsp:", "video", "rtsp:"),
        ("gst:x.mp4", "gst:x.mp4", "video", "gst:x.mp4"),
        (" lead.jpg", " lead.jpg", "image", " lead.jpg"),
        ("lead.jpg", " lead.jpg ", "image", "lead.jpg"),
        ("a b/c.png", "file:a%20b/c.png", "image", "a b/c.png"),
        ("a%20b.png", "file:a%20b.png", "image", "a%20b.png"),
        ("50%.png", "50%.png", "image", "50%.png"),
        ("a#b.png", "file:a%23b.png", "image", "a#b.png"),
        ("v\udce9.mp4", "file:v%E9.mp4", "video", "v\udce9.mp4"),
        ("2024-06-12T10:15:30.mp4", "2024-06-12T10:15:30.mp4", "video", "2024-06-12T10:15:30.mp4"),
    ],
)
def test_what_is_there_under_a_name_is_meant_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: str, uri: str, kind: str, rest: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(made).parent.mkdir(exist_ok=True)
    if made.endswith("/"):
        Path(made).mkdir()
    else:
        Path(made).write_bytes(b"x")
    assert parse_uri(uri) == SourceUri(kind, rest)


def test_a_file_uri_with_a_host_and_escapes_is_a_path(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    for host in ("", "localhost"):
        assert parse_uri(f"file://{host}{tmp_path}/a%20b") == SourceUri("folder", f"{tmp_path}/a b")


def test_options_end_a_name_only_where_it_ends(tmp_path: Path) -> None:
    (tmp_path / "a?b.tif").write_bytes(b"x")
    there = f"{tmp_path}/a?b.tif"
    assert split_options(there) == (there, "")
    assert split_options(f"{there}?tile=64") == (there, "tile=64")
    assert split_options("missing.tif?tile=64") == ("missing.tif", "tile=64")


def test_results_of_names_that_are_no_text_are_written(tiny_path: Path, image_folder: Path, tmp_path: Path) -> None:
    """A name on Linux is bytes; a name that is not UTF-8 must not lose any result."""
    folder = tmp_path / "names"
    folder.mkdir()
    content = (image_folder / "bright" / "0.jpg").read_bytes()
    for name in (b"0\xe9.jpg", b"1.jpg", b"2\xff.jpg"):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(content if name != b"2\xff.jpg" else b"broken")
    sink = open_sink(f"jsonl:{tmp_path / 'results.jsonl'}")
    list(spatialnet_edge.stream(tiny_path, f"{folder}/", sinks=[sink]))
    sink.close()
    records = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [record["source"] for record in records] == [f"{folder}/0\\xe9.jpg", f"{folder}/1.jpg"]


@given(st.text(max_size=60))
def test_any_text_as_a_uri_is_parsed_or_refused(text: str) -> None:
    try:
        kind = parse_uri(text).kind
    except SourceRefused as error:
        kind = str(error)
    assert kind


def make(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


@pytest.mark.fault(13)
@pytest.mark.fault(14)
def test_what_is_no_source_is_refused_with_a_reason(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "empty").mkdir()
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    cases = {
        "": "the source is empty",
        str(tmp_path / "missing.mp4"): "no such file",
        "carrier:pigeon": "no source 'carrier:'",
        make(tmp_path / "empty.mp4", b""): "0 bytes",
        make(tmp_path / "text.mp4", b"Dear diary, today I flew.\n" * 9): "begins with b'Dear diary",
        make(tmp_path / "text.jpg", b"Dear diary"): "not an image",
        str(tmp_path / "pipe.mp4"): "not a regular file",
        str(tmp_path / "loop.mp4"): "loop.mp4",
        "/dev/zero": "not a regular file",
        f"{tmp_path}/empty/": "no image in this folder",
        "synthetic:frames=none": "example: synthetic:",
        "synthetic:colour=red": "unknown option 'colour'",
        "synthetic:frames=0": "must be positive",
        "synthetic:bands=0": "bands from 1 to 64",
        "63": "camera 63",
        "/dev/video63?size=640x480": "this user may read /dev/video63",
        "0?size=big": "example: 0?size=1280x720",
        "0?fps=-1": "must be positive",
        "0?colour=red": "unknown option 'colour'",
        "gst:": "needs a pipeline",
        "carrier:" + 5000 * "pigeon": "no source 'carrier:'",
        5000 * "x" + ".mp4": "cannot be opened",
    }
    for uri, reason in cases.items():
        with pytest.raises(SourceRefused) as caught:
            list(open_source(uri))
        assert reason in str(caught.value), uri


@pytest.mark.fault(12)
def test_a_decompression_bomb_is_skipped_by_its_header(tmp_path: Path) -> None:
    """A PNG header of 50,000 × 50,000 pixels must be refused without allocating 7.5 GB."""
    import struct
    import zlib

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(bomb)
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))\n"
        "from spatialnet_edge.sources.registry import open_source\n"
        f"print([item.reason for item in open_source({str(tmp_path)!r} + '/')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "['decode_error']"


def test_frames_that_are_kept_keep_their_pixels() -> None:
    kept = [item.pixels for item in itertools.islice(open_source(str(CLIP)), 40) if isinstance(item, Frame)]
    assert len(kept) == 40
    checksums = [zlib.adler32(np.ascontiguousarray(pixels)) for pixels in kept]
    decoded = cv2.VideoCapture(str(CLIP))
    assert checksums == [zlib.adler32(np.ascontiguousarray(decoded.read()[1][..., ::-1])) for _ in kept]


def test_memory_of_a_picture_is_used_again_once_its_last_view_is_gone() -> None:
    recycled = Recycled()
    first = recycled((4, 6, 3))
    address = first.ctypes.data
    shown = first[..., ::-1]
    del first
    assert recycled((4, 6, 3)).ctypes.data != address
    del shown
    assert recycled((4, 6, 3)).ctypes.data == address
    assert recycled((2, 2, 3)).shape == (2, 2, 3)
