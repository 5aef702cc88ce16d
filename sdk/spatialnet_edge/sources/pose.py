"""Where the camera was when a frame was taken: from a callback, from an autopilot, or from the image file itself (EXIF)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol, final, runtime_checkable
from urllib.parse import parse_qsl

from spatialnet_edge.core.errors import UsageError
from spatialnet_edge.core.frames import Frame, Pose, Skipped
from spatialnet_edge.sources.registry import Source

PoseAt = Callable[[int], Pose | None]
"""The pose at a moment of the monotonic clock, in nanoseconds; None when it is not known."""


@runtime_checkable
class Closeable(Protocol):
    """A `PoseAt` that holds a connection. `close` is called together with the source's."""

    def close(self) -> None: ...


CONNECTION = re.compile(r"^(?:(?:udp|udpin|udpout|udpbcast|tcp|tcpin):[^:/]+:[0-9]{1,5}|/.+)$")
"""As pymavlink has it: a link over a network, or the path of a serial line."""
LIMITS = {"baud": (1200, 12_500_000), "system": (1, 255), "component": (1, 255)}


@dataclass(frozen=True, slots=True)
class Autopilot:
    """Who is believed about the position.

    Attributes:
        connection: as pymavlink has it: `udpin:0.0.0.0:14550`, `/dev/ttyTHS1`, `tcp:host:port`.
        baud: of a serial line.
        system, component: of the autopilot (MAVLink's MAV_COMP_ID_AUTOPILOT1 is 1). Messages from others are ignored.
    """

    connection: str
    baud: int = 57600
    system: int = 1
    component: int = 1


@final
class PosedSource:
    """Wraps a source: every frame without a pose gets the one of its moment."""

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
    """Read `mavlink:CONNECTION?baud=57600&system=1&component=1`, and open nothing.

    Raises:
        UsageError: another scheme, no such connection, or an option that is unknown or out of range.
    """
    scheme, _, rest = uri.partition(":")
    connection, _, query = rest.partition("?")
    if scheme != "mavlink" or not CONNECTION.match(connection):
        raise UsageError(
            f"no pose '{uri}'; expected mavlink:CONNECTION, such as mavlink:udpin:0.0.0.0:14550 or mavlink:/dev/ttyTHS1"
        )
    numbers: dict[str, int] = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        low, high = LIMITS.get(name, (0, 0))
        if name not in LIMITS:
            raise UsageError(f"{uri}: no option '{name}'; there are {', '.join(LIMITS)}")
        if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
            raise UsageError(f"{uri}: {name}={text}: expected a whole number from {low} to {high}")
        numbers[name] = int(text)
    return Autopilot(connection, **numbers)


def open_pose(uri: str, patient: bool = False, report: Callable[[str, str], None] | None = None) -> PoseAt:
    """Open what `parse_pose` reads, such as `mavlink:udpin:0.0.0.0:14550` or `mavlink:/dev/ttyTHS1?baud=921600`.

    Args:
        patient: wait for a link that is not there yet.
        report: told `pose_ignored` of senders that are not the autopilot.

    Raises:
        UsageError: as `parse_pose`.
        MissingExtra: pymavlink is not installed.
        SourceRefused: the link cannot be opened, and we are not patient.
    """
    autopilot = parse_pose(uri)
    from spatialnet_edge.sources.mavlink_pose import MavlinkPose

    return MavlinkPose(autopilot, patient, report)
