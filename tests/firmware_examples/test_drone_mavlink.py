"""The companion computer with a simulated autopilot that uses real MAVLink, over UDP and over a serial line."""

import json
import os
import pty
import subprocess
import sys
import threading
import time
import tty
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from conftest import CLIP, ROOT, TINY, clip_frames
from spatialnet_edge.api import load
from spatialnet_edge.bundle.reader import open_bundle
from spatialnet_edge.core.errors import SinkError, UsageError
from spatialnet_edge.core.frames import Frame
from spatialnet_edge.core.results import FrameResult, assemble
from spatialnet_edge.sinks.mavlink import ALLOWED, PART, TUNNEL_TYPE, MavlinkSink, TunnelReader, split_record
from spatialnet_edge.sinks.record_codec import Record, pack
from spatialnet_edge.sources.mavlink_pose import load_mavutil

pytest.importorskip("pymavlink")
mavutil = load_mavutil()
PROGRAM = ROOT / "firmware_examples" / "drone_mavlink" / "drone_mavlink.py"


def result(seq: int) -> FrameResult:
    rows = {
        "shade": np.array([0.2, 0.8], np.float32),
        "bands": np.array([0.9, 0.1, 0.7], np.float32),
        "level": np.array([3], np.float32),
    }
    return assemble(TINY, Frame(np.zeros((4, 4, 3), np.uint8), seq, "tests"), rows, 1.0, ())


def received(link, seconds: float, until: int = 10**9) -> list:
    found: list = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and len(found) < until:
        message = link.recv_match(blocking=True, timeout=0.1)
        if message is not None:
            found.append(message)
    return found


def tunnelled(messages: list) -> list[Record]:
    """The records in the TUNNEL messages."""
    reader = TunnelReader()
    payloads = [bytes(m.payload[: m.payload_length]) for m in messages if m.get_type() == "TUNNEL"]
    return [record for payload in payloads if (record := reader.feed(payload)) is not None]


def test_the_shipped_students_records_go_through_the_tunnel() -> None:
    """Eight heads make 196 bytes, and TUNNEL takes 128."""
    autopilot = mavutil.mavlink_connection("udpin:127.0.0.1:14789")
    sink = MavlinkSink("udpout:127.0.0.1:14789")
    with load("builtin:student") as model:
        answered = model(clip_frames(1)[0])
    sink.write(answered)
    records = tunnelled(received(autopilot, 0.5))
    sink.close()
    autopilot.close()
    assert len(pack(answered)) > 128
    assert [len(record.answers) for record in records] == [len(answered.predictions)]
    assert records[0].bundle == open_bundle("builtin:student").short_hash


def test_a_lost_part_loses_only_its_record() -> None:
    first, second = (split_record(pack(result(seq)), seq) for seq in (1, 2))
    assert len(first) == 1
    long = [PART.pack(3, index, 2) + b"x" for index in range(2)]
    reader = TunnelReader()
    assert reader.feed(long[0]) is None
    found = reader.feed(second[0])
    assert found is not None
    assert found.seq == 2
    for broken in (b"", b"\0\0\1", PART.pack(1, 2, 2) + b"x", first[0][:-1]):
        with pytest.raises(ValueError, match=r".+"):
            reader.feed(broken)


def test_the_budget_takes_whole_records_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    sink = MavlinkSink("udpout:127.0.0.1:14790?budget=300")
    sent: list[str] = []
    send = sink.send
    monkeypatch.setattr(sink, "send", lambda message, **how: (sent.append(message.get_type()), send(message, **how)))
    for seq in range(20):
        sink.write(result(seq))
    sink.close()
    assert sent.count("NAMED_VALUE_FLOAT") == 60
    assert 0 < sent.count("TUNNEL") < 5
    assert sink.over_budget > 10


def test_it_is_an_onboard_computer_and_reports_every_head() -> None:
    autopilot = mavutil.mavlink_connection("udpin:127.0.0.1:14781")
    sink = MavlinkSink("udpout:127.0.0.1:14781?text=shade&system=7")
    for seq in range(3):
        sink.write(result(seq))
    messages = received(autopilot, 1.0)
    sink.close()
    autopilot.close()
    kinds = [message.get_type() for message in messages]
    assert set(kinds) == ALLOWED
    assert kinds.count("NAMED_VALUE_FLOAT") == 9
    assert kinds.count("STATUSTEXT") == 1  # it did not change
    assert {(message.get_srcSystem(), message.get_srcComponent()) for message in messages} == {(7, 191)}
    beat = next(message for message in messages if message.get_type() == "HEARTBEAT")
    assert beat.type == mavutil.mavlink.MAV_TYPE_ONBOARD_CONTROLLER
    values = {message.name: round(message.value, 3) for message in messages if message.get_type() == "NAMED_VALUE_FLOAT"}
    assert values == {"shade": 0.8, "bands": 2.0, "level": 3.0}
    assert next(message.text for message in messages if message.get_type() == "STATUSTEXT") == "shade: bright 80%"
    tunnel = next(message for message in messages if message.get_type() == "TUNNEL")
    assert tunnel.payload_type == TUNNEL_TYPE
    assert [record.seq for record in tunnelled(messages)] == [0, 1, 2]
    assert [message.get_seq() for message in messages] == list(range(len(messages)))  # nothing was lost


def test_a_command_is_never_sent() -> None:
    sink = MavlinkSink("udpout:127.0.0.1:14782")
    mav = mavutil.mavlink
    with pytest.raises(SinkError, match="COMMAND_LONG is not on the allow-list"):
        sink.send(mav.MAVLink_command_long_message(1, 1, mav.MAV_CMD_COMPONENT_ARM_DISARM, 0, 1, 0, 0, 0, 0, 0, 0))
    sink.close()
    with pytest.raises(UsageError, match="no option 'arm'"):
        MavlinkSink("udpout:127.0.0.1:14782?arm=1")


def test_the_byte_budget_holds_and_heartbeats_are_always_sent() -> None:
    autopilot = mavutil.mavlink_connection("udpin:127.0.0.1:14783")
    sink = MavlinkSink("udpout:127.0.0.1:14783?budget=500")
    started = time.monotonic()
    while time.monotonic() - started < 2.2:
        sink.write(result(int((time.monotonic() - started) * 1000)))
        time.sleep(0.01)
    messages = received(autopilot, 0.5)
    sink.close()
    autopilot.close()
    paid = sum(len(message.get_msgbuf()) for message in messages if message.get_type() != "HEARTBEAT")
    assert paid <= 500 * (2.2 + 1)
    assert sink.over_budget > 10
    assert sum(message.get_type() == "HEARTBEAT" for message in messages) >= 2


class Autopilot:
    """Simulates a flight to the north, sends its position ten times per second, and keeps received messages. Its link can be
    interrupted."""

    def __init__(self, out, heard) -> None:
        self.out, self.heard = out, heard
        self.messages: list = []
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.fly, daemon=True)
        self.thread.start()

    def fly(self) -> None:
        step = 0
        while not self.stop.is_set():
            self.out.mav.heartbeat_send(2, 3, 0, 0, 4)
            self.out.mav.attitude_send(0, 0.0, 0.1, 1.0, 0, 0, 0)
            self.out.mav.global_position_int_send(0, 508200000 + step * 100, -1400000, 90000, 60000, 0, 0, 0, 0)
            step += 1
            until = time.monotonic() + 0.1
            while time.monotonic() < until:
                message = self.heard.recv_match(blocking=True, timeout=0.02)
                if message is not None and message.get_srcComponent() == 191:
                    self.messages.append(message)

    def close(self) -> list:
        self.stop.set()
        self.thread.join()
        for link in {id(link): link for link in (self.out, self.heard) if hasattr(link, "close")}.values():
            link.close()
        return self.messages


def fly(tmp_path: Path, *options: str) -> SimpleNamespace:
    places = tmp_path / "places.geojsonl"
    command = [sys.executable, str(PROGRAM), "builtin:student", str(CLIP), "--places", str(places), "--budget", "0", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    features = [json.loads(line) for line in places.read_text().splitlines()]
    return SimpleNamespace(output=done.stdout, features=features)


def check(flown: SimpleNamespace, messages: list) -> None:
    assert flown.output.startswith("242 frames")
    assert len(flown.features) > 100  # the first frames are older than the first position
    last = flown.features[-1]["geometry"]
    assert last["type"] == "Point"
    longitude, latitude, altitude = last["coordinates"]
    assert (longitude, altitude) == (-0.14, 90.0)
    assert 50.82 <= latitude < 50.83
    kinds = {message.get_type() for message in messages}
    assert {"HEARTBEAT", "NAMED_VALUE_FLOAT", "STATUSTEXT"} <= kinds <= ALLOWED
    assert any(message.get_type() == "STATUSTEXT" and message.text.startswith("land_use: ") for message in messages)


def test_the_program_over_udp(tmp_path: Path) -> None:
    autopilot = Autopilot(
        mavutil.mavlink_connection("udpout:127.0.0.1:14785", source_system=1, source_component=1),
        mavutil.mavlink_connection("udpin:127.0.0.1:14786"),
    )
    flown = fly(tmp_path, "--autopilot", "udpout:127.0.0.1:14786", "--listen", "udpin:127.0.0.1:14785")
    check(flown, autopilot.close())


def test_the_program_over_a_serial_line(tmp_path: Path) -> None:
    """Two pseudo-terminals wired together: one device file for the companion, the other end for the autopilot."""
    pytest.importorskip("serial")
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    device = os.ttyname(theirs)
    mavlink = mavutil.mavlink

    class Wire:
        """The autopilot's end of the line."""

        def __init__(self) -> None:
            self.mav = mavlink.MAVLink(self, srcSystem=1, srcComponent=1)
            self.mav.robust_parsing = True

        def write(self, content: bytes) -> None:
            os.write(ours, content)

        def recv_match(self, blocking: bool, timeout: float):
            import select

            if not select.select([ours], [], [], timeout)[0]:
                return None
            messages = self.mav.parse_buffer(os.read(ours, 4096)) or []
            kept.extend(message for message in messages[:-1] if message.get_srcComponent() == 191)
            return messages[-1] if messages else None

    kept: list = []
    wire = Wire()
    autopilot = Autopilot(wire, wire)
    flown = fly(tmp_path, "--autopilot", device, "--baud", "921600")
    messages = [*autopilot.close(), *kept]
    os.close(ours)
    os.close(theirs)
    check(flown, messages)


def test_a_link_that_is_lost_comes_back() -> None:
    """First without a listener, then with one: only datagrams without a receiver are lost."""
    sink = MavlinkSink("udpout:127.0.0.1:14788")
    for seq in range(5):
        sink.write(result(seq))
    autopilot = mavutil.mavlink_connection("udpin:127.0.0.1:14788")
    for seq in range(5, 10):
        sink.write(result(seq))
    heard = received(autopilot, 0.5)
    sink.close()
    autopilot.close()
    assert [record.seq for record in tunnelled(heard)] == [5, 6, 7, 8, 9]
