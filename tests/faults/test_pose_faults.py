"""A MAVLink network with several senders: only plausible positions of one system and component are used."""

import hashlib
import random
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mqtt_broker import free_port
from service_fixtures import result
from spatialnet_edge.core.errors import UsageError
from spatialnet_edge.core.frames import Pose
from spatialnet_edge.sinks.mavlink import MavlinkSink, TunnelReader, parse_mavlink
from spatialnet_edge.sources.mavlink_pose import MavlinkPose, load_mavutil
from spatialnet_edge.sources.mavlink_signing import read_signing_key, ticks_now
from spatialnet_edge.sources.pose import Autopilot, parse_pose

pytest.importorskip("pymavlink")
mavlink = load_mavutil().mavlink
Send = Callable[[Any], None]
PASSPHRASE = b"a passphrase of both ends"


class Network:
    """A listener, and senders to it."""

    def __init__(self, key_file: str = "") -> None:
        self.told: list[tuple[str, str]] = []
        self.port = free_port()
        self.pose = MavlinkPose(
            Autopilot(f"udpin:127.0.0.1:{self.port}", key_file=key_file),
            report=lambda kind, detail: self.told.append((kind, detail)),
        )
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def send(self, content: bytes) -> None:
        self.socket.sendto(content, ("127.0.0.1", self.port))

    def sender(self, system: int, component: int) -> Send:
        packer = mavlink.MAVLink(None, srcSystem=system, srcComponent=component)
        return lambda message: self.send(message.pack(packer))

    def now(self) -> Pose | None:
        time.sleep(0.3)
        return self.pose(time.monotonic_ns())


@pytest.fixture
def network() -> Iterator[Network]:
    found = Network()
    yield found
    found.pose.close()
    found.socket.close()


def at(latitude: int, longitude: int, altitude: int = 100_000) -> Any:
    return mavlink.MAVLink_global_position_int_message(0, latitude, longitude, altitude, altitude, 0, 0, 0, 0)


def attitude(roll: float, pitch: float, yaw: float) -> Any:
    return mavlink.MAVLink_attitude_message(0, roll, pitch, yaw, 0, 0, 0)


@pytest.mark.fault(49)
def test_only_the_autopilot_is_believed(network: Network) -> None:
    own, other, gimbal = network.sender(1, 1), network.sender(77, 1), network.sender(1, 154)
    own(at(500_000_000, 80_000_000))
    assert network.now() == Pose(50.0, 8.0, 100.0)
    for _ in range(3):
        other(at(-338_000_000, 1_512_000_000))
        gimbal(attitude(0, -1.5, 3))
    own(at(500_000_001, 80_000_000))
    assert network.now() == Pose(50.0000001, 8.0, 100.0)
    assert network.pose.ignored == 6
    assert [kind for kind, _ in network.told] == ["pose_ignored"] * 2
    assert "system=77&component=1" in network.told[0][1]


@pytest.mark.fault(49)
def test_impossible_numbers_are_ignored(network: Network) -> None:
    own = network.sender(1, 1)
    own(attitude(0.5, 0, 0))
    own(at(500_000_000, 80_000_000))
    before = network.now()
    assert before is not None
    assert before.roll == pytest.approx(28.65, abs=0.01)
    for wrong in (at(2**31 - 1, 0), at(0, -(2**31)), at(1, 1, -(2**31)), at(910_000_000, 80_000_000)):
        own(wrong)
    for angles in ((float("nan"), 0, 0), (0, float("inf"), 0), (0, 0, 1e30)):
        own(attitude(*angles))
    assert network.now() == before
    own(at(500_000_000, 80_000_000))
    assert network.now() == before
    assert network.pose.ignored == 7


@pytest.mark.fault(49)
def test_noise_neither_ends_the_listener_nor_fills_the_memory(network: Network) -> None:
    rng = random.Random(5)
    names = list(mavlink.mavlink_map.items())
    for count in range(4000):
        number, kind = rng.choice(names)
        packer = mavlink.MAVLink(None, srcSystem=rng.randrange(256), srcComponent=rng.randrange(256))
        message = mavlink.MAVLink_message(number, "X")
        body = bytes(rng.randrange(256) for _ in range(kind.unpacker.size))
        content = bytes(message._pack(packer, kind.crc_extra, body))
        if count % 5 == 0:
            content = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 300)))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.sendto(content, ("127.0.0.1", network.port))
        if count % 20 == 0:
            time.sleep(0.002)
    network.sender(1, 1)(at(500_000_000, 80_000_000))
    assert network.now() is not None
    link = network.pose._link
    kept = {name: len(value) for name, value in vars(link).items() if isinstance(value, dict | set | list)}
    assert max(kept.values()) < 50, kept
    assert len(network.told) <= 8


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """As `printf %s 'PASSPHRASE' | sha256sum` writes it, which is how ground stations make a key of a passphrase."""
    path = tmp_path / "mavlink.key"
    path.write_text(f"{hashlib.sha256(PASSPHRASE).hexdigest()}  -\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def signed_network(key_file: Path) -> Iterator[Network]:
    found = Network(str(key_file))
    yield found
    found.pose.close()
    found.socket.close()


def autopilot(network: Network, passphrase: bytes | None) -> Any:
    """A peer of pymavlink's own, system 1 and component 1; None for one that does not sign."""
    peer = load_mavutil().mavlink_connection(f"udpout:127.0.0.1:{network.port}", source_system=1, source_component=1)
    if passphrase is not None:
        peer.setup_signing(hashlib.sha256(passphrase).digest(), sign_outgoing=True)
    return peer


@pytest.mark.fault(77)
def test_with_a_key_only_signed_positions_are_believed(signed_network: Network) -> None:
    own, stranger, forger = (autopilot(signed_network, key) for key in (PASSPHRASE, None, b"another"))
    own.mav.send(at(500_000_000, 80_000_000))
    assert signed_network.now() == Pose(50.0, 8.0, 100.0)
    stranger.mav.send(at(-338_000_000, 1_512_000_000))
    forger.mav.send(at(-338_000_000, 1_512_000_000))
    version_1 = at(-338_000_000, 1_512_000_000).pack(mavlink.MAVLink(None, srcSystem=1, srcComponent=1), force_mavlink1=True)
    signed_network.send(version_1)
    assert signed_network.now() == Pose(50.0, 8.0, 100.0)
    assert signed_network.pose.ignored == 3
    assert [kind for kind, _ in signed_network.told] == ["pose_ignored"]
    own.mav.send(at(500_000_001, 80_000_000))
    assert signed_network.now() == Pose(50.0000001, 8.0, 100.0)
    for peer in (own, stranger, forger):
        peer.close()


@pytest.mark.fault(77)
def test_a_forged_time_stamp_does_not_shut_the_autopilot_out_and_a_replay_is_refused(signed_network: Network) -> None:
    packer = mavlink.MAVLink(None, srcSystem=1, srcComponent=1)
    packer.signing.secret_key = hashlib.sha256(PASSPHRASE).digest()
    packer.signing.sign_outgoing = True
    packer.signing.timestamp = ticks_now()
    recorded = bytes(at(500_000_000, 80_000_000).pack(packer))
    forged = bytearray(recorded)
    forged[-12:-6] = b"\xff" * 6  # the latest time stamp that there is, under a signature that does not fit
    for content in (forged, recorded):
        signed_network.send(bytes(content))
        packer.signing.timestamp += 1
    assert signed_network.now() == Pose(50.0, 8.0, 100.0)
    signed_network.send(bytes(at(510_000_000, 80_000_000).pack(packer)))
    signed_network.send(recorded)
    assert signed_network.now() == Pose(51.0, 8.0, 100.0)
    assert signed_network.pose.ignored == 2


@pytest.mark.fault(77)
def test_a_signed_sink_is_heard_by_a_peer_that_demands_signatures(key_file: Path) -> None:
    """Each part of the record comes, also after hours in which the peer's clock went on; without the key nothing does."""
    port = free_port()
    for options, expected in ((f"?key_file={key_file}", {"HEARTBEAT", "TUNNEL"}), ("", set())):
        ground = load_mavutil().mavlink_connection(f"udpin:127.0.0.1:{port}", source_system=255)
        ground.setup_signing(hashlib.sha256(PASSPHRASE).digest(), sign_outgoing=True)
        sink = MavlinkSink(f"udpout:127.0.0.1:{port}{options}")
        if options:
            sink._link.mav.signing.timestamp -= 7200 * 100_000
        sink.write(result(1))
        reader, heard, records = TunnelReader(), set(), []
        until = time.monotonic() + 1
        while time.monotonic() < until:
            message = ground.recv_match(timeout=0.1, blocking=True)
            if message is not None and message.get_type() != "BAD_DATA":
                heard.add(message.get_type())
                if message.get_type() == "TUNNEL":
                    records.append(reader.feed(bytes(message.payload[: message.payload_length])))
        assert heard >= expected
        assert bool(heard) == bool(expected)
        assert bool(records and records[-1]) == bool(expected)
        sink.close()
        ground.close()


@pytest.mark.fault(77)
def test_the_key_of_signatures_is_private(tmp_path: Path, key_file: Path) -> None:
    uri = f"mavlink:/dev/ttyTHS1?baud=921600&key_file={key_file}"
    assert parse_pose(uri).key_file == str(key_file)
    assert read_signing_key(str(key_file)) == hashlib.sha256(PASSPHRASE).digest()
    key_file.chmod(0o644)
    for parse in (parse_pose, lambda uri: parse_mavlink(uri.removeprefix("mavlink:"))):
        with pytest.raises(UsageError, match=r"others may read this signing key; run: chmod 600"):
            parse(uri)
    for content in ("", "PASSPHRASE", "ab" * 31, "ab" * 40):
        (tmp_path / "bad.key").write_text(content)
        (tmp_path / "bad.key").chmod(0o600)
        with pytest.raises(UsageError, match="no signing key; expected 64 hexadecimal digits"):
            parse_pose(f"mavlink:/dev/ttyTHS1?key_file={tmp_path}/bad.key")
    with pytest.raises(UsageError, match="cannot be read"):
        parse_pose(f"mavlink:/dev/ttyTHS1?key_file={tmp_path}/none.key")


def test_the_autopilot_can_be_another() -> None:
    assert parse_pose("mavlink:/dev/ttyTHS1?baud=921600&system=3&component=2") == Autopilot("/dev/ttyTHS1", 921600, 3, 2)
