"""Sinks whose peer disconnects, hangs or is absent."""

import socket
import threading
import time
from pathlib import Path
from typing import ClassVar

import pytest

from mqtt_broker import free_port
from service_fixtures import result, start, wait_for
from spatialnet_edge.core.errors import SinkRefused
from spatialnet_edge.core.results import FrameResult
from spatialnet_edge.runtime.outputs import open_outputs
from spatialnet_edge.sinks.queued import QueuedSink
from spatialnet_edge.sinks.registry import open_sink
from spatialnet_edge.sinks.unix import MOST_CLIENTS


class Moody:
    """A sink that fails on every fifth result and keeps the others."""

    kept: ClassVar[list[int]] = []
    wants_pixels = False

    def write(self, each: FrameResult) -> None:
        assert each.frame.pixels.size == 0
        if each.seq % 5 == 4:
            raise OSError("peer gone")
        self.kept.append(each.seq)

    def close(self) -> None: ...


@pytest.mark.fault(42)
def test_a_sink_whose_peer_disconnects_is_reopened(monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.mark.fault(42)
def test_a_peer_that_is_not_there_at_start_is_waited_for(payload: Path) -> None:
    """A vehicle may start before its link is up: the service is ready without a broker."""
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


class Unplugged(Moody):
    """A serial link that breaks while idle, and works after reopening."""

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


def test_two_sinks_of_one_kind_have_different_names(tmp_path: Path) -> None:
    uris = (f"log:{tmp_path / 'a'}", f"log:{tmp_path / 'b'}", "null:")
    sinks = open_outputs(uris, live=True, wait=True, report=lambda kind, detail: None)
    assert [sink.name for sink in sinks] == ["log", "log-2", "null"]
    for sink in sinks:
        sink.close()


def test_an_unreachable_sink_gets_later_results(monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.mark.fault(66)
def test_the_socket_of_a_living_process_is_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_UNIX, kind) as daemon:
            daemon.bind(str(path))
            if kind != socket.SOCK_DGRAM:
                daemon.listen(1)
            with pytest.raises(SinkRefused, match="another process listens on this socket"):
                open_sink(f"unix:{path}")
            assert path.is_socket()
        open_sink(f"unix:{path}").close()  # the daemon is gone, and has left its socket behind
        assert not path.exists()
    first = open_sink(f"unix:{path}")
    with pytest.raises(SinkRefused, match="another process listens"):
        open_sink(f"unix:{path}")
    path.unlink()
    second = open_sink(f"unix:{path}")
    first.close()
    assert path.is_socket()  # of the second, which the first must not remove
    second.close()


@pytest.mark.fault(67)
def test_many_clients_use_up_no_descriptors(tmp_path: Path) -> None:
    sink = open_sink(f"unix:{tmp_path / 'x.sock'}")
    clients: list[socket.socket] = []
    for _ in range(3 * MOST_CLIENTS):
        client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        client.settimeout(2)
        client.connect(str(tmp_path / "x.sock"))
        clients.append(client)
        sink.flush()  # type: ignore[attr-defined]
    sink.write(result(1))
    got = [bool(client.recv(4096)) for client in clients]
    assert got == [True] * MOST_CLIENTS + [False] * 2 * MOST_CLIENTS
    assert sink.turned_away == 2 * MOST_CLIENTS  # type: ignore[attr-defined]
    for client in clients:
        client.close()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as late:
        late.settimeout(2)
        late.connect(str(tmp_path / "x.sock"))
        sink.write(result(2))
        assert late.recv(4096)
    sink.close()
