"""Fixtures of the fault tests: a service with the tiny model, and a small disk."""

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from conftest import TINY, write_tiny_bundle
from spatialnet_edge.bundle.slots import Slots
from spatialnet_edge.bundle.trust import Trust
from spatialnet_edge.core.frames import Frame
from spatialnet_edge.core.results import FrameResult, assemble
from spatialnet_edge.service.health import Health, read_health
from spatialnet_edge.sinks.journal_reader import read_journal

ANY = Trust(allow_unsigned=True)
COMMAND = [sys.executable, "-m", "spatialnet_edge"]


def records(folder: Path) -> list[int]:
    return [json.loads(record)["n"] for reading in read_journal(folder) for record in reading.records]


class Disk:
    """Simulates `os.write` on a disk with limited space; writes at most `most` bytes at once."""

    def __init__(self, room: int, most: int = 10**9) -> None:
        self.room, self.most = room, most

    def write(self, descriptor: int, content: memoryview) -> int:
        if self.room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = os.write(descriptor, content[: min(self.room, self.most)])
        self.room -= taken
        return taken


def result(seq: int) -> FrameResult:
    rows = {"shade": np.array([0.2, 0.8], np.float32), "bands": np.zeros(3, np.float32), "level": np.array([3], np.float32)}
    return assemble(TINY, Frame(np.zeros((8, 8, 3), np.uint8), seq, "tests"), rows, 1.0, ())


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
    """A separate disk, if this user may mount one; 400 kB by default."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={getattr(request, 'param', '400k')}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """A file that fills the disk."""
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


def wait_for(health: Path, condition, seconds: float = 60.0) -> Health:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if health.exists() and condition(found := read_health(health)):
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {health.read_text() if health.exists() else 'no health file'}")
