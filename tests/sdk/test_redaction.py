"""User and password of a URI appear nowhere: not in results, errors, events, health, nor in a process's arguments."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

import spatialnet_edge
from spatialnet_edge.core.errors import SourceLost
from spatialnet_edge.core.redaction import redacted
from spatialnet_edge.sources.supervised import SupervisedSource

URI = "rtsp://pilot:S3cret@127.0.0.1:1/x"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://pilot:S3cret@10.0.0.1:554/x", "rtsp://***@10.0.0.1:554/x"),
        ("rtsp://pilot:S3/c@r?et@10.0.0.1/x: no stream", "rtsp://***@10.0.0.1/x: no stream"),
        ("rtsp://pilot:1234/5@10.0.0.1/x", "rtsp://***@10.0.0.1/x"),
        ("rtsp://token@host/x", "rtsp://***@host/x"),
        ("'rtsp://u:p@h/1' and rtsp://u2:p2@h/2", "'rtsp://***@h/1' and rtsp://***@h/2"),
        ("http://h/video?user=admin&pwd=xyz&size=3", "http://h/video?user=***&pwd=***&size=3"),
        ("gst:rtspsrc location=rtsp://h/d user-id=admin user-pw=xx ! queue", None),
        ("mqtts://host/fleet?username=uav&password_file=/etc/key", "mqtts://host/fleet?username=***&password_file=/etc/key"),
        ("rtsp://host:8554/plain?fps=3", "rtsp://host:8554/plain?fps=3"),
        ("folder/a@b.jpg", "folder/a@b.jpg"),
    ],
)
def test_credentials_are_replaced_and_nothing_else(text: str, shown: str | None) -> None:
    assert redacted(text) == (shown or "gst:rtspsrc location=rtsp://h/d user-id=*** user-pw=*** ! queue")
    assert redacted(redacted(text)) == redacted(text)


def test_no_error_shows_a_password() -> None:
    assert str(SourceLost(f"{URI}: gone")) == "rtsp://***@127.0.0.1:1/x: gone"


@pytest.mark.fault(73)
def test_a_password_is_in_no_argument_and_no_message(tiny_path: Path) -> None:
    command = [sys.executable, "-m", "spatialnet_edge", "run", str(tiny_path), URI, "--no-wait"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 78
    assert "127.0.0.1:1/x" in done.stderr
    assert "S3cret" not in done.stdout + done.stderr
    assert "pilot" not in done.stdout + done.stderr
    earlier = set(psutil.Process().children())
    source = SupervisedSource(URI)
    frames = iter(source)
    reader = threading.Thread(target=lambda: next(frames, None), daemon=True)
    reader.start()
    until = time.monotonic() + 10
    while not (children := set(psutil.Process().children()) - earlier) and time.monotonic() < until:
        time.sleep(0.01)
    assert children
    assert all("S3cret" not in " ".join(child.cmdline()) for child in children)
    source.close()
    reader.join(timeout=20)


def test_results_carry_the_name_and_not_the_password(tiny_path: Path, tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    uri = "faulty:ok*3,ok#rtsp://pilot:S3cret@h"  # a source whose own text holds a password
    with spatialnet_edge.load(tiny_path) as model:
        named = list(model.stream("faulty:ok*3", policy="queue:9", name="front", sinks=[f"jsonl:{file}"]))
        assert {result.source for result in named} == {"front"}
        assert {json.loads(line)["source"] for line in file.read_text().splitlines()} == {"front"}
        results = model.stream(uri, wait=False)
        assert results.name == "faulty:ok*3,ok#rtsp://***@h"
        results.close()
        still = model.stream("synthetic:frames=2", name="test")
        assert {result.source for result in still} == {"test"}
