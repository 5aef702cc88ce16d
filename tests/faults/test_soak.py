"""A million frames leave nothing behind; and the same measurement finds a leak of 100 bytes a frame."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).with_name("soak.py")
FRAMES_AN_HOUR = 30 * 3600
MB = 1_000_000


def soak(frames: int, leak: int) -> dict[str, Any]:
    command = [sys.executable, str(PROGRAM), str(frames), str(leak)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def allowed(frames: int) -> float:
    """One megabyte an hour at 30 frames a second, and never more than 16."""
    return min(16 * MB, MB * frames / FRAMES_AN_HOUR)


@pytest.mark.timeout(1800)
def test_a_million_frames_leave_nothing_behind() -> None:
    found = soak(1_000_000, leak=0)
    assert found["growth"]["rss"] <= allowed(1_000_000), found
    assert found["growth"]["descriptors"] == 0, found
    assert found["growth"]["threads"] <= 0, found
    assert found["children"] == 0
    ledger = found["ledger"]
    assert (ledger["captured"], ledger["emitted"], ledger["in_flight"]) == (1_000_000, 999_000, 0)
    assert ledger["skipped"] == {"decode_error": 1000}


@pytest.mark.timeout(600)
def test_a_leak_of_100_bytes_a_frame_is_found() -> None:
    assert soak(200_000, leak=100)["growth"]["rss"] > allowed(200_000)
