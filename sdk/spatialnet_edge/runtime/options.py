"""How the frames of one source are processed: the one set of options of `Model.stream`, `run` and `serve`."""

from __future__ import annotations

from dataclasses import dataclass

from spatialnet_edge.core.errors import UsageError
from spatialnet_edge.core.frame_queue import parse_policy


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """Options of one stream. `None` leaves a choice to the kind of source.

    Attributes:
        policy: `every` waits and loses no frame, `latest` keeps the newest frame alone, `queue:N` keeps the newest N. None:
            `latest` for live sources, `every` for the rest.
        smoothing_s: half-life of the temporal smoothing in seconds; 0 for none.
        workers: frames in the engine at once. None: one a core, or one alone under `latest`.
        deadline_s: seconds from capture to the complete result; later results are marked `late`. None: no deadline.
        drop_late: skip late frames, counted as `late`, instead of marking them.
        wait: wait for a source or a sink that is absent at the start, and open it again whenever it is lost. None: for live
            sources alone.
        silence_s: a live source that gives no frame for so many seconds is taken to hang, and is opened again.
        own_process: read the source in a process of its own, which is killed when it hangs. None: for cameras, network streams
            and GStreamer pipelines.
        show: heads that results keep, in this order; empty for all.
        only: `HEAD=LABEL`, such as `objects=buildings`: results without this answer are skipped, counted as `not_selected`.

    Raises:
        UsageError: an impossible value.
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

    def __post_init__(self) -> None:
        if self.policy is not None:
            parse_policy(self.policy)
        positive = {"workers": self.workers, "deadline_s": self.deadline_s, "silence_s": self.silence_s}
        for name, value in positive.items():
            if value is not None and not value > 0:
                raise UsageError(f"{name} is {value}; expected more than 0, or None")
        if not self.smoothing_s >= 0:
            raise UsageError(f"smoothing_s is {self.smoothing_s}; expected seconds, or 0 for none")
