"""Disks that fill, power that goes, clocks that jump, processes that are killed: what was acknowledged stays readable."""

import errno
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from conftest import CLIP, TINY, tiny_graph, write_tiny_bundle
from mqtt_broker import free_port
from spatialnet_edge.bundle.reader import Bundle, open_bundle
from spatialnet_edge.bundle.slots import CURRENT, MAX_TRIES, PREVIOUS, TRIAL, Slots
from spatialnet_edge.bundle.trust import Trust
from spatialnet_edge.bundle.writer import file_records, write_bundle
from spatialnet_edge.cli.app import app
from spatialnet_edge.core.atomic_io import write_durably
from spatialnet_edge.core.clock import boot_id, since_boot
from spatialnet_edge.core.errors import Busy, Refused, SinkError, SinkRefused, UsageError
from spatialnet_edge.core.frames import Frame
from spatialnet_edge.core.results import FrameResult, assemble
from spatialnet_edge.service.camera_worker import open_sinks
from spatialnet_edge.service.config import SourceSection, load_service_config
from spatialnet_edge.service.crash_loop import MAX_STARTS, WITHIN_S, Start, count_start, forget_starts, note_lasted
from spatialnet_edge.service.health import Health, read_health, verdict
from spatialnet_edge.service.lock import device_lock
from spatialnet_edge.sinks.journal import PIN, Journal, read_journal, read_segment, segments, to_line
from spatialnet_edge.sinks.log import LogSink
from spatialnet_edge.sinks.queued import QueuedSink
from spatialnet_edge.sinks.registry import open_sink
from spatialnet_edge.sources.registry import open_source

ANY = Trust(allow_unsigned=True)
COMMAND = [sys.executable, "-m", "spatialnet_edge"]


def records(folder: Path) -> list[int]:
    return [json.loads(record)["n"] for reading in read_journal(folder) for record in reading.records]


@pytest.mark.fault(39)
def test_at_any_of_ten_thousand_cut_points_only_the_torn_tail_is_lost(tmp_path: Path) -> None:
    lines = [to_line(msgspec.json.encode({"n": n, "text": "é\n" * (n % 7)})) for n in range(300)]
    content = b"".join(lines)
    ends = np.cumsum([len(line) for line in lines])
    assert len(content) > 10_000
    for cut in range(10_000):
        reading = read_segment(content[:cut])
        complete = int(np.searchsorted(ends, cut, side="right"))
        assert len(reading.records) == complete
        assert reading.whole == (ends[complete - 1] if complete else 0)


@pytest.mark.fault(39)
@given(st.integers(0, 2_000), st.integers(0, 7))
@settings(max_examples=300, deadline=None)
def test_a_flipped_bit_costs_one_or_two_lines_never_a_wrong_record(byte: int, bit: int) -> None:
    """Two when the bit makes or unmakes an end of line."""
    texts = [msgspec.json.encode({"n": n}) for n in range(150)]
    content = bytearray(b"".join(map(to_line, texts)))
    content[byte % len(content)] ^= 1 << bit
    kept = read_segment(bytes(content)).records
    assert set(kept) <= set(texts)
    assert len(kept) >= len(texts) - 2


@pytest.mark.fault(39)
def test_a_torn_tail_is_dropped_at_the_next_start_and_nothing_else(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for n in range(5):
        journal.append({"n": n})
    journal.close()
    with segments(tmp_path)[0].open("ab") as file:
        file.write(b'0badf00d {"n":')
    again = Journal(tmp_path)
    again.append({"n": 5})
    again.close()
    assert records(tmp_path) == [0, 1, 2, 3, 4, 5]
    assert sum(reading.damaged for reading in read_journal(tmp_path)) == 0


@pytest.mark.fault(39)
@pytest.mark.fault(41)
def test_a_killed_writer_loses_no_acknowledged_record(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from spatialnet_edge.sinks.journal import Journal\n"
        "journal = Journal(Path(sys.argv[1]), segment_bytes=20000)\n"
        "for n in range(10**9):\n    journal.append({'n': n}); print(n, flush=True)"
    )
    writer = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    for line in writer.stdout:
        if int(line) >= 3000:
            break
    writer.kill()
    acknowledged = max([3000, *(int(line) for line in writer.stdout.read().split() if line)])
    writer.wait()
    writer.stdout.close()
    found = records(tmp_path)
    assert found[: acknowledged + 1] == list(range(acknowledged + 1))
    assert len(segments(tmp_path)) > 2


class Disk:
    """`os.write` with so many bytes of room; takes at most `most` at once."""

    def __init__(self, room: int, most: int = 10**9) -> None:
        self.room, self.most = room, most

    def write(self, descriptor: int, content: memoryview) -> int:
        if self.room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = os.write(descriptor, content[: min(self.room, self.most)])
        self.room -= taken
        return taken


@pytest.mark.fault(38)
def test_a_full_disk_costs_the_oldest_segments_then_records_and_is_told_once(tmp_path: Path) -> None:
    told: list[str] = []
    disk = Disk(room=10**9, most=7)  # short writes all the time
    journal = Journal(tmp_path, segment_bytes=200, report=lambda kind, detail: told.append(kind), write=disk.write)
    for n in range(30):
        assert journal.append({"n": n})
    before = len(segments(tmp_path))
    pinned = segments(tmp_path)[1]
    pinned.with_name(pinned.name + PIN).touch()
    disk.room = 0
    assert [journal.append({"n": n}) for n in (30, 31)] == [False, False]
    assert told == ["disk_full"]
    assert pinned.exists()
    assert len(segments(tmp_path)) == 2 < before  # the pinned one and the one that is written
    disk.room = 10**6
    assert journal.append({"n": 32})
    journal.close()
    assert told == ["disk_full", "disk_free"]
    assert journal.lost == 2
    found = records(tmp_path)
    assert found[-1] == 32
    assert not {30, 31} & set(found)
    assert sum(reading.damaged for reading in read_journal(tmp_path)) == 0


@pytest.mark.fault(38)
def test_a_disk_with_no_room_for_another_file_costs_the_oldest_segments_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of inodes: what is open can still be written, and a new segment needs an old one's place."""
    really = os.open

    def open_few(path, flags, *mode, **options):
        if str(path).endswith(".log") and flags & os.O_CREAT and len(segments(tmp_path)) >= 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        return really(path, flags, *mode, **options)

    monkeypatch.setattr(os, "open", open_few)
    journal = Journal(tmp_path, segment_bytes=200)
    assert all(journal.append({"n": n}) for n in range(100))
    for path in segments(tmp_path):
        path.with_name(path.name + PIN).touch()
    assert [journal.append({"n": n}) for n in range(100, 120)][-1] is False
    segments(tmp_path)[0].unlink()
    assert journal.append({"n": 120})
    journal.close()
    assert records(tmp_path)[-1] == 120
    assert len(segments(tmp_path)) == 4


@pytest.mark.fault(38)
def test_a_disk_that_fails_later_costs_what_it_had_taken_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worn card: `write` goes to memory and succeeds, `fdatasync` says that it never arrived."""
    told: list[str] = []
    sync = os.fdatasync

    def fails(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("spatialnet_edge.sinks.journal.SYNC_S", 0.0)
    monkeypatch.setattr(os, "fdatasync", fails)
    journal = Journal(tmp_path, report=lambda kind, detail: told.append(f"{kind} {'Input/output error' in detail}"))
    journal.append({"n": 0})
    assert told == ["disk_full True"]
    assert not journal.append({"n": 1})
    journal.flush()
    assert journal.lost == 2
    monkeypatch.setattr(os, "fdatasync", sync)
    assert journal.append({"n": 2})
    assert told == ["disk_full True", "disk_free False"]
    monkeypatch.setattr(os, "fdatasync", fails)
    journal.close()
    assert journal.lost == 2


@pytest.mark.fault(38)
def test_the_kernels_own_refusal_is_survived(tmp_path: Path) -> None:
    """RLIMIT_FSIZE: a real `write` that takes a part, then fails (EFBIG)."""
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        journal = Journal(tmp_path, segment_bytes=10**6)
        answers = [journal.append({"n": n}) for n in range(100)]
        os._exit(0 if answers.count(False) > 10 and answers[0] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert records(tmp_path) == list(range(len(records(tmp_path))))
    assert sum(reading.damaged for reading in read_journal(tmp_path)) == 0


def test_a_journal_stays_below_its_cap_and_is_on_the_disk_within_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[float] = []
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: synced.append(time.monotonic()))
    journal = Journal(tmp_path, segment_bytes=2000, total_bytes=10_000)
    until = time.monotonic() + 2.5
    n = 0
    while time.monotonic() < until:
        journal.append({"n": n})
        n += 1
        time.sleep(0.002)
        assert sum(path.stat().st_size for path in segments(tmp_path)) <= 10_000
    gaps = np.diff([until - 2.5, *synced])
    assert max(gaps) < 1.5  # a second, and what a busy computer adds
    journal.close()


@pytest.mark.fault(43)
def test_a_folder_that_cannot_be_written_is_refused_with_path_and_user(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkRefused, match=f"file.*cannot be written by user {os.geteuid()}"):
        Journal(tmp_path / "file")


def result(seq: int) -> FrameResult:
    rows = {"shade": np.array([0.2, 0.8], np.float32), "bands": np.zeros(3, np.float32), "level": np.array([3], np.float32)}
    return assemble(TINY, Frame(np.zeros((8, 8, 3), np.uint8), seq, "tests"), rows, 1.0, ())


class Moody:
    """A sink that fails on every fifth result, and keeps what it got."""

    kept: ClassVar[list[int]] = []
    wants_pixels = False

    def write(self, each: FrameResult) -> None:
        assert each.frame.pixels.size == 0
        if each.seq % 5 == 4:
            raise OSError("peer gone")
        self.kept.append(each.seq)

    def close(self) -> None: ...


@pytest.mark.fault(42)
def test_a_sink_whose_peer_goes_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spatialnet_edge.sinks.queued.FIRST_WAIT_S", 0.02)
    Moody.kept = []
    told: list[str] = []
    sink = QueuedSink(Moody(), wait=False, reopen=Moody, report=lambda kind, detail: told.append(kind), name="moody")
    for seq in range(20):
        sink.write(result(seq))
        time.sleep(0.01)
    time.sleep(0.3)
    sink.close()
    assert told == ["sink_failed", "sink_back"] * 4
    assert len(Moody.kept) + sink.dropped == 20
    assert sink.dropped == 4


@pytest.mark.fault(42)
def test_a_half_open_sink_delays_neither_inference_nor_the_end() -> None:
    stuck = threading.Event()

    class HalfOpen:
        def write(self, each: FrameResult) -> None:
            stuck.wait()

        def close(self) -> None: ...

    sink = QueuedSink(HalfOpen(), wait=False, capacity=4)
    started = time.monotonic()
    for seq in range(100):
        sink.write(result(seq))
    sink.close(timeout=0.2)
    assert time.monotonic() - started < 1
    assert sink.dropped >= 99 - 1
    stuck.set()


@pytest.mark.fault(35)
def test_a_second_process_on_the_device_is_refused_with_the_firsts_pid(tmp_path: Path) -> None:
    path = tmp_path / "engine.lock"
    with device_lock(path), pytest.raises(Busy, match=f"held by pid {os.getpid()}"), device_lock(path):
        pass
    with device_lock(path):  # free again
        pass


@pytest.mark.fault(44)
def test_the_sixth_start_in_ten_minutes_is_a_safe_one(tmp_path: Path) -> None:
    assert [count_start(tmp_path, now_s=100.0 + n) for n in range(MAX_STARTS + 1)] == [False] * MAX_STARTS + [True]
    forget_starts(tmp_path)
    assert not count_start(tmp_path, now_s=200.0)


@pytest.mark.fault(44)
def test_starts_long_ago_do_not_count_but_those_of_other_boots_do(tmp_path: Path) -> None:
    spread = [count_start(tmp_path, now_s=n * WITHIN_S / 2) for n in range(12)]
    assert not any(spread)
    other = [Start("another boot", 10.0)] * MAX_STARTS
    (tmp_path / "starts.json").write_bytes(msgspec.json.encode(other))
    assert count_start(tmp_path, now_s=1.0)


@pytest.mark.fault(44)
def test_a_board_that_is_switched_off_after_every_flight_is_no_crash_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for flight in range(3 * MAX_STARTS):
        monkeypatch.setattr("spatialnet_edge.service.crash_loop.boot_id", lambda flight=flight: f"boot {flight}")
        assert not count_start(tmp_path, now_s=20.0)
        note_lasted(tmp_path)  # it worked for a minute; then the battery was pulled
    for crash in range(MAX_STARTS):
        monkeypatch.setattr("spatialnet_edge.service.crash_loop.boot_id", lambda crash=crash: f"bad boot {crash}")
        assert not count_start(tmp_path, now_s=20.0)
    assert count_start(tmp_path, now_s=30.0)


@pytest.mark.fault(44)
def test_a_damaged_count_of_starts_does_not_keep_it_from_starting(tmp_path: Path) -> None:
    (tmp_path / "starts.json").write_bytes(b"\x00\xff")
    assert not count_start(tmp_path)


@pytest.mark.fault(40)
def test_a_jump_of_the_wall_clock_moves_no_timer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten years back, then forward: starts, health and age do not care; the record has both clocks and the boot."""
    for wall in (1.0, 2e9):
        monkeypatch.setattr(time, "time", lambda wall=wall: wall)
        assert not count_start(tmp_path)
        health = Health(
            state="READY", why=(), pid=1, boot=boot_id(), at_s=since_boot(), up_s=1.0, unix=wall
        )  # fmt: skip
        assert verdict(health) == (True, "READY")
        found = result(0)
        assert 0 <= found.age_ms < 1000
        assert found.to_dict()["captured_unix"] > 0
        assert found.to_dict()["boot"] == boot_id()
    assert verdict(msgspec.structs.replace(health, at_s=since_boot() - 60))[0] is False
    assert verdict(msgspec.structs.replace(health, boot="earlier"))[0] is False


def test_a_health_file_is_replaced_whole_and_its_absence_is_told(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no health file"):
        read_health(tmp_path / "health.json")
    (tmp_path / "health.json").write_text("{")
    with pytest.raises(Refused, match="not a health file"):
        read_health(tmp_path / "health.json")
    write_durably(tmp_path / "new.json", b"1")
    write_durably(tmp_path / "new.json", b"2", sync=False)
    assert (tmp_path / "new.json").read_bytes() == b"2"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    """A configuration of one synthetic camera on the tiny model."""
    write_tiny_bundle(tmp_path / "tiny.snb")
    (tmp_path / "payload.toml").write_text(f"""
root = "{tmp_path}/root"
allow_unsigned = true
[[sources]]
uri = "synthetic:frames=100000&size=64x48&fps=50"
sinks = ["log:{tmp_path}/results", "null:"]
smooth_s = 0.2
[health]
file = "{tmp_path}/health.json"
golden_s = 0.5
mark_good_s = 2.5
""")
    Slots(tmp_path / "root").install(tmp_path / "tiny.snb", ANY)
    return tmp_path / "payload.toml"


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A disk of its own, where this user may mount one; of 400 kB unless the test says otherwise."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={getattr(request, 'param', '400k')}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """A file that takes all the room there is."""
    path = folder / "hog"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    with suppress(OSError):
        while os.write(descriptor, bytes(4096)):
            pass
    os.close(descriptor)
    assert shutil.disk_usage(folder).free == 0
    return path


def start(payload: Path, **environment: str) -> subprocess.Popen[str]:
    command = [*COMMAND, "serve", "--config", str(payload)]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, text=True, env=os.environ | environment)


def wait_for(health: Path, condition, seconds: float = 20.0) -> Health:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if health.exists() and condition(found := read_health(health)):
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {health.read_text() if health.exists() else 'no health file'}")


@pytest.mark.fault(41)
def test_a_service_becomes_ready_proves_its_trial_drains_and_leaves(payload: Path) -> None:
    folder = payload.parent
    started = time.monotonic()
    service = start(payload)
    health = wait_for(folder / "health.json", lambda found: found.state == "READY")
    assert time.monotonic() - started < 15
    assert health.on_trial
    wait_for(folder / "health.json", lambda found: not found.on_trial and found.golden_rounds >= 1)
    assert Slots(folder / "root").target(TRIAL) is None
    assert Slots(folder / "root").target(CURRENT) is not None
    assert CliRunner().invoke(app, ["health", "--file", str(folder / "health.json")]).exit_code == 0
    second = subprocess.run([*COMMAND, "serve", "--config", str(payload)], capture_output=True, text=True, check=False)
    assert second.returncode == 78
    assert f"held by pid {service.pid}" in second.stderr
    asked = time.monotonic()
    service.terminate()
    assert service.wait(10) == 0
    assert time.monotonic() - asked < 5
    last = read_health(folder / "health.json")
    assert last.state == "STOPPED"
    ledger = last.sources["synthetic:frames=100000&size=64x48&fps=50"]["ledger"]
    assert ledger["in_flight"] == 0
    assert ledger["captured"] == ledger["emitted"] + sum(ledger["skipped"].values())
    logged = [json.loads(r)["seq"] for reading in read_journal(folder / "results") for r in reading.records]
    assert len(logged) == ledger["emitted"]
    assert logged == sorted(logged)
    events = [json.loads(r)["event"] for reading in read_journal(folder / "root" / "events") for r in reading.records]
    assert [events[0], events[-1]] == ["start", "stop"]
    assert "marked_good" in events
    assert not (folder / "root" / "starts.json").exists()


@pytest.mark.fault(41)
def test_after_sigkill_every_record_is_readable_and_the_lock_is_free(payload: Path) -> None:
    folder = payload.parent
    service = start(payload)
    wait_for(folder / "health.json", lambda found: found.state == "READY" and found.up_s > 2)
    service.kill()
    service.wait()
    logged = [json.loads(r)["seq"] for reading in read_journal(folder / "results") for r in reading.records]
    assert len(logged) > 40
    again = start(payload)
    wait_for(folder / "health.json", lambda found: found.pid == again.pid and found.state == "READY")
    again.terminate()
    assert again.wait(10) == 0
    assert sum(reading.damaged for reading in read_journal(folder / "results")) == 0


def flown(payload: Path) -> tuple[Slots, Bundle, dict[str, bytes]]:
    """The slots with the installed bundle proved, that bundle, and its files to make another one of."""
    slots = Slots(payload.parent / "root")
    slots.mark_good(slots.choose()[0])
    good = open_bundle(payload.parent / "tiny.snb", ANY)
    return slots, good, {record.path: good.read(record.path) for record in good.manifest.files}


def followed(payload: Path) -> tuple[Slots, Bundle]:
    """The slots with a later release proved, serial 5, and the bundle that it replaced."""
    slots, good, files = flown(payload)
    later = msgspec.structs.replace(good.manifest, serial=5)
    slots.install(write_bundle(payload.parent / "next.snb", later, files).path, ANY)
    slots.mark_good(slots.choose()[0])
    return slots, good


@pytest.mark.fault(29)
def test_a_trial_with_the_wrong_answers_is_taken_back_at_the_start(payload: Path, tmp_path: Path) -> None:
    folder = payload.parent
    slots, good, files = flown(payload)
    files["model.onnx"] = tiny_graph(gain=0.01)
    wrong = msgspec.structs.replace(good.manifest, files=file_records(files), serial=9)
    slots.install(write_bundle(tmp_path / "wrong.snb", wrong, files).path, ANY)
    service = start(payload)
    found = wait_for(folder / "health.json", lambda found: found.state == "READY")
    service.terminate()
    assert service.wait(10) == 0
    assert found.serial == good.manifest.serial
    assert found.events["trial_refused"] == 1
    assert slots.target(TRIAL) is None


@pytest.mark.fault(17)
def test_for_a_bundle_that_has_rotted_on_its_card_the_one_before_stands_in(payload: Path) -> None:
    folder = payload.parent
    slots, good = followed(payload)
    model = slots.root / CURRENT / "model.onnx"
    model.write_bytes(b"\0" + model.read_bytes()[1:])
    service = start(payload)
    found = wait_for(folder / "health.json", lambda found: found.state == "DEGRADED" and found.up_s > 3)
    service.terminate()
    assert service.wait(10) == 0
    assert (found.serial, found.on_trial) == (good.manifest.serial, False)
    assert found.events["bundle_refused"] == 1
    assert found.why == ("the current bundle is refused; the one before flies",)
    (slots.root / PREVIOUS).unlink()
    alone = subprocess.run([*COMMAND, "serve", "--config", str(payload)], capture_output=True, text=True, check=False)
    assert alone.returncode == 78
    assert "model.onnx" in alone.stderr


def test_a_trial_that_is_stopped_as_asked_keeps_its_tries(payload: Path) -> None:
    folder = payload.parent
    for _ in range(MAX_TRIES + 1):
        service = start(payload)
        found = wait_for(folder / "health.json", lambda found, pid=service.pid: found.pid == pid and found.state == "READY")
        assert found.on_trial
        service.terminate()
        assert service.wait(10) == 0
    assert Slots(folder / "root").state.tries == 0


@pytest.mark.fault(29)
def test_a_first_bundle_that_is_refused_says_so_at_every_start(payload: Path) -> None:
    """And not, from the second start on, that nothing was installed."""
    model = Slots(payload.parent / "root").root / TRIAL / "model.onnx"
    model.write_bytes(b"\0" + model.read_bytes()[1:])
    for _ in range(2):
        done = subprocess.run([*COMMAND, "serve", "--config", str(payload)], capture_output=True, text=True, check=False)
        assert done.returncode == 78
        assert "model.onnx" in done.stderr


@pytest.mark.fault(44)
@pytest.mark.parametrize("rotten", [False, True])
def test_after_a_crash_loop_the_last_good_bundle_flies_in_safe_mode(payload: Path, rotten: bool) -> None:
    folder = payload.parent
    slots, good = followed(payload)
    assert slots.target(PREVIOUS) is not None
    if rotten:
        (slots.root / PREVIOUS / "model.onnx").write_bytes(b"")
    for _ in range(MAX_STARTS):
        count_start(folder / "root")
    service = start(payload)
    found = wait_for(folder / "health.json", lambda found: found.state == "SAFE")
    service.terminate()
    assert service.wait(10) == 0
    assert found.serial == (5 if rotten else good.manifest.serial)
    assert (found.events["safe_mode"], found.events.get("bundle_refused", 0)) == (1, int(rotten))


@pytest.mark.fault(3)
def test_a_service_without_its_camera_is_degraded_and_alive(payload: Path) -> None:
    folder = payload.parent
    text = payload.read_text().replace("synthetic:frames=100000&size=64x48&fps=50", "faulty:absent")
    payload.write_text(text)
    service = start(payload)
    found = wait_for(folder / "health.json", lambda found: found.state == "DEGRADED" and found.up_s > 2)
    assert found.why == ("no frames from faulty:absent",)
    working = CliRunner().invoke(app, ["health", "--file", str(folder / "health.json")])
    strict = CliRunner().invoke(app, ["health", "--strict", "--file", str(folder / "health.json")])
    assert (working.exit_code, strict.exit_code) == (0, 1)
    service.terminate()
    assert service.wait(10) == 0


def test_systemd_is_told_ready_alive_and_stopping(payload: Path, tmp_path: Path) -> None:
    heard: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "notify"))
        server.settimeout(0.3)
        service = start(payload, NOTIFY_SOCKET=str(tmp_path / "notify"))
        until = time.monotonic() + 60
        while service.poll() is None:
            if time.monotonic() > until:
                service.terminate()
                until = float("inf")
            try:
                heard.append(server.recv(1000).decode())
            except TimeoutError:
                continue
            if heard[-1] == "READY=1":
                until = time.monotonic() + 3
    assert service.wait(10) == 0
    assert "READY=1" in heard
    assert heard.count("WATCHDOG=1") >= 3
    assert "STOPPING=1" in heard
    assert any(line.startswith("STATUS=READY") for line in heard)


@pytest.mark.fault(43)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[[sources]]", "colour = 1\n[[sources]]"), "unknown field `colour`"),
        (("smooth_s = 0.2", 'policy = "sometimes"'), "no frame policy"),
        (('"null:"', '"telegraph:x"'), "no sink"),
        (("allow_unsigned = true", ""), "is not signed"),
        (("results", "payload.toml/results"), "cannot be written by user"),
        (("health.json", "payload.toml/health.json"), "cannot be written by user"),
    ],
)
def test_what_cannot_work_is_refused_before_any_work(payload: Path, change: tuple[str, str], message: str) -> None:
    payload.write_text(payload.read_text().replace(*change))
    done = subprocess.run(
        [*COMMAND, "serve", "--config", str(payload)], capture_output=True, text=True, check=False, timeout=60
    )
    assert message in done.stderr
    assert done.returncode in (2, 78)
    assert len([line for line in done.stderr.splitlines() if line.startswith("spatialnet-edge:")]) == 1


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ('uri = "synthetic:frames=100000&size=64x48&fps=50"', "the source 'synthetic:.*' is there 2 times"),
        ('uri = "1"\nsinks = ["mqtt://a/b", "log:{folder}/results?total_mb=1"]', "the sink 'log:.*results' is there 2 times"),
    ],
)
def test_two_cameras_do_not_share_a_name_or_a_log(payload: Path, second: str, message: str) -> None:
    second = second.replace("{folder}", str(payload.parent))
    payload.write_text(payload.read_text().replace("[health]", f"[[sources]]\n{second}\n[health]"))
    with pytest.raises(UsageError, match=message):
        load_service_config(payload)


def test_a_configuration_is_checked_without_running(payload: Path) -> None:
    assert "sound" in CliRunner().invoke(app, ["serve", "--config", str(payload), "--check"]).output
    with pytest.raises(UsageError, match="cannot be read"):
        load_service_config(payload.parent / "missing.toml")


def test_a_service_on_a_file_ends_by_itself(payload: Path) -> None:
    payload.write_text(payload.read_text().replace("synthetic:frames=100000&size=64x48&fps=50", str(CLIP)))
    done = subprocess.run(
        [*COMMAND, "serve", "--config", str(payload)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "every frame on its way came out" in done.stderr


def test_a_log_prints_its_records_and_counts_what_is_damaged(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for n in range(3):
        journal.append({"n": n})
    journal.close()
    path = segments(tmp_path)[0]
    path.write_bytes(path.read_bytes().replace(b'{"n":1}', b'{"n":7}'))
    shown = CliRunner().invoke(app, ["log", str(tmp_path)])
    assert shown.stdout.splitlines() == ['{"n":0}', '{"n":2}']
    assert "1 damaged" in shown.stderr
    assert CliRunner().invoke(app, ["log", str(tmp_path), "--pin", "1"]).exit_code == 0
    assert path.with_name(path.name + PIN).exists()
    assert isinstance(CliRunner().invoke(app, ["log", str(tmp_path / "none")]).exception, Refused)


def test_several_cameras_share_one_engine_and_one_that_fails_costs_the_others_nothing(payload: Path) -> None:
    folder = payload.parent
    text = payload.read_text().replace(
        "[health]",
        f"""[[sources]]
uri = "faulty:ok*20,lost|absent"
sinks = ["jsonl:{folder}/second.jsonl"]
[engine]
batch = 2
[health]""",
    )
    payload.write_text(text)
    service = start(payload, FAULTY_STATE=str(folder / "lives"))
    first, second = "synthetic:frames=100000&size=64x48&fps=50", "faulty:ok*20,lost|absent"
    health = wait_for(
        folder / "health.json",
        lambda found: found.state == "DEGRADED" and found.sources.get(first, {}).get("ledger", {}).get("emitted", 0) > 100,
    )
    service.terminate()
    assert service.wait(10) == 0
    assert health.why == (f"no frames from {second}",)
    assert health.sources[first]["delivering"]
    assert 0 < health.sources[second]["ledger"]["emitted"] <= 20
    assert len((folder / "second.jsonl").read_text().splitlines()) == health.sources[second]["ledger"]["emitted"]


@pytest.mark.fault(38)
def test_a_service_starts_on_a_full_disk_and_writes_again_when_there_is_room(payload: Path, small_disk: Path) -> None:
    """A power cut after the log has filled the card must not be the last start."""
    lines = small_disk / "results.jsonl"
    lines.write_text('{"seq":0,"torn by the full di')
    text = payload.read_text().replace('"null:"', f'"jsonl:{lines}"').replace(str(payload.parent / "r"), str(small_disk / "r"))
    payload.write_text(text)
    Slots(small_disk / "root").install(payload.parent / "tiny.snb", ANY)
    hog = fill(small_disk)
    health = payload.parent / "health.json"
    service = start(payload)
    source = "synthetic:frames=100000&size=64x48&fps=50"
    full = wait_for(health, lambda found: found.sources.get(source, {}).get("ledger", {}).get("emitted", 0) > 50)
    assert (full.state, full.events["start_not_counted"], full.events["disk_full"]) == ("READY", 1, 1)
    hog.unlink()
    wait_for(health, lambda found: found.events.get("disk_free") == 1 and found.events.get("sink_back", 0) >= 1)
    time.sleep(1)
    service.terminate()
    assert service.wait(10) == 0
    assert sum(len(reading.records) for reading in read_journal(small_disk / "results")) > 20
    torn, *whole = lines.read_text().splitlines()
    assert torn.endswith("full di")
    assert len([json.loads(line) for line in whole if line.endswith("}")]) > 20


@pytest.mark.fault(38)
@pytest.mark.parametrize("small_disk", ["400k,nr_inodes=1"], indirect=True)
def test_a_folder_that_a_full_disk_has_no_place_for_is_made_when_there_is_room(small_disk: Path) -> None:
    told: list[str] = []
    journal = Journal(small_disk / "results", report=lambda kind, detail: told.append(kind))
    assert not journal.append({"n": 0})
    with pytest.raises(SinkError, match="No space left"):
        open_sink(f"video:{small_disk / 'videos' / 'flight.mp4'}")
    subprocess.run(["mount", "-o", "remount,nr_inodes=20", str(small_disk)], check=True)
    assert journal.append({"n": 1})
    journal.close()
    assert told == ["disk_full", "disk_free"]
    assert journal.lost == 1
    assert records(small_disk / "results") == [1]


@pytest.mark.fault(38)
@pytest.mark.parametrize("small_disk", ["400k,nr_inodes=1"], indirect=True)
def test_a_service_starts_though_its_new_log_folder_has_no_place(payload: Path, small_disk: Path) -> None:
    results = small_disk / "new"
    payload.write_text(payload.read_text().replace(f"log:{payload.parent / 'results'}", f"log:{results}"))
    service = start(payload)
    health = payload.parent / "health.json"
    full = wait_for(health, lambda found: found.events.get("disk_full") == 1 and found.state == "READY")
    assert not results.exists()
    assert sum(source["ledger"]["emitted"] for source in full.sources.values()) > 0
    subprocess.run(["mount", "-o", "remount,nr_inodes=20", str(small_disk)], check=True)
    wait_for(health, lambda found: found.events.get("disk_free") == 1)
    service.terminate()
    assert service.wait(10) == 0
    assert sum(len(reading.records) for reading in read_journal(results)) > 0


@pytest.mark.fault(38)
def test_a_run_says_what_a_full_disk_cost(small_disk: Path, tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "tiny.snb")
    fill(small_disk)
    arguments = ["run", str(tmp_path / "tiny.snb"), "synthetic:frames=40&size=64x48", "--sink", f"log:{small_disk / 'log'}"]
    done = subprocess.run([*COMMAND, *arguments, "--sink", "null:"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0
    assert done.stdout.count("disk_full: ") == 1
    assert re.search(r"log: lost\W+40\W", done.stdout)
    assert "null" not in done.stdout


@pytest.mark.fault(38)
@pytest.mark.parametrize("small_disk", ["400k", "10m"], indirect=True)
def test_a_video_ends_before_the_disk_is_full_and_can_be_read(small_disk: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    rows = {"shade": np.array([0.2, 0.8]), "bands": np.array([0.9, 0.1, 0.7]), "level": np.array([3.0])}
    sink = open_sink(f"video:{small_disk / 'flight.mp4'}")
    written: list[int] = []

    def write_for_ever() -> None:
        for seq in range(10_000):
            sink.write(assemble(TINY, Frame(noise, seq, "tests"), rows, 1.0, ()))
            written.append(seq)

    with pytest.raises(SinkError, match="bytes are free there"):
        write_for_ever()
    sink.close()
    video = small_disk / "flight.mp4"
    assert video.exists() == bool(written) == (shutil.disk_usage(small_disk).total > 1 << 20)
    if written:
        assert sum(1 for _ in open_source(str(video))) == len(written)


@pytest.mark.fault(42)
def test_a_peer_that_is_not_there_at_start_is_waited_for(payload: Path) -> None:
    """A vehicle flies before its link is up: no broker yet, and the service is ready all the same."""
    pytest.importorskip("paho.mqtt.client")
    folder = payload.parent
    port = free_port()
    payload.write_text(payload.read_text().replace('"null:"', f'"mqtt://127.0.0.1:{port}/fleet/late"'))
    service = start(payload)
    found = wait_for(folder / "health.json", lambda found: found.state == "READY" and found.up_s > 2)
    service.terminate()
    assert service.wait(10) == 0
    assert found.events["sink_failed"] >= 1
    lane = next(iter(found.sources.values()))
    assert lane["ledger"]["emitted"] > 20
    assert lane["sinks"]["log"]["dropped"] == 0


@pytest.mark.fault(38)
def test_a_full_disk_is_an_event_of_the_service(tmp_path: Path) -> None:
    told: list[str] = []
    sink = LogSink(str(tmp_path))
    queued = QueuedSink(sink, wait=False, report=lambda kind, detail: told.append(kind), name="log")
    sink.journal._write = Disk(room=0).write
    for seq in range(5):
        queued.write(result(seq))
    queued.close()
    assert told == ["disk_full"]
    assert queued.figures() == {"dropped": 0, "lost": 5}


class Unplugged(Moody):
    """A serial link that breaks while nothing is sent, and works once it is opened again."""

    broken: ClassVar[bool] = True

    def flush(self) -> None:
        if self.broken:
            Unplugged.broken = False
            raise OSError("device disconnected")


@pytest.mark.fault(42)
def test_a_sink_that_breaks_while_idle_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spatialnet_edge.sinks.queued.FIRST_WAIT_S", 0.02)
    monkeypatch.setattr("spatialnet_edge.sinks.queued.IDLE_S", 0.02)
    Moody.kept, Unplugged.broken = [], True
    told: list[str] = []
    queued = QueuedSink(
        Unplugged(), wait=False, reopen=Unplugged, report=lambda kind, detail: told.append(kind), name="serial"
    )
    until = time.monotonic() + 5
    while "sink_back" not in told and time.monotonic() < until:
        time.sleep(0.01)
    queued.write(result(0))
    queued.close()
    assert told == ["sink_failed", "sink_back"]
    assert Moody.kept == [0]
    assert queued.dropped == 0


def test_two_sinks_of_one_kind_have_names_of_their_own(tmp_path: Path) -> None:
    uris = (f"log:{tmp_path / 'a'}", f"log:{tmp_path / 'b'}", "null:")
    sinks = open_sinks(SourceSection(uri="0", sinks=uris), lambda kind, detail: None)
    assert [sink.name for sink in sinks] == ["log", "log-2", "null"]
    for sink in sinks:
        sink.close()


def test_a_sink_that_could_not_be_reached_gets_what_comes_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spatialnet_edge.sinks.queued.FIRST_WAIT_S", 0.05)
    Moody.kept = []
    told: list[str] = []
    queued = QueuedSink(None, wait=False, reopen=Moody, report=lambda kind, detail: told.append(kind), name="late")
    time.sleep(0.3)
    for seq in range(3):
        queued.write(result(seq))
    queued.close()
    assert told == ["sink_back"]
    assert Moody.kept == [0, 1, 2]


@pytest.mark.fault(44)
def test_out_of_descriptors_the_process_leaves_with_an_error_and_its_log_is_whole(payload: Path) -> None:
    folder = payload.parent
    payload.write_text(payload.read_text().replace("synthetic:frames=100000&size=64x48&fps=50", "faulty:ok*50,lost"))
    service = start(payload)
    wait_for(folder / "health.json", lambda found: found.state == "READY")
    resource.prlimit(service.pid, resource.RLIMIT_NOFILE, (3, 3))  # what is open stays; the next camera needs more
    assert service.wait(30) == 1
    assert sum(reading.damaged for reading in read_journal(folder / "results")) == 0
