"""Sinks that reach other computers, against real peers: sockets, and a real MQTT broker with TLS."""

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from conftest import TINY
from mqtt_broker import Broker, free_port
from spatialnet_edge.core.errors import SinkError, UsageError
from spatialnet_edge.core.frames import Frame
from spatialnet_edge.core.results import FrameResult, assemble
from spatialnet_edge.sinks.budget import Budget
from spatialnet_edge.sinks.record_codec import unpack
from spatialnet_edge.sinks.registry import open_sink


def result(seq: int) -> FrameResult:
    answers = {"shade": [0.2, 0.8], "bands": [0.9, 0.1, 0.7], "level": [3]}
    rows = {name: np.array(row, np.float32) for name, row in answers.items()}
    return assemble(TINY, Frame(np.zeros((4, 4, 3), np.uint8), seq, "tests"), rows, 1.0, ())


def test_datagrams_are_records_and_a_missing_peer_costs_nothing() -> None:
    port = free_port()
    sink = open_sink(f"udp://127.0.0.1:{port}")
    for seq in range(3):
        sink.write(result(seq))  # no listener: the kernel reports it at the next send
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", port))
        peer.settimeout(2)
        for seq in range(3, 6):
            sink.write(result(seq))
        seen = [unpack(peer.recv(4096)).seq for _ in range(2)]
    sink.close()
    assert set(seen) <= {3, 4, 5}


@pytest.mark.fault(42)
def test_packets_are_counted_through_a_link_that_was_down() -> None:
    pytest.importorskip("spacepackets")
    told: list[str] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.settimeout(2)
        sink = open_sink(f"ccsds+udp://127.0.0.1:{peer.getsockname()[1]}")
        sink.report = lambda kind, detail: told.append(kind)
        for seq in range(5):
            if seq == 2:
                sink._socket.shutdown(socket.SHUT_WR)  # the kernel refuses the next one
            sink.write(result(seq))
        counts = [int.from_bytes(peer.recv(4096)[2:4], "big") & 0x3FFF for _ in range(4)]
    sink.close()
    sink.close()
    assert counts == [0, 1, 3, 4]
    assert sink.lost == 1
    assert told == ["sink_failed", "sink_back"]


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("udp:", "no host"),
        ("udp://host:port", "Port"),
        ("udp://127.0.0.1:9?colour=1", "no option 'colour'"),
        ("udp://127.0.0.1:9?budget=-1", "must not be negative"),
        ("udp://127.0.0.1:9?budget=many", "not a number"),
        ("mqtt://127.0.0.1:9", "no topic"),
        ("mqtt://127.0.0.1:9/fleet?qos=3", "expected 0, 1 or 2"),
    ],
)
def test_an_invalid_peer_is_refused(uri: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        open_sink(uri)


def test_a_budget_is_kept_and_what_it_refused_is_counted() -> None:
    budget = Budget(1000)
    allowed = sum(budget.allows(100) for _ in range(100))
    assert allowed in (10, 11)
    assert budget.refused == 100 - allowed
    time.sleep(0.3)
    assert 2 <= sum(budget.allows(100) for _ in range(100)) <= 4
    assert all(Budget(0).allows(10**9) for _ in range(3))


class Ground:
    """A subscriber to everything."""

    def __init__(self, port: int) -> None:
        import paho.mqtt.client as paho

        self.heard: list[tuple[str, dict, bool]] = []
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self.client.on_message = lambda client, data, message: self.heard.append(
            (message.topic, json.loads(message.payload), bool(message.retain))
        )
        self.client.on_connect = lambda *_: self.client.subscribe("fleet/#")
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    def wait(self, condition, seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if condition(self.heard):
                return
            time.sleep(0.05)
        raise AssertionError(f"not heard within {seconds} s: {self.heard[-5:]}")

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def test_results_and_health_reach_the_fleet(broker: Broker) -> None:
    ground = Ground(broker.port)
    sink = open_sink(f"mqtt://127.0.0.1:{broker.port}/fleet/seven?qos=1")
    for seq in range(5):
        sink.write(result(seq))
    ground.wait(lambda heard: sum(topic == "fleet/seven/result" for topic, _, _ in heard) == 5)
    late = Ground(broker.port)
    late.wait(lambda heard: ("fleet/seven/health", {"state": "online"}, True) in heard)
    sink.close()
    ground.wait(lambda heard: heard[-1][:2] == ("fleet/seven/health", {"state": "offline"}))
    seqs = [content["seq"] for topic, content, _ in ground.heard if topic == "fleet/seven/result"]
    assert seqs == [0, 1, 2, 3, 4]
    for each in (ground, late):
        each.close()


def test_an_aircraft_that_dies_is_reported_by_its_last_will(broker: Broker) -> None:
    ground = Ground(broker.port)
    program = (
        "import os, sys, time\nfrom spatialnet_edge.sinks.registry import open_sink\n"
        f"sink = open_sink('mqtt://127.0.0.1:{broker.port}/fleet/nine')\ntime.sleep(0.5)\nos.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program], check=False)
    ground.wait(lambda heard: ("fleet/nine/health", {"state": "offline"}) in [each[:2] for each in heard], 40)
    states = [content["state"] for topic, content, _ in ground.heard if topic == "fleet/nine/health"]
    assert states == ["online", "offline"]
    ground.close()


@pytest.mark.fault(42)
def test_a_broker_that_goes_and_comes_back_costs_results_only_meanwhile(broker: Broker) -> None:
    sink = open_sink(f"mqtt://127.0.0.1:{broker.port}/fleet/two")
    broker.stop()
    deadline = time.monotonic() + 10
    while sink.lost == 0 and time.monotonic() < deadline:  # type: ignore[attr-defined]
        sink.write(result(0))
        time.sleep(0.05)
    assert sink.lost > 0  # type: ignore[attr-defined]
    broker.start()
    ground = Ground(broker.port)
    deadline = time.monotonic() + 20
    while not any(topic == "fleet/two/result" for topic, _, _ in ground.heard) and time.monotonic() < deadline:
        sink.write(result(1))
        time.sleep(0.2)
    assert any(topic == "fleet/two/result" for topic, _, _ in ground.heard)
    sink.close()
    ground.close()


@pytest.mark.fault(42)
@pytest.mark.parametrize("qos", [0, 1])
def test_a_link_that_takes_nothing_does_not_fill_the_memory(broker: Broker, qos: int) -> None:
    """The broker is stopped: the connection stays open, and its buffers fill up."""
    ground = Ground(broker.port)
    sink = open_sink(f"mqtt://127.0.0.1:{broker.port}/fleet/ten?qos={qos}")
    assert broker.process is not None
    broker.process.send_signal(signal.SIGSTOP)
    for seq in range(60_000):
        sink.write(result(seq))
        if sink.lost:  # type: ignore[attr-defined]
            break
    broker.process.send_signal(signal.SIGCONT)
    assert sink.lost == 1  # type: ignore[attr-defined]
    ground.wait(lambda heard: ("fleet/ten/result", seq - 1) in [(topic, each.get("seq")) for topic, each, _ in heard[-1:]])
    sink.write(result(99_999))
    ground.wait(lambda heard: heard[-1][1].get("seq") == 99_999)
    assert sink.lost == 1  # type: ignore[attr-defined]
    sink.close()
    ground.close()


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # paho leaves a failed handshake's socket to the collector
def test_tls_is_checked_against_the_authority_that_was_named(broker: Broker, tmp_path: Path) -> None:
    ground = Ground(broker.port)
    where = f"mqtts://127.0.0.1:{broker.tls_port}/fleet/four"
    sink = open_sink(f"{where}?cafile={tmp_path / 'broker.pem'}")
    sink.write(result(0))
    ground.wait(lambda heard: any(topic == "fleet/four/result" for topic, _, _ in heard))
    sink.close()
    ground.close()
    with pytest.raises(SinkError, match="no broker"):
        open_sink(where)  # not signed by the system's authorities


def test_no_broker_is_an_error_with_the_address() -> None:
    pytest.importorskip("paho.mqtt.client")
    with pytest.raises(SinkError, match=r"mqtt://127\.0\.0\.1:\d+: no broker: "):
        open_sink(f"mqtt://127.0.0.1:{free_port()}/fleet/x")
