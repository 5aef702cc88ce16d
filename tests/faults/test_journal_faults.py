"""The journal: incomplete tails, flipped bits, full and failing disks; acknowledged records stay readable."""

import errno
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from service_fixtures import Disk, records
from spatialnet_edge.cli.app import app
from spatialnet_edge.core.errors import Refused, SinkRefused
from spatialnet_edge.sinks.journal import BLOCK_BYTES, Journal, on_disk
from spatialnet_edge.sinks.journal_reader import PIN, read_journal, read_pieces, read_segment, segments, to_line


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
    """Two lines if the bit adds or removes a line feed."""
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


@pytest.mark.fault(38)
def test_a_full_disk_costs_the_oldest_segments_then_records_and_is_reported_once(tmp_path: Path) -> None:
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
    """Out of inodes: the open segment can still be written, and a new segment needs the deletion of an old one."""
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
def test_a_late_write_error_loses_only_unsynced_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worn card: `write` succeeds in the page cache, `fdatasync` reports the error."""
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
def test_a_real_full_disk_is_survived(tmp_path: Path) -> None:
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


def blocks_of(folder: Path) -> int:
    return sum(on_disk(path.stat().st_size) for path in segments(folder))


@pytest.mark.fault(59)
@pytest.mark.parametrize("total", [100_000, 2_000_000])
def test_a_cap_holds_though_the_segment_is_larger_than_it(tmp_path: Path, total: int) -> None:
    journal = Journal(tmp_path, total_bytes=total)
    highest = 0
    for n in range(3 * total // 5000):
        assert journal.append({"n": n, "text": "y" * 5000})
        highest = max(highest, blocks_of(tmp_path))
    journal.close()
    assert total // 2 < highest <= total
    assert records(tmp_path)[-1] == 3 * total // 5000 - 1


@pytest.mark.fault(59)
def test_a_thousand_starts_do_not_make_a_thousand_files(tmp_path: Path) -> None:
    for n in range(1000):
        journal = Journal(tmp_path, total_bytes=200_000)
        journal.append({"n": n})
        journal.close()
    assert len(segments(tmp_path)) == 1
    assert records(tmp_path) == list(range(1000))


@pytest.mark.fault(59)
def test_the_cap_counts_blocks_of_the_disk(tmp_path: Path) -> None:
    for number in range(1, 101):
        (tmp_path / f"{number:09d}.log").write_bytes(to_line(b"{}"))  # 12 bytes, and a block each
    journal = Journal(tmp_path, total_bytes=20 * BLOCK_BYTES)
    journal.append({"n": 1})
    journal.close()
    assert blocks_of(tmp_path) <= 20 * BLOCK_BYTES


@pytest.mark.fault(59)
def test_a_folder_belongs_to_one_log_whatever_its_spelling(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    journal = Journal(tmp_path / "results")
    for other in (tmp_path / "results", tmp_path / "x" / ".." / "results"):
        with pytest.raises(SinkRefused, match="another log uses this folder"):
            Journal(other)
    journal.close()
    Journal(tmp_path / "results").close()


@pytest.mark.fault(59)
def test_a_large_last_segment_is_not_read_into_memory(tmp_path: Path) -> None:
    line = to_line(msgspec.json.encode({"n": 0, "text": "y" * 1000}))
    with (tmp_path / "000000001.log").open("wb") as file:
        for _ in range(64):
            file.write(line * 1000)
        file.write(b"torn")
    program = (
        "import resource, sys; from pathlib import Path; from spatialnet_edge.sinks.journal import Journal\nfrom "
        "spatialnet_edge.sinks.journal_reader import read_journal\nbefore = "
        "resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\nJournal(Path(sys.argv[1])).close()\ncount = "
        "sum(len(reading.records) for reading in read_journal(Path(sys.argv[1])))\nprint(count, "
        "resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    count, grown_kb = map(int, done.stdout.split())
    assert count == 64_000
    assert grown_kb < 40_000


@pytest.mark.fault(59)
def test_no_link_device_or_folder_is_taken_for_a_segment(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"important text without newline")
    folder = tmp_path / "log"
    folder.mkdir()
    (folder / "000000001.log").symlink_to(victim)
    (folder / "000000002.log").symlink_to("/dev/zero")
    os.mkfifo(folder / "000000003.log")
    (folder / "000000004.log").mkdir()
    (folder / "000000005.log").symlink_to(tmp_path / "nothing")
    (folder / "²³.log").write_bytes(b"")
    journal = Journal(folder, total_bytes=20 * BLOCK_BYTES)
    for n in range(100):
        assert journal.append({"n": n, "text": "y" * 2000})
    journal.close()
    assert victim.read_bytes() == b"important text without newline"
    assert records(folder)[-1] == 99
    assert not (tmp_path / "nothing").exists()
    assert min(int(path.stem) for path in segments(folder)) > 5


def test_the_number_after_nine_digits_is_the_newest(tmp_path: Path) -> None:
    for number in (999_999_999, 1_000_000_000):
        (tmp_path / f"{number}.log").write_bytes(to_line(b'{"n":%d}' % number))
    journal = Journal(tmp_path)
    journal.append({"n": 1})
    journal.close()
    assert records(tmp_path) == [999_999_999, 1_000_000_000, 1]


@given(st.lists(st.sampled_from([b"x", b"\n", b"yy" * 40, to_line(b"{}"), to_line(b'{"n":1}') * 9]), max_size=40))
@settings(max_examples=100, deadline=None)
def test_reading_in_pieces_finds_what_reading_at_once_does(parts: list[bytes]) -> None:
    content = b"".join(parts)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("spatialnet_edge.sinks.journal_reader.PIECE_BYTES", 100)
        path = Path(folder) / "000000001.log"
        path.write_bytes(content)
        readings = list(read_pieces(path))
    whole = read_segment(content)
    assert [record for reading in readings for record in reading.records] == list(whole.records)
    assert bool(sum(reading.damaged for reading in readings)) == bool(whole.damaged)


def test_files_of_a_journal_are_for_the_owner_and_the_group_whatever_the_umask(tmp_path: Path) -> None:
    for umask in (0, 0o077):
        before = os.umask(umask)
        try:
            Journal(tmp_path / oct(umask)).close()
        finally:
            os.umask(before)
        assert segments(tmp_path / oct(umask))[0].stat().st_mode & 0o777 == 0o640
