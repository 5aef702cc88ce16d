"""Where the camera was when a frame was taken: from a callback, from an autopilot, or from the image file itself (EXIF)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import final

from spatialnet_edge.errors import UsageError
from spatialnet_edge.frames import Frame, Pose, Skipped
from spatialnet_edge.sources import Source

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


def open_pose(uri: str) -> PoseAt:
    """Open `mavlink:CONNECTION`, such as `mavlink:udpin:0.0.0.0:14550`.

    Raises:
        UsageError: another scheme.
        MissingExtra: pymavlink is not installed.
    """
    scheme, _, rest = uri.partition(":")
    if scheme != "mavlink" or not rest:
        raise UsageError(f"no pose '{uri}'; expected mavlink:CONNECTION, such as mavlink:udpin:0.0.0.0:14550")
    from spatialnet_edge.sources.mavlink_pose import MavlinkPose

    return MavlinkPose(rest)
