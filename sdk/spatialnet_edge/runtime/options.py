"""The stream options of `Model.stream`, `run` and `serve`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from spatialnet_edge.core.errors import UsageError
from spatialnet_edge.core.frame_queue import parse_policy


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """Options of one stream. `None` means a default that depends on the source.

    Attributes:
        policy: `every` waits and drops no frame, `latest` keeps only the newest frame, `queue:N` keeps the newest N. None:
            `latest` for live sources, `every` for others.
        smoothing_s: half-life of the temporal smoothing in seconds; 0: no smoothing.
        workers: frames in the engine at once. None: one per core, or one under `latest`.
        deadline_s: seconds from capture to the complete result; later results are marked `late`. None: no deadline.
        drop_late: skip late frames, counted as `late`, instead of marking them.
        wait: wait for a source or sink that is absent at the start, and reopen it whenever it is lost. None: only for live
            sources.
        silence_s: a live source without a frame for this many seconds counts as hung and is reopened.
        own_process: read the source in a separate process, which is killed when it hangs. None: for cameras, network streams
            and GStreamer pipelines.
        value_range: the pixel values of black and white in still images of more than 8 bits, such as (0, 4095). None: the
            range that the model was trained with, if any.
        show: heads to keep in the results, in this order; empty: all.
        only: `HEAD=LABEL`, such as `objects=buildings`: results without this prediction are skipped as `not_selected`.
        gsd: ground sampling distance of the frames, metres per pixel at full size. Large frames are then cut into tiles at the
            scale that the model was taught. None: from `fov_deg` and each frame's pose, or the whole frame where that is unknown.
        fov_deg: horizontal field of view, in degrees, of a camera that looks straight down.
        ground_m: height of the ground, in metres on the scale of the pose's altitude (above the sea).
        credentials: a netrc file with users and passwords of network cameras; empty: the file that `SPATIALNET_CREDENTIALS` names,
            if any.

    Raises:
        UsageError: an invalid value.
    """

    policy: str | None = None
    smoothing_s: float = 0.0
    workers: int | None = None
    deadline_s: float | None = None
    drop_late: bool = False
    wait: bool | None = None
    silence_s: float = 1.5
    own_process: bool | None = None
    show: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    value_range: tuple[float, float] | None = None
    gsd: float | None = None
    fov_deg: float | None = None
    ground_m: float = 0.0
    credentials: str = ""

    def __post_init__(self) -> None:
        if self.policy is not None:
            parse_policy(self.policy)
        positive = {"workers": self.workers, "deadline_s": self.deadline_s, "silence_s": self.silence_s, "gsd": self.gsd}
        for name, value in positive.items():
            if value is not None and not value > 0:
                raise UsageError(f"{name} is {value}; expected more than 0, or None")
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            raise UsageError(f"value_range is {self.value_range}; the first number must be less than the second")
        if not self.smoothing_s >= 0:
            raise UsageError(f"smoothing_s is {self.smoothing_s}; expected seconds, or 0 for no smoothing")
        if self.fov_deg is not None and not 0 < self.fov_deg < 180:
            raise UsageError(f"fov_deg is {self.fov_deg}; expected degrees, more than 0 and less than 180")
        if not math.isfinite(self.ground_m) or (self.gsd is not None and not math.isfinite(self.gsd)):
            raise UsageError("gsd and ground_m must be finite numbers of metres")
