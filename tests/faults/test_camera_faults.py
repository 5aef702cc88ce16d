"""Camera faults: the stream continues, and every frame is accounted for."""

import gc
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest

from conftest import CLIP, TINY, clip_frames
from spatialnet_edge.core.errors import SourceLost, SourceRefused
from spatialnet_edge.core.frames import Frame, Skipped
from spatialnet_edge.engines.fake import FakeEngine
from spatialnet_edge.engines.registry import CheckedEngine
from spatialnet_edge.runtime.pipeline import Pipeline
from spatialnet_edge.sources.capture_process import FROZEN_LIMIT_S, deliver
from spatialnet_edge.sources.faulty import STATE_VARIABLE
from spatialnet_edge.sources.registry import Source, open_source
from spatialnet_edge.sources.shm_transport import SLOTS, Ended, Release, SkippedMessage, encode, socket_pair
from spatialnet_edge.sources.supervised import SupervisedSource, Timeouts, receive

QUICK = Timeouts(opening=5, silence=0.5, first_wait=0.05, longest_wait=0.2)


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts of `faulty:` are played one after the other."""
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "lives"))


def supervised(uri: str, patience: Timeouts = QUICK) -> tuple[SupervisedSource, list[tuple[str, str]]]:
    events: list[tuple[str, str]] = []
    return SupervisedSource(uri, patience, lambda kind, detail: events.append((kind, detail))), events


def frames_of(source: Source, count: int) -> list[Frame | Skipped]:
    items = list(islice(source, count))
    source.close()
    return items


@pytest.mark.fault(1)
def test_a_camera_that_is_unplugged_comes_back(played: None) -> None:
    source, events = supervised("faulty:ok*5,lost|absent|ok*50")
    items = frames_of(source, 20)
    assert [kind for kind, _ in events] == ["camera_open", "camera_lost", "camera_absent", "camera_open"]
    assert [item.seq for item in items] == list(range(20))  # numbers continue over all restarts


def test_messages_sent_before_a_capture_process_ended_are_read() -> None:
    """The process ended with an unread release message, which resets the connection (observed at the end of a recording on a
    busy computer)."""
    ours, theirs = socket_pair()
    ours.send(encode(Release(0, 5)))
    said = [SkippedMessage(39, "decode_error", "the last frame"), Ended()]
    for message in said:
        theirs.send(encode(message))
    theirs.close()
    heard = [receive(ours, 1.0) for _ in range(3)]
    ours.close()
    assert heard == [*((message, -1) for message in said), (Ended("lost"), -1)]


@pytest.mark.fault(2)
def test_a_read_that_never_returns_is_ended_within_two_seconds(played: None) -> None:
    source, events = supervised("faulty:ok*5,hang|ok*50", Timeouts())
    times = []
    for item in source:
        times.append(time.monotonic())
        assert isinstance(item, Frame)
        if len(times) == 10:
            source.close()
    assert [kind for kind, _ in events] == ["camera_open", "camera_hung", "camera_open"]
    assert times[5] - times[4] < 3  # 1.5 s of silence, and a new process


@pytest.mark.fault(3)
def test_a_camera_that_is_absent_at_start_is_waited_for(played: None) -> None:
    source, events = supervised("faulty:absent|absent|ok*50")
    assert len(frames_of(source, 5)) == 5
    assert [kind for kind, _ in events] == ["camera_absent", "camera_absent", "camera_open"]


@pytest.mark.fault(4)
def test_a_hang_inside_open_is_ended(played: None) -> None:
    source, events = supervised("faulty:slow|ok*50", Timeouts(opening=1.0, first_wait=0.05))
    started = time.monotonic()
    assert len(frames_of(source, 3)) == 3
    assert events[0][0] == "camera_hung"
    assert "not open after 1 s" in events[0][1]
    assert time.monotonic() - started < 10


@pytest.mark.fault(5)
def test_the_same_picture_again_is_skipped_as_frozen(played: None) -> None:
    source, _ = supervised("faulty:ok*3,frozen*4,ok*50")
    items = frames_of(source, 10)
    assert [getattr(item, "reason", "ok") for item in items] == ["ok"] * 3 + ["frozen"] * 4 + ["ok"] * 3


@pytest.mark.fault(5)
def test_a_camera_that_stays_frozen_is_reopened(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10_000, int(FROZEN_LIMIT_S / 2)))
    monkeypatch.setattr("spatialnet_edge.sources.capture_process.time.monotonic", lambda: next(clock))

    class Kept:
        def send(self, frame: Frame) -> None: ...
        def give_up(self, skipped: Skipped) -> None: ...

    end = deliver(open_source("faulty:ok,frozen*100"), Kept())  # type: ignore[arg-type]
    assert end.reason == "lost"
    assert "the same picture" in end.detail


@pytest.mark.fault(7)
@pytest.mark.fault(9)
def test_invalid_pictures_are_skipped_and_grey_is_converted(played: None) -> None:
    source, _ = supervised("faulty:ok,empty,grey,deep,ok*50")
    items = frames_of(source, 5)
    assert [getattr(item, "reason", "ok") for item in items] == ["ok", "empty", "ok", "format", "ok"]
    assert isinstance(items[2], Frame)
    assert items[2].pixels.shape == (48, 64, 3)


@pytest.mark.fault(8)
def test_a_change_of_resolution_never_gives_a_wrong_shape(played: None) -> None:
    source, _ = supervised("faulty:ok*3,wide*3,ok*50")
    shapes = [item.pixels.shape for item in frames_of(source, 9) if isinstance(item, Frame)]
    assert shapes == [(48, 64, 3)] * 3 + [(96, 128, 3)] * 3 + [(48, 64, 3)] * 3


@pytest.mark.fault(10)
def test_numbers_that_repeat_or_jump_are_counted(played: None) -> None:
    source, _ = supervised("faulty:ok*3,again*2,ok*5")
    pipeline = Pipeline(CheckedEngine(FakeEngine(TINY)))
    results = pipeline.stream(source)
    seen = [next(results).seq for _ in range(6)]
    results.close()
    source.close()
    assert seen == list(range(6))
    assert pipeline.ledger.skipped["out_of_order"] == 2
    assert pipeline.ledger.in_flight == 0


def test_frames_that_the_camera_lost_are_missed_not_captured() -> None:
    class Gaps:
        uri, length, fps, live = "gaps", None, None, False

        def __iter__(self) -> Iterator[Frame | Skipped]:
            for seq in (0, 1, 5, 6):
                yield Frame(np.full((32, 32, 3), seq, np.uint8), seq, "gaps")

        def close(self) -> None: ...

    pipeline = Pipeline(CheckedEngine(FakeEngine(TINY)))
    assert len(list(pipeline.stream(Gaps()))) == 4
    assert (pipeline.ledger.captured, pipeline.ledger.missed) == (4, 3)


@pytest.mark.fault(11)
def test_a_sink_that_keeps_frames_costs_frames_not_memory(played: None) -> None:
    """All shared slots are in use: the capture process reports `overrun` and continues as soon as one is free."""
    source, _ = supervised("faulty:ok*500")
    stream = iter(source)
    kept = [next(stream) for _ in range(SLOTS)]
    assert all(isinstance(item, Frame) for item in kept)
    refused = [next(stream) for _ in range(5)]
    assert {getattr(item, "reason", "") for item in refused} == {"overrun"}
    kept.clear()
    gc.collect()
    later = [next(stream) for _ in range(10)]
    source.close()
    assert isinstance(later[-1], Frame)


@pytest.mark.fault(37)
def test_a_crashing_decoder_affects_no_other_process(played: None) -> None:
    source, events = supervised("faulty:ok*2,crash|ok*50")
    assert [item.seq for item in frames_of(source, 6)] == list(range(6))
    assert events[1] == ("camera_lost", f"{source.uri}: its capture process ended unexpectedly")


def test_errors_are_raised_when_not_waiting(played: None) -> None:
    source, _ = supervised("faulty:ok*2,lost", Timeouts(give_up="always"))
    with pytest.raises(SourceLost, match="unplugged"):
        list(source)
    refused, _ = supervised("faulty:absent", Timeouts(give_up="unopened"))
    with pytest.raises(SourceRefused, match="no such camera"):
        list(refused)


def test_pixels_through_shared_memory_are_the_pixels() -> None:
    """A real video: the runtime's pixels equal OpenCV's, bit for bit, without a copy."""
    source = SupervisedSource(str(CLIP), Timeouts(give_up="always"), live=False)
    direct = open_source(str(CLIP))
    for there, here, _ in zip(source, direct, range(40), strict=False):
        assert isinstance(there, Frame)
        assert isinstance(here, Frame)
        assert np.array_equal(there.pixels, here.pixels)
        assert there.media_time_s == here.media_time_s
        assert not there.pixels.flags.owndata
        assert not there.pixels.flags.writeable
    source.close()
    direct.close()


def test_a_frame_lives_as_long_as_any_view_of_it(played: None) -> None:
    source, _ = supervised("faulty:ok*2000")
    stream = iter(source)
    first = next(stream)
    assert isinstance(first, Frame)
    corner, before = first.pixels[:4, :4], first.pixels[:4, :4].copy()
    del first
    for _ in range(5 * SLOTS):
        next(stream)
    assert np.array_equal(corner, before)
    source.close()


def test_time_stamps_are_those_of_capture(played: None) -> None:
    source, _ = supervised("faulty:ok*50")
    stream = iter(source)
    next(stream)
    time.sleep(0.2)
    waiting = next(stream)  # was captured during the sleep
    source.close()
    assert isinstance(waiting, Frame)
    assert time.monotonic_ns() - waiting.captured_ns > 0.1e9


@pytest.mark.parametrize("cycles", [20])
def test_losing_a_camera_again_and_again_leaves_nothing_behind(cycles: int, played: None) -> None:
    """Processes, descriptors and threads are as before; `python -m spatialnet_benchmarks.camera_loss` does it a thousand
    times."""
    process = psutil.Process()
    gc.collect()
    before = (process.num_fds(), threading.active_count(), len(process.children()))
    source, events = supervised("faulty:" + "|".join(["ok*2,lost"] * cycles) + "|ok*50", QUICK)
    assert len(frames_of(source, 2 * cycles + 5)) == 2 * cycles + 5
    assert [kind for kind, _ in events].count("camera_lost") == cycles
    gc.collect()
    deadline = time.monotonic() + 5
    while (process.num_fds(), threading.active_count(), len(process.children())) != before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (process.num_fds(), threading.active_count(), len(process.children())) == before


def test_the_capture_process_dies_with_the_runtime(tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        stream = iter(SupervisedSource("faulty:ok*100000", QUICK))
        next(stream)
        (tmp_path / "child").write_text(str(psutil.Process().children()[0].pid))
        os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 5
    while psutil.pid_exists(child) and psutil.Process(child).status() != "zombie" and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == "zombie"


@pytest.mark.fault(6)
@pytest.mark.fault(13)
def test_damaged_files_are_skipped_with_their_path_and_first_bytes(tmp_path: Path) -> None:
    _, encoded = cv2.imencode(".jpg", clip_frames(1)[0])
    _, png = cv2.imencode(".png", clip_frames(1)[0])
    (tmp_path / "a_whole.jpg").write_bytes(encoded.tobytes())
    (tmp_path / "b_cut.jpg").write_bytes(encoded.tobytes()[: len(encoded) // 2])
    (tmp_path / "c_cut.png").write_bytes(png.tobytes()[: len(png) // 2])
    (tmp_path / "d_text.jpg").write_bytes(b"Dear diary")
    items = list(open_source(f"{tmp_path}/"))
    assert [getattr(item, "reason", "ok") for item in items] == ["ok", "decode_error", "decode_error", "decode_error"]
    assert isinstance(items[3], Skipped)
    assert "d_text.jpg" in items[3].detail
    assert "Dear diary" in items[3].detail


@pytest.mark.fault(15)
@pytest.mark.parametrize(("level", "flag"), [(0, "dark"), (255, "saturated")])
def test_black_and_saturated_frames_are_classified_and_flagged(level: int, flag: str) -> None:
    pipeline = Pipeline(CheckedEngine(FakeEngine(TINY)))
    result = pipeline.step(Frame(np.full((48, 64, 3), level, np.uint8), 0, "tests"))
    assert result.quality == (flag,)
    assert result.shade.confidence > 0


def test_the_end_of_a_source_ends_the_stream(played: None) -> None:
    source, events = supervised("faulty:ok*3")
    assert len(list(source)) == 3
    assert [kind for kind, _ in events] == ["camera_open"]


class StreamingCamera(BaseHTTPRequestHandler):
    """A network camera: motion JPEG over HTTP that breaks off after some pictures, or falls silent."""

    protocol_version = "HTTP/1.0"
    pictures = 40
    falls_silent = False

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        noise = np.random.default_rng(0)
        try:
            for _ in range(self.pictures):
                picture = cv2.resize(noise.integers(0, 256, (6, 8, 3), np.uint8), (320, 240))
                content = cv2.imencode(".jpg", picture)[1].tobytes()
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(content)}\r\n\r\n"
                self.wfile.write(head.encode() + content + b"\r\n")
                time.sleep(0.02)
            if self.falls_silent:
                time.sleep(4)
        except OSError:
            pass  # the other side hung up

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.mark.fault(1)
@pytest.mark.parametrize("falls_silent", [False, True])
def test_a_network_stream_that_breaks_off_or_falls_silent_comes_back(
    falls_silent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through real HTTP and FFmpeg."""
    monkeypatch.setattr(StreamingCamera, "falls_silent", falls_silent)
    server = ThreadingHTTPServer(("127.0.0.1", 0), StreamingCamera)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        source, events = supervised(f"http://127.0.0.1:{server.server_address[1]}/stream.mjpg", Timeouts(first_wait=0.1))
        seen: list[tuple[int, tuple[int, ...]]] = []
        for item in source:
            assert isinstance(item, Frame)
            seen.append((item.seq, item.pixels.shape))
            if len(seen) == 60:
                source.close()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    kinds = [kind for kind, _ in events]
    assert kinds[:3] == ["camera_open", "camera_hung" if falls_silent else "camera_lost", "camera_open"]
    assert seen == [(seq, (240, 320, 3)) for seq in range(60)]
