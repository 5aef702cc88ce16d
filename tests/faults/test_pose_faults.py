"""A MAVLink network with several senders: only plausible positions of one system and component are used."""

import random
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mqtt_broker import free_port
from spatialnet_edge.core.frames import Pose
from spatialnet_edge.sources.mavlink_pose import MavlinkPose, load_mavutil
from spatialnet_edge.sources.pose import Autopilot, parse_pose

pytest.importorskip("pymavlink")
mavlink = load_mavutil().mavlink
Send = Callable[[Any], None]


class Network:
    """A listener, and senders to it."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.port = free_port()
        self.pose = MavlinkPose(
            Autopilot(f"udpin:127.0.0.1:{self.port}"), report=lambda kind, detail: self.told.append((kind, detail))
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


def test_the_autopilot_can_be_another() -> None:
    assert parse_pose("mavlink:/dev/ttyTHS1?baud=921600&system=3&component=2") == Autopilot("/dev/ttyTHS1", 921600, 3, 2)
