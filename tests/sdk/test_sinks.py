"""A conformance suite for every sink, and tests of their queue."""

import json
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from conftest import TINY, clip_frames
from spatialnet_edge.core.errors import SinkError, SinkRefused, UsageError
from spatialnet_edge.core.frames import Frame
from spatialnet_edge.core.results import FrameResult, assemble
from spatialnet_edge.sinks.jsonl import JsonlSink
from spatialnet_edge.sinks.memory import MemorySink
from spatialnet_edge.sinks.queued import QueuedSink
from spatialnet_edge.sinks.registry import open_sink
from spatialnet_edge.sinks.video import VideoSink, draw


def result(seq: int = 0, pixels: np.ndarray | None = None) -> FrameResult:
    image = clip_frames(2)[seq % 2] if pixels is None else pixels
    rows = {
        "shade": np.array([0.2, 0.8], np.float32),
        "bands": np.array([0.9, 0.1, 0.2], np.float32),
        "level": np.array([3], np.float32),
    }
    return assemble(TINY, Frame(image, seq, "tests"), rows, 2.0, ())


@pytest.mark.parametrize(
    "uri",
    [
        "jsonl:{}/log.jsonl",
        "csv:{}/log.csv",
        "video:{}/out.mp4",
        "video:{}/out.avi",
        "null:",
        "log:{}/results",
        "geojson:{}/places",
        "unknown:{}/doubtful?keep=2",
    ],
)
def test_every_sink_takes_results_and_closes_twice(uri: str, tmp_path: Path) -> None:
    sink = open_sink(uri.format(tmp_path / "new folder"))
    for seq in range(3):
        sink.write(result(seq))
    sink.close()
    sink.close()


def test_an_unknown_sink_names_the_known_ones() -> None:
    for uri in ("telegraph:x", "no colon"):
        with pytest.raises(
            UsageError, match=r"ccsds\+udp, csv, geojson, jsonl, log, mavlink, mqtt, mqtts, null, udp, unix, unknown, video"
        ):
            open_sink(uri)


def test_each_line_of_the_log_is_readable_at_once(tmp_path: Path) -> None:
    sink = open_sink(f"jsonl:{tmp_path / 'log.jsonl'}")
    for seq in range(3):
        sink.write(result(seq))
        lines = (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()
        assert [json.loads(line)["seq"] for line in lines] == list(range(seq + 1))
    sink.close()


def test_a_log_that_cannot_be_written_says_where_and_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkRefused, match="cannot be written by user"):
        open_sink(f"jsonl:{tmp_path / 'file' / 'log.jsonl'}")


@pytest.mark.parametrize("scheme", ["jsonl", "unix"])
def test_a_budget_leaves_out_what_is_too_much_and_counts_it(scheme: str, tmp_path: Path) -> None:
    size = len(json.dumps(result().to_dict())) + 200  # room for one in this moment, whichever the sink
    sink = open_sink(f"{scheme}:{tmp_path / 'out?of'}?budget={size if scheme == 'jsonl' else 300}")
    for seq in range(20):
        sink.write(result(seq))
    assert 10 < sink.over_budget < 20  # type: ignore[attr-defined]
    sink.close()
    if scheme == "jsonl":
        assert len((tmp_path / "out?of").read_text().splitlines()) == 20 - sink.over_budget  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="not a number"):
        open_sink(f"{scheme}:{tmp_path / 'x'}?budget=much")


def test_a_restart_adds_to_a_log_and_a_torn_line_spoils_no_other(tmp_path: Path) -> None:
    where = tmp_path / "log.jsonl"
    for seq in (0, 1):
        sink = open_sink(f"jsonl:{where}")
        sink.write(result(seq))
        sink.close()
    with where.open("a") as file:
        file.write('{"seq": 2, "sour')
    sink = open_sink(f"jsonl:{where}")
    sink.write(result(3))
    sink.close()
    lines = where.read_text().splitlines()
    assert [json.loads(lines[index])["seq"] for index in (0, 1, 3)] == [0, 1, 3]
    anew = JsonlSink(str(where), overwrite=True)
    anew.write(result(4))
    anew.close()
    assert json.loads(where.read_text())["seq"] == 4


def test_a_full_disk_is_reported_with_the_frame() -> None:
    sink = open_sink("jsonl:/dev/full")
    with pytest.raises(SinkError, match=r"/dev/full: writing frame 0 failed: No space left"):
        sink.write(result())


def test_the_overlay_video_plays_and_has_the_panel(tmp_path: Path) -> None:
    sink = VideoSink(str(tmp_path / "out.mp4"), fps=10)
    for seq in range(4):
        sink.write(result(seq))
    sink.close()
    capture = cv2.VideoCapture(str(tmp_path / "out.mp4"))
    frames = [image for arrived, image in iter(capture.read, (False, None)) if arrived]
    assert len(frames) == 4
    assert frames[0].shape == (720, 1280, 3)
    plain, drawn = clip_frames(2)[0][..., ::-1].astype(int), frames[0].astype(int)
    assert np.abs(plain[:60, :400] - drawn[:60, :400]).mean() > 20
    assert np.abs(plain[500:, 800:] - drawn[500:, 800:]).mean() < 12


def test_a_restart_leaves_the_video_before_it_alone(tmp_path: Path) -> None:
    for overwrite in (False, False, True):
        sink = VideoSink(str(tmp_path / "out.mp4"), fps=10, overwrite=overwrite)
        sink.write(result())
        sink.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out-2.mp4", "out.mp4"]


@pytest.mark.parametrize("shape", [(16, 16, 3), (96, 96, 3), (2160, 3840, 3), (1, 400, 3)])
def test_drawing_fits_any_frame(shape: tuple[int, ...]) -> None:
    image = np.zeros(shape, np.uint8)
    assert draw(image, result(pixels=image)).shape == shape


def test_drawing_leaves_the_frame_as_it_was(tmp_path: Path) -> None:
    """A camera's frame is a reversed view of read-only shared memory that other sinks share."""
    stored = np.ascontiguousarray(clip_frames(1)[0][..., ::-1])
    before = stored.copy()
    stored.flags.writeable = False
    sink = open_sink(f"video:{tmp_path / 'out.mp4'}")
    sink.write(result(0, stored[..., ::-1]))
    sink.close()
    assert np.array_equal(stored, before)


def test_an_overlay_of_another_kind_is_refused() -> None:
    with pytest.raises(SinkRefused, match=r"\.mp4 or \.avi"):
        open_sink("video:out.gif")


class SlowSink(MemorySink):
    def write(self, result: FrameResult) -> None:
        time.sleep(0.02)
        super().write(result)


class BrokenSink(MemorySink):
    def write(self, result: FrameResult) -> None:
        raise OSError("the antenna fell off")


@pytest.mark.fault(42)
def test_a_slow_sink_does_not_hold_up_a_live_stream_and_its_losses_are_counted() -> None:
    slow = SlowSink()
    queued = QueuedSink(slow, wait=False, capacity=4)
    start = time.monotonic()
    for seq in range(50):
        queued.write(result(seq))
    assert time.monotonic() - start < 0.5
    queued.close()
    assert queued.dropped > 0
    assert len(slow.results) + queued.dropped == 50
    assert slow.results[-1].seq == 49


def test_a_recording_waits_and_loses_nothing() -> None:
    slow = SlowSink()
    queued = QueuedSink(slow, wait=True, capacity=2)
    for seq in range(20):
        queued.write(result(seq))
    queued.close()
    assert [each.seq for each in slow.results] == list(range(20))
    assert slow.closed


@pytest.mark.parametrize("pause_s", [0.0, 0.3])
def test_a_broken_sink_is_reported_not_swallowed(pause_s: float) -> None:
    """Also if the last result failed and the sink's thread has ended before the run closes it."""
    queued = QueuedSink(BrokenSink(), wait=True)
    queued.write(result())
    time.sleep(pause_s)
    with pytest.raises(SinkError, match="the antenna fell off"):
        queued.close()
    queued.close()  # reported once
