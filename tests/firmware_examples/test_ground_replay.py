"""An archive replayed on the ground gives the labels of the flight, in one process and, where Ray is installed, in several."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import spatialnet_edge
from conftest import CLIP, ROOT

PROGRAM = ROOT / "firmware_examples" / "ground_replay" / "ground_replay.py"


@pytest.fixture
def footage(tmp_path: Path) -> Path:
    folder = tmp_path / "footage"
    (folder / "day").mkdir(parents=True)
    for name in ("a.mp4", "day/b.mp4"):
        shutil.copy(CLIP, folder / name)
    (folder / "notes.txt").write_text("not footage")
    return folder


def replay(tmp_path: Path, footage: Path, *options: str) -> tuple[str, bytes]:
    output = tmp_path / "results.jsonl"
    command = [sys.executable, str(PROGRAM), "builtin:student", str(footage), str(output), *options]
    environment = os.environ | {"RAY_worker_niceness": "0"}  # Ray's default of 15 starves its workers on a busy computer
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout, output.read_bytes()


def test_the_replay_equals_the_flight(footage: Path, tmp_path: Path) -> None:
    results = spatialnet_edge.stream("builtin:student", str(CLIP))
    flown = [json.loads(json.dumps(result.to_dict()["predictions"])) for result in results]
    printed, content = replay(tmp_path, footage)
    records = [json.loads(line) for line in content.splitlines()]
    assert printed.startswith("484 frames of 2 files")
    expected = [(name, seq) for name in ("a.mp4", "b.mp4") for seq in range(242)]
    assert [(record["source"], record["seq"]) for record in records] == expected
    assert [record["predictions"] for record in records] == flown * 2


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed (extra replay)")
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing_but_the_time(footage: Path, tmp_path: Path, workers: int) -> None:
    _, alone = replay(tmp_path, footage)
    _, spread = replay(tmp_path, footage, "--workers", str(workers))
    assert spread == alone


def test_nothing_to_replay_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, str(PROGRAM), "builtin:student", str(tmp_path), str(tmp_path / "x")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "nothing to replay" in done.stderr
