"""Reports when most frames of a source have no label: the scene or the camera is not what the model was trained for."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from spatialnet_edge.runtime.frame_stats import FrameStats

RAISED, CLEARED = 0.5, 0.25
"""Running share of frames without a label at which `drift` is reported, and at which it is over."""
LEAST_FRAMES = 60
"""Fewer frames than this say nothing about a share."""


@final
class DriftMonitor:
    """Reports `drift` once when the share reaches `RAISED`, and `drift_ended` when it falls to `CLEARED`."""

    def __init__(self, name: str, stats: FrameStats, report: Callable[[str, str], None]) -> None:
        self._name = name
        self._stats = stats
        self._report = report
        self._drifted = False

    def watch(self) -> None:
        """Called in every round of the pipeline's loop."""
        share = self._stats.unlabelled_share
        if not self._drifted and share >= RAISED and self._stats.emitted >= LEAST_FRAMES:
            self._drifted = True
            reasons = self._stats.unlabelled
            self._report(
                "drift",
                f"{self._name}: {share:.0%} of the frames have no label, mostly {max(reasons, key=lambda each: reasons[each])}",
            )
        elif self._drifted and share <= CLEARED:
            self._drifted = False
            self._report("drift_ended", f"{self._name}: {share:.0%} of the frames have no label")
