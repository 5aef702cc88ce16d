"""Where the camera was when a frame was taken: from a callback, from an autopilot, or from the image file itself (EXIF)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import final

from spatialnet_edge.core.errors import UsageError
from spatialnet_edge.core.frames import Frame, Pose, Skipped
from spatialnet_edge.sources.registry import Source

PoseAt = Callable[[int], Pose | None]
"""The pose at a moment of the monotonic clock, in nanoseconds; None when it is not known."""


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
        close = getattr(self._pose_at, "close", None)
        if close is not None:
            close()


def open_pose(uri: str, patient: bool = False) -> PoseAt:
    """Open `mavlink:CONNECTION`, such as `mavlink:udpin:0.0.0.0:14550` or `mavlink:/dev/ttyTHS1?baud=921600`.

    Args:
        patient: wait for a link that is not there yet.

    Raises:
        UsageError: another scheme, or a baud rate that is none.
        MissingExtra: pymavlink is not installed.
        SourceRefused: the link cannot be opened, and we are not patient.
    """
    scheme, _, rest = uri.partition(":")
    connection, asked, baud = rest.partition("?baud=")
    if scheme != "mavlink" or not connection:
        raise UsageError(f"no pose '{uri}'; expected mavlink:CONNECTION, such as mavlink:udpin:0.0.0.0:14550")
    if asked and not (baud.isascii() and baud.isdigit()):
        raise UsageError(f"{uri}: '{baud}' is no baud rate; expected for instance mavlink:/dev/ttyTHS1?baud=921600")
    from spatialnet_edge.sources.mavlink_pose import DEFAULT_BAUD, MavlinkPose

    return MavlinkPose(connection, int(baud) if asked else DEFAULT_BAUD, patient)
