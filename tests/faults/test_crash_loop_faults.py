"""Crash loops, the lock of the device, and clocks that jump."""

import os
import time
from pathlib import Path

import msgspec
import pytest

from service_fixtures import result
from spatialnet_edge.core.clock import boot_id, since_boot
from spatialnet_edge.core.errors import Busy
from spatialnet_edge.service.crash_loop import MAX_STARTS, WITHIN_S, Start, count_start, forget_starts, note_lasted
from spatialnet_edge.service.health import Health, verdict
from spatialnet_edge.service.lock import device_lock


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
def test_a_jump_of_the_wall_clock_affects_no_timer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten years back, then forward: no effect on starts, health and age; the record has both clocks and the boot id."""
    for wall in (1.0, 2e9):
        monkeypatch.setattr(time, "time", lambda wall=wall: wall)
        assert not count_start(tmp_path)
        health = Health(
            working=True,
            state="READY", why=(), pid=1, boot=boot_id(), at_s=since_boot(), up_s=1.0, unix=wall
        )  # fmt: skip
        assert verdict(health) == (True, "READY")
        found = result(0)
        assert 0 <= found.age_ms < 1000
        assert found.to_dict()["captured_unix"] > 0
        assert found.to_dict()["boot"] == boot_id()
    assert verdict(msgspec.structs.replace(health, at_s=since_boot() - 60))[0] is False
    assert verdict(msgspec.structs.replace(health, boot="earlier"))[0] is False
