"""Standard error that nobody reads: a real service with a full pipe."""

import fcntl
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from service_fixtures import COMMAND, wait_for
from spatialnet_edge.service.diagnostics import LINE_BYTES, MOST_WAITING, Diagnostics, to_bytes
from spatialnet_edge.sinks.journal_reader import read_journal

F_SETPIPE_SZ = 1031
PIPE_BYTES = 4096


def full_pipe() -> tuple[int, int]:
    """A pipe with no room at all, and its two ends."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, F_SETPIPE_SZ, PIPE_BYTES)
    os.set_blocking(writer, False)
    assert os.write(writer, bytes(PIPE_BYTES)) == PIPE_BYTES
    os.set_blocking(writer, True)
    return reader, writer


@pytest.mark.fault(46)
def test_a_service_works_and_ends_though_nobody_reads_its_standard_error(payload: Path) -> None:
    folder = payload.parent
    reader, writer = full_pipe()
    payload.write_text(payload.read_text().replace("synthetic:frames=100000&size=64x48&fps=50", "faulty:ok*3,lost"))
    service = subprocess.Popen([*COMMAND, "serve", "--config", str(payload)], stderr=writer)
    os.close(writer)
    try:
        health = wait_for(folder / "health.json", lambda found: found.events.get("camera_lost", 0) >= 3, 40)
        asked = time.monotonic()
        service.terminate()
        assert service.wait(10) == 0
        assert time.monotonic() - asked < 6
    finally:
        service.kill()
        os.close(reader)
    (figures,) = health.sources.values()
    assert figures["ledger"]["captured"] >= 9
    assert figures["ledger"]["emitted"] >= 3
    events = [record for reading in read_journal(folder / "root" / "events") for record in reading.records]
    assert len(events) >= 6  # the journal has the lines that standard error lacks


@pytest.mark.fault(46)
@pytest.mark.parametrize("change", [('"null:"', '"lgo:/x"'), ("allow_unsigned = true", "")])
def test_a_refusal_ends_with_its_status_though_nobody_reads_it(payload: Path, change: tuple[str, str]) -> None:
    reader, writer = full_pipe()
    payload.write_text(payload.read_text().replace(*change))
    service = subprocess.Popen([*COMMAND, "serve", "--config", str(payload)], stderr=writer)
    os.close(writer)
    try:
        assert service.wait(30) == 78
    finally:
        service.kill()
        os.close(reader)


@pytest.mark.fault(46)
def test_a_hang_ends_the_process_though_nobody_reads_its_trace() -> None:
    program = (
        "import time\nfrom spatialnet_edge.service.diagnostics import unblock_standard_error\n"
        "from spatialnet_edge.service.watchdog import Watchdog\n"
        "unblock_standard_error()\nwatchdog = Watchdog(['lane'], hang_s=0.5)\ntime.sleep(60)"
    )
    reader, writer = full_pipe()
    process = subprocess.Popen([COMMAND[0], "-c", program], stderr=writer)
    try:
        assert process.wait(20) == 1
        assert os.get_blocking(writer)  # the flag of other users of this pipe has not changed
    finally:
        process.kill()
        os.close(reader)
        os.close(writer)


def test_lines_wait_for_a_slow_reader_and_are_counted_when_they_are_too_many() -> None:
    reader, writer = full_pipe()
    diagnostics = Diagnostics(writer)
    for number in range(MOST_WAITING + 50):
        diagnostics.say(f"line {number}")
    time.sleep(0.1)
    assert 49 <= diagnostics.dropped <= 50  # one is in the thread's hand
    assert os.read(reader, PIPE_BYTES) == bytes(PIPE_BYTES)
    got = b""
    while got.count(b"\n") < MOST_WAITING:
        got += os.read(reader, PIPE_BYTES)
    assert got.splitlines()[:2] == [b"line 0", b"line 1"]
    diagnostics.close()
    for descriptor in (reader, writer):
        os.close(descriptor)


def test_a_line_is_whole_or_not_there() -> None:
    assert to_bytes("é" * 10_000).endswith(b"\n")
    assert len(to_bytes("é" * 10_000)) <= LINE_BYTES
    assert to_bytes("\ud800") == b"\\ud800\n"


def test_the_signal_reaches_a_service_that_is_told_twice(payload: Path) -> None:
    service = subprocess.Popen([*COMMAND, "serve", "--config", str(payload)], stderr=subprocess.DEVNULL)
    wait_for(payload.parent / "health.json", lambda found: found.state == "READY")
    service.send_signal(signal.SIGINT)
    service.terminate()
    assert service.wait(10) == 0
