"""The fleet's page: a real broker, real sinks, and Chromium where it is installed."""

import json
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from conftest import ROOT, TINY
from mqtt_broker import Broker
from spatialnet_edge.core.frames import Frame, Pose
from spatialnet_edge.core.results import FrameResult, assemble
from spatialnet_edge.sinks.registry import open_sink

PROGRAM = ROOT / "firmware_examples" / "mqtt_fleet" / "fleet.py"


def result(seq: int, bright: float) -> FrameResult:
    answers = {"shade": [1 - bright, bright], "bands": [0.9, 0.1, 0.7], "level": [3]}
    rows = {name: np.array(row, np.float32) for name, row in answers.items()}
    frame = Frame(np.zeros((4, 4, 3), np.uint8), seq, "tests", pose=Pose(50.8225, -0.1372, 90.0))
    return assemble(TINY, frame, rows, 1.0, ())


@pytest.fixture
def page(broker: Broker) -> Iterator[str]:
    command = [sys.executable, str(PROGRAM), "--broker-port", str(broker.port), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.kill()


def events(page: str, until, seconds: float = 20.0) -> dict:
    """Collect the page's events until an expected one arrives."""
    fleet: dict = {}
    deadline = time.monotonic() + seconds
    with urllib.request.urlopen(f"{page}events", timeout=seconds) as stream:
        for line in stream:
            if line.startswith(b"data: "):
                fleet |= json.loads(line[6:])
            if until(fleet):
                return fleet
            assert time.monotonic() < deadline, fleet
    raise AssertionError(fleet)


def test_the_page_receives_every_aircraft_and_lost_ones(broker: Broker, page: str) -> None:
    heron = open_sink(f"mqtt://127.0.0.1:{broker.port}/fleet/heron")
    lost = (
        "import os, sys, time\nfrom spatialnet_edge.sinks.registry import open_sink\n"
        f"sink = open_sink('mqtt://127.0.0.1:{broker.port}/fleet/dunlin')\ntime.sleep(0.5)\nos.kill(os.getpid(), 9)"
    )
    for seq in range(5):
        heron.write(result(seq, 0.9))
        time.sleep(0.05)
    subprocess.run([sys.executable, "-c", lost], check=False)
    found = events(
        page, lambda fleet: fleet.get("dunlin", {}).get("state") == "offline" and fleet.get("heron", {}).get("result")
    )
    assert found["heron"]["state"] == "online"
    assert found["heron"]["result"]["predictions"]["shade"]["label"] == "bright"
    heron.write(result(99, 0.1))
    assert events(page, lambda fleet: fleet["heron"]["result"].get("seq") == 99)
    heron.close()
    assert events(page, lambda fleet: fleet["heron"]["state"] == "offline")
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"{page}../etc/passwd")


def test_what_a_browser_shows(broker: Broker, page: str, tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("Chromium is not on this machine")
    sinks = [open_sink(f"mqtt://127.0.0.1:{broker.port}/fleet/{name}") for name in ("heron", "plover")]
    for seq in range(5):
        for sink in sinks:
            sink.write(result(seq, 0.9))
    events(page, lambda fleet: len(fleet) == 2 and all(each["result"] for each in fleet.values()))
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path}",
        "--virtual-time-budget=4000",
        "--dump-dom",
    ]
    shown = subprocess.run(
        [chromium, *options, f"{page}?once"], capture_output=True, text=True, timeout=60, check=False
    ).stdout
    for sink in sinks:
        sink.close()
    assert "2 of 2 aircraft online" in shown
    assert re.findall(r"<h2>(\w+)<small>online", shown) == ["heron", "plover"]
    assert "bright 90 %" in shown
    assert "50.82250, -0.13720, 90 m" in shown


@pytest.mark.fault(63)
def test_a_malformed_message_does_not_break_the_page(broker: Broker, page: str) -> None:
    """Each message is retained, as an attacker would send it: the page receives it again at every start."""
    paho = pytest.importorskip("paho.mqtt.client")
    sender = paho.Client(paho.CallbackAPIVersion.VERSION2)
    sender.connect("127.0.0.1", broker.port)
    sender.loop_start()
    hostile = (
        b"[]",
        b"5",
        b"null",
        b'{"seq":NaN}',
        b"[" * 60_000,
        b'{"a":' * 9_000,
        b'{"x":"' + b"y" * 70_000 + b'"}',
        b"\xff",
    )
    for number, payload in enumerate(hostile):
        for kind in ("health", "result"):
            sender.publish(f"fleet/evil{number}/{kind}", payload, qos=1, retain=True).wait_for_publish(5)
    odd = b'{"seq":"<b>","predictions":{"a":{"value":"x","unit":3},"b":5},"pose":7}'
    sender.publish("fleet/odd/result", odd, qos=1).wait_for_publish(5)
    sender.publish("fleet/__proto__/health", b'{"state":["online"]}', qos=1).wait_for_publish(5)
    sender.publish("fleet/heron/health", b'{"state":"online"}', qos=1).wait_for_publish(5)
    found = events(page, lambda fleet: fleet.get("heron", {}).get("state") == "online")
    assert set(found) == {"odd", "heron", "__proto__"}
    assert found["__proto__"]["state"] == "unknown"
    for number in range(len(hostile)):
        for kind in ("health", "result"):
            sender.publish(f"fleet/evil{number}/{kind}", b"", qos=1, retain=True).wait_for_publish(5)
    sender.disconnect()
    sender.loop_stop()
