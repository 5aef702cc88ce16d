"""Camera poses for frames: from a callback, an autopilot, or the image file (EXIF)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol, final, runtime_checkable
from urllib.parse import parse_qsl

from spatialnet_edge.core.errors import UsageError
from spatialnet_edge.core.frames import Frame, Pose, Skipped
from spatialnet_edge.core.plugins import Plugin
from spatialnet_edge.sources.mavlink_signing import read_signing_key
from spatialnet_edge.sources.registry import Source

PoseAt = Callable[[int], Pose | None]
"""Function from a monotonic time in nanoseconds to the pose; None if unknown."""


@runtime_checkable
class Closeable(Protocol):
    """A `PoseAt` with a connection. `close` is called when the source is closed."""

    def close(self) -> None: ...


CONNECTION = re.compile(r"^(?:(?:udp|udpin|udpout|udpbcast|tcp|tcpin):[^:/]+:[0-9]{1,5}|/.+)$")
"""A pymavlink connection: a network link, or the path of a serial line."""
PYMAVLINK = Plugin("spatialnet_edge.sources.mavlink_pose:MavlinkPose", "pymavlink", "mavlink")
LIMITS = {"baud": (1200, 12_500_000), "system": (1, 255), "component": (1, 255)}


@dataclass(frozen=True, slots=True)
class Autopilot:
    """The autopilot whose positions are used.

    Attributes:
        connection: in pymavlink's notation: `udpin:0.0.0.0:14550`, `/dev/ttyTHS1`, `tcp:host:port`.
        baud: of a serial line.
        system, component: of the autopilot (MAVLink's MAV_COMP_ID_AUTOPILOT1 is 1). Messages from others are ignored.
        key_file: the key of MAVLink 2's signatures (see `mavlink_signing.py`); with it, messages without a right signature are
            refused. Empty for none.
    """

    connection: str
    baud: int = 57600
    system: int = 1
    component: int = 1
    key_file: str = ""


@final
class PosedSource:
    """Wraps a source and adds the pose at capture time to every frame without one."""

    def __init__(self, source: Source, pose_at: PoseAt) -> None:
        self.uri = source.uri
        self.live = source.live
        self.length = source.length
        self.fps = source.fps
        self._source = source
        self._pose_at = pose_at

    def __iter__(self) -> Iterator[Frame | Skipped]:
        for item in self._source:
            if isinstance(item, Frame) and item.pose is None:
                yield replace(item, pose=self._pose_at(item.captured_ns))
            else:
                yield item

    def close(self) -> None:
        self._source.close()
        if isinstance(self._pose_at, Closeable):
            self._pose_at.close()


def parse_pose(uri: str) -> Autopilot:
    """Parse `mavlink:CONNECTION?baud=57600&system=1&component=1&key_file=FILE` without opening the connection.

    Raises:
        UsageError: another scheme, an invalid connection, an option that is unknown or out of range, or a key that cannot be read.
    """
    scheme, _, rest = uri.partition(":")
    connection, _, query = rest.partition("?")
    if scheme != "mavlink" or not CONNECTION.match(connection):
        raise UsageError(
            f"no pose '{uri}'; expected mavlink:CONNECTION, such as mavlink:udpin:0.0.0.0:14550 or mavlink:/dev/ttyTHS1"
        )
    numbers: dict[str, int] = {}
    key_file = ""
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name == "key_file":
            read_signing_key(text)
            key_file = text
            continue
        low, high = LIMITS.get(name, (0, 0))
        if name not in LIMITS:
            raise UsageError(f"{uri}: no option '{name}'; available: {', '.join(LIMITS)}, key_file")
        if not (text.isascii() and text.isdigit() and len(text) < 10 and low <= int(text) <= high):
            raise UsageError(f"{uri}: {name}={text[:40]}: expected a whole number from {low} to {high}")
        numbers[name] = int(text)
    return Autopilot(connection, **numbers, key_file=key_file)


def check_pose(uri: str) -> None:
    """Read a pose's URI, and look for its library without importing it.

    Raises:
        UsageError: as `parse_pose`.
        MissingExtra: pymavlink is not installed.
    """
    parse_pose(uri)
    PYMAVLINK.require()


def open_pose(uri: str, patient: bool = False, report: Callable[[str, str], None] | None = None) -> PoseAt:
    """Open a pose source, such as `mavlink:udpin:0.0.0.0:14550` or `mavlink:/dev/ttyTHS1?baud=921600`.

    Args:
        patient: wait for a missing link.
        report: called with `pose_ignored` for senders other than the autopilot.

    Raises:
        UsageError: as `parse_pose`.
        MissingExtra: pymavlink is not installed.
        SourceRefused: the link cannot be opened and `patient` is False.
    """
    autopilot = parse_pose(uri)
    from spatialnet_edge.sources.mavlink_pose import MavlinkPose

    return MavlinkPose(autopilot, patient, report)
