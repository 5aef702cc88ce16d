"""Recordings through FFmpeg: decodable packets, presentation times, colours and orientation."""

from __future__ import annotations

import io
import os
import shutil
import struct
import threading
from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import spatialnet_edge
from conftest import CLIP, TINY, clip_frames
from spatialnet_edge.core.errors import SourceLost, SourceRefused
from spatialnet_edge.core.frames import Frame, Skipped, preprocess
from spatialnet_edge.core.spec import RGB, InputSpec
from spatialnet_edge.engines.fake import FakeEngine
from spatialnet_edge.engines.registry import CheckedEngine
from spatialnet_edge.runtime.pipeline import Pipeline
from spatialnet_edge.sources import ffmpeg
from spatialnet_edge.sources.container_end import segment_end
from spatialnet_edge.sources.decoded_picture import DecodedPicture
from spatialnet_edge.sources.ffmpeg import Decoder, Undecodable, open_file
from spatialnet_edge.sources.registry import open_source

HEIGHT, WIDTH = 96, 128


def pictures(count: int) -> list[NDArray[np.uint8]]:
    """Parts of the shipped clip, which move."""
    whole = clip_frames(1)[0]
    return [np.ascontiguousarray(whole[200 + step : 200 + step + HEIGHT, 300 : 300 + WIDTH]) for step in range(count)]


def write_video(
    path: Path,
    times_ms: list[int],
    codec: str = "mpeg4",
    pixel_format: str = "yuv420p",
    audio_s: float = 0.0,
    options: dict[str, str] | None = None,
) -> Path:
    """A recording with a picture at each of these times, and optionally silence that lasts longer."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=1000, options=options or {})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixel_format
        stream.codec_context.time_base = Fraction(1, 1000)
        sound = container.add_stream("aac", rate=8000) if audio_s else None
        for time_ms, picture in zip(times_ms, pictures(len(times_ms)), strict=True):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = time_ms, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound is not None:
            for index in range(int(audio_s * 8)):
                silence = av.AudioFrame.from_ndarray(np.zeros((1, 1000), np.float32), "fltp", "mono")
                silence.sample_rate, silence.pts, silence.time_base = 8000, index * 1000, Fraction(1, 8000)
                container.mux(sound.encode(silence))
            container.mux(sound.encode())
    return path


def read(path: Path | str) -> list[Frame | Skipped]:
    source = open_source(str(path))
    items = list(source)
    source.close()
    return items


def times_of(items: list[Frame | Skipped]) -> list[float | None]:
    return [round(item.media_time_s, 3) for item in items if isinstance(item, Frame) and item.media_time_s is not None]


REGULAR = [40 * step for step in range(30)]
GAPS = [33 * step for step in range(10)] + [333 + 500 * step for step in range(20)]


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "avi", "mov"])
def test_an_intact_recording_ends_by_itself_though_its_sound_is_longer(tmp_path: Path, suffix: str) -> None:
    """The container's duration is the sound's: ten seconds for one and a fifth of pictures."""
    items = read(write_video(tmp_path / f"x.{suffix}", REGULAR, audio_s=10))
    assert len(items) == 30
    assert all(isinstance(item, Frame) for item in items)


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_a_frames_time_is_its_presentation_time_stamp(tmp_path: Path, suffix: str) -> None:
    items = read(write_video(tmp_path / f"x.{suffix}", GAPS))
    assert times_of(items) == [time_ms / 1000 for time_ms in GAPS]


def test_media_time_is_in_the_results_and_smoothing_goes_by_it(tmp_path: Path, tiny_path: Path) -> None:
    path = write_video(tmp_path / "x.mkv", [0, 40, 10_000])
    results = list(spatialnet_edge.stream(tiny_path, str(path), smoothing_s=5))
    assert [result.to_dict()["media_time_s"] for result in results] == [0.0, 0.04, 10.0]
    alone = list(spatialnet_edge.stream(tiny_path, str(path)))
    # after a gap of ten seconds the smoothing starts anew
    np.testing.assert_array_equal(results[2].shade.probabilities, alone[2].shade.probabilities)


def spoil_packets(path: Path, numbers: range) -> None:
    """Overwrite the data of some packets, in order of decoding."""
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    for number in numbers:
        position, size = places[number]
        content[position : position + size] = b"\xff" * size
    path.write_bytes(content)


@pytest.mark.fault(6)
@pytest.mark.parametrize("numbers", [range(12, 15), range(27, 30), range(1)])
def test_an_undecodable_packet_is_one_decode_error_and_the_stream_continues(tmp_path: Path, numbers: range) -> None:
    path = write_video(tmp_path / "x.mp4", REGULAR, "libx264", options={"g": "5", "bf": "0"})
    spoil_packets(path, numbers)
    items = read(path)
    errors = [item for item in items if isinstance(item, Skipped)]
    assert {item.reason for item in errors} == {"decode_error"}
    assert len(errors) >= len(numbers)
    assert len(items) == 30
    assert [item.seq for item in items] == list(range(30))
    decoded = {item.media_time_s for item in items if isinstance(item, Frame)}
    assert {time_ms / 1000 for time_ms in REGULAR[numbers.stop + 4 :]} <= {
        round(time, 3) for time in decoded if time is not None
    }


@pytest.mark.fault(6)
@pytest.mark.parametrize("spoilt", [26, 27, 28, 29])
def test_a_damaged_end_loses_no_other_frame_although_decoding_is_parallel(tmp_path: Path, spoilt: int) -> None:
    """Nothing refers to the pictures of a recording of key frames, and with B-frames one failure must not hide pictures."""
    for name, options in {"key.mp4": {"g": "1"}, "both.mp4": {"g": "30", "bf": "2", "b_strategy": "0"}}.items():
        path = write_video(tmp_path / name, REGULAR, "libx264", options=options)
        spoil_packets(path, range(spoilt, spoilt + 1))
        items = read(path)
        assert [item.seq for item in items] == list(range(30))
        shown = [item.media_time_s for item in items if isinstance(item, Frame)]
        assert shown == sorted(set(shown))
        if name == "key.mp4" or spoilt == 29:
            assert len(shown) == 29


@pytest.mark.fault(6)
@pytest.mark.parametrize("spoilt", [0, 12, 27, 29])
def test_a_stream_counts_every_packet_without_a_picture(tmp_path: Path, spoilt: int) -> None:
    """A stream cannot be decoded again, so what a failure hides is counted."""
    path = write_video(tmp_path / "x.mp4", REGULAR, "libx264", options={"g": "30", "bf": "2", "b_strategy": "0"})
    spoil_packets(path, range(spoilt, spoilt + 1))
    with closing(Decoder(open_file(path), low_delay=True)) as decoder:
        items = list(decoder.pictures())
    assert len(items) == 30
    assert any(isinstance(item, Undecodable) for item in items)


@pytest.mark.fault(6)
def test_damage_in_a_recording_without_duration_loses_no_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "x.mkv", REGULAR, "libx264", options={"g": "5", "bf": "0"})
    raw = tmp_path / "x.h264"
    with av.open(str(path)) as source, av.open(str(raw), "w", format="h264") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    source = open_source(str(raw))
    assert source.length is None
    assert len(list(source)) == 30
    source.close()


@pytest.mark.parametrize(
    ("pixel_format", "full_range", "matrix"),
    [
        ("yuv420p", False, "ITU601"), ("yuv420p", False, "ITU709"), ("yuv420p", True, "ITU709"), ("yuv444p10le", False, "ITU709"),
        ("yuv422p", True, "ITU601"),
    ],
)  # fmt: skip
def test_colours_are_those_that_were_written(tmp_path: Path, pixel_format: str, full_range: bool, matrix: str) -> None:
    """Matrix, range and bit depth as the stream states them; a picture of one colour comes back as that colour."""
    colour = (200, 60, 30)
    plain = np.full((HEIGHT, WIDTH, 3), colour, np.uint8)
    with av.open(str(tmp_path / "x.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixel_format
        stream.codec_context.colorspace = 1 if matrix == "ITU709" else 6
        stream.codec_context.color_range = 2 if full_range else 1
        frame = av.VideoFrame.from_ndarray(plain, "rgb24").reformat(
            format=pixel_format, dst_colorspace=matrix, dst_color_range="JPEG" if full_range else "MPEG"
        )
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    (item,) = read(tmp_path / "x.mkv")
    assert isinstance(item, Frame)
    assert np.abs(item.pixels.reshape(-1, 3).mean(0) - colour).max() < 2.5
    assert np.abs(item.at(7, 9).reshape(-1, 3).mean(0) - colour).max() < 2.5


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
        ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
        ((0, -1, 1, 0), lambda image: np.rot90(image, 1)),
        ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
        ((1, 0, 0, -1), lambda image: image[::-1]),
        ((0, 1, 1, 0), lambda image: image.transpose(1, 0, 2)),
    ],
)
def test_the_display_matrix_turns_and_mirrors(tmp_path: Path, matrix: tuple[int, ...], expected: object) -> None:
    """ISO/IEC 14496-12, section 8.3.2: the track header's matrix, a, b, u, c, d, v, x, y, w in 16.16 (u, v, w in 2.30)."""
    path = write_video(tmp_path / "x.mp4", [0, 40])
    (plain, _) = read(path)
    content = bytearray(path.read_bytes())
    a, b, c, d = (value << 16 for value in matrix)
    start = content.index(b"tkhd") + 44
    assert struct.unpack(">9i", content[start : start + 36])[0] == 1 << 16
    content[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    (turned, _) = read(path)
    assert isinstance(plain, Frame)
    assert isinstance(turned, Frame)
    assert callable(expected)
    np.testing.assert_array_equal(turned.pixels, expected(plain.pixels))
    small = turned.at(24, 30)
    assert small.shape == (24, 30, 3)
    assert isinstance(turned.image, DecodedPicture)
    assert (turned.image.height, turned.image.width) == turned.pixels.shape[:2]


def test_a_picture_is_scaled_from_its_planes_to_the_mean_over_areas() -> None:
    (item,) = [item for item, _ in zip(open_source(str(CLIP)), range(1), strict=False)]
    assert isinstance(item, Frame)
    small = item.at(96, 96)
    assert isinstance(item.image, DecodedPicture)
    assert item.image._rgb is None  # no picture of full size was made
    of_rgb = Frame(item.pixels, 0, "array").at(96, 96)
    assert np.abs(small.astype(int) - of_rgb).mean() < 1.5
    halved = preprocess(item, InputSpec(height=96, width=96, groups=(RGB,), resize="stretch"))
    of_rgb = preprocess(item.pixels, InputSpec(height=96, width=96, groups=(RGB,), resize="stretch"))
    assert np.abs(halved.astype(int) - of_rgb).mean() < 1.5


def test_the_full_size_picture_is_made_only_on_request() -> None:
    pipeline = Pipeline(CheckedEngine(FakeEngine(TINY)))
    results = pipeline.stream(open_source(str(CLIP)))
    for _ in range(5):
        image = next(results).frame.image
        assert isinstance(image, DecodedPicture)
        assert image._rgb is None
    results.close()


@pytest.mark.parametrize(
    "name", [b"v\xe9.mp4", b"2024-06-12T10:15:30.mp4", b" lead.mp4", b"clip%03d.mp4", b"a#b?c=d.mp4", b"-i.mp4"]
)
def test_a_name_may_hold_any_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: bytes) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(CLIP, os.fsencode(tmp_path) + b"/" + name)
    source = open_source(os.fsdecode(name))
    assert source.length == 242
    source.close()


class Counting(BaseHTTPRequestHandler):
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_error(404)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[tuple[str, list[str]]]:
    handler = type("Handler", (Counting,), {"asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", handler.asked
        server.shutdown()


@pytest.mark.fault(54)
def test_a_playlist_named_as_a_video_opens_no_file_and_no_connection(tmp_path: Path, web: tuple[str, list[str]]) -> None:
    address, asked = web
    shutil.copy(CLIP, tmp_path / "other.mp4")
    head = "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n"
    rtp = "c=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
    texts = {
        "hls.mp4": f"{head}{address}/seg.ts\n#EXT-X-ENDLIST\n",
        "hls_local.mp4": f"{head}file://{tmp_path}/other.mp4\n#EXT-X-ENDLIST\n",
        "hls.m3u8": f"{head}{address}/seg.ts\n#EXT-X-ENDLIST\n",
        "concat.mp4": "ffconcat version 1.0\nfile other.mp4\n",
        "sdp.mp4": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\n{rtp}",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(SourceRefused, match="not a video that FFmpeg decodes"):
            read(tmp_path / name)
    assert asked == []


@pytest.mark.fault(60)
def test_an_enormous_picture_in_a_recording_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = io.BytesIO()
    Image.fromarray(clip_frames(1)[0]).save(content, "JPEG")
    small = io.BytesIO()
    Image.fromarray(pictures(1)[0]).save(small, "JPEG")
    (tmp_path / "x.mjpeg").write_bytes(small.getvalue() * 3 + content.getvalue() + small.getvalue() * 2)
    assert len([item for item in read(tmp_path / "x.mjpeg") if isinstance(item, Frame)]) == 6
    monkeypatch.setattr(ffmpeg, "MAX_PIXELS", HEIGHT * WIDTH * 2)
    items = read(tmp_path / "x.mjpeg")
    assert [item.reason for item in items if isinstance(item, Skipped)] == ["decode_error"]
    assert len(items) == 6


def test_a_recording_that_was_cut_off_says_so(tmp_path: Path) -> None:
    whole = CLIP.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])  # its index is at the front
    items: list[Frame | Skipped] = []
    with pytest.raises(SourceLost, match="truncated there"):
        items.extend(collect(tmp_path / "cut.mp4", items))
    assert 50 < len(items) < 200


def collect(path: Path, kept: list[Frame | Skipped]) -> Iterator[Frame | Skipped]:
    for item in open_source(str(path)):
        kept.append(item)
    yield from ()


def test_a_source_may_be_closed_while_it_is_read() -> None:
    source = open_source(str(CLIP))
    seen: list[object] = []
    reader = threading.Thread(target=lambda: seen.extend(source))
    reader.start()
    source.close()
    reader.join(timeout=20)
    assert not reader.is_alive()
    assert len(seen) < 242


def test_a_recording_without_pictures_is_refused(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        sound = container.add_stream("aac", rate=8000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1000), np.float32), "fltp", "mono")
        silence.sample_rate, silence.pts = 8000, 0
        container.mux(sound.encode(silence))
        container.mux(sound.encode())
    with pytest.raises(SourceRefused, match="it has no video stream"):
        open_source(str(tmp_path / "sound.mp4"))


@pytest.mark.fault(79)
@pytest.mark.parametrize(("suffix", "codec"), [("mkv", "mpeg4"), ("webm", "libvpx"), ("avi", "mpeg4"), ("ts", "mpeg4")])
def test_a_truncated_recording_gives_what_is_there_and_says_so(tmp_path: Path, suffix: str, codec: str) -> None:
    """Of each container with sizes of its own; a transport stream that ends at a packet is whole."""
    whole = write_video(tmp_path / f"whole.{suffix}", list(range(0, 2000, 40)), codec)
    assert len([item for item in read(whole) if isinstance(item, Frame)]) == 50
    raw = whole.read_bytes()
    for share in (0.7, 0.9):
        cut = int(len(raw) * share) // 188 * 188 + 97
        (tmp_path / f"cut.{suffix}").write_bytes(raw[:cut])
        items: list[Frame | Skipped] = []
        with pytest.raises(SourceLost, match=r"stopped after frame [0-9]+.*truncated there"):
            items.extend(collect(tmp_path / f"cut.{suffix}", items))
        assert 10 < len([item for item in items if isinstance(item, Frame)]) <= 50


def test_the_end_of_a_segment_is_read_from_its_header() -> None:
    header, void = bytes.fromhex("1a45dfa3 83") + b"abc", bytes.fromhex("ec 40 02") + b"xy"
    assert segment_end(header + void + bytes.fromhex("18538067 43e8")) == len(header + void) + 6 + 1000
    for unknown in ("ff", "01ffffffffffffff"):  # as a recorder leaves it that could not seek back
        assert segment_end(header + bytes.fromhex("18538067" + unknown)) is None
    for head in (b"", b"\0", b"\x1a", header, bytes.fromhex("18538067"), b"\x1a\x45\xdf\xa3\x08", b"RIFF" + bytes(100)):
        assert segment_end(head) is None
