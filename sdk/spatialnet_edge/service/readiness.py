"""Readiness: every camera has a recent result, and the sinks accept it."""

from __future__ import annotations

from collections.abc import Sequence

from spatialnet_edge.service.camera_worker import CameraWorker


def missing(cameras: Sequence[CameraWorker], limit_s: float) -> tuple[str, ...]:
    """The cameras and sinks that do not work, with the reasons, one line each.

    Args:
        limit_s: allowed seconds without a result, or without a sink that accepts one.
    """
    running = [camera for camera in cameras if camera.running]
    silent = [f"no frames from {camera.name}" for camera in running if not camera.delivering]
    idle = [
        f"no result from {camera.name} for {camera.result_age_s:.0f} s{camera.why_no_result}"
        for camera in running
        if camera.delivering and camera.result_age_s > limit_s
    ]
    stuck = [
        f"the sink {name} of {camera.name} has accepted nothing for {seconds:.0f} s"
        for camera in running
        for name, seconds in camera.refusals_s.items()
        if seconds > limit_s
    ]
    return (*silent, *idle, *stuck)


def works(camera: CameraWorker, limit_s: float) -> bool:
    """Whether a camera has a recent result that at least one of its sinks accepted. Without sinks, a recent result suffices."""
    refusals = camera.refusals_s.values()
    return bool(camera.emitted) and camera.result_age_s <= limit_s and (not refusals or min(refusals) <= limit_s)
