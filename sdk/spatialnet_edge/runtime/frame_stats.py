"""The conservation ledger: every captured frame was emitted, was skipped for a stated reason, or is still on its way."""

from __future__ import annotations

from collections import Counter
from threading import Lock
from typing import Any

DRIFT_FRAMES = 300
"""A running share is a mean over about so many frames."""


class FrameStats:
    """Counts frames; safe to use from several threads.

    `captured == emitted + sum(skipped.values()) + in_flight` at all times, and `in_flight` is 0 at the end of a run.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._captured = 0
        self._emitted = 0
        self._skipped: Counter[str] = Counter()
        self._details: dict[str, str] = {}
        self._missed = 0
        self._unlabelled: Counter[str] = Counter()
        self._unlabelled_share = 0.0

    def capture(self) -> None:
        with self._lock:
            self._captured += 1

    def emit(self, reason: str | None = None) -> None:
        """Count an emitted frame.

        Args:
            reason: why it has no label (`FrameResult.reason`); None when it has one.
        """
        with self._lock:
            self._emitted += 1
            if reason is not None:
                self._unlabelled[reason] += 1
            weight = 1 / min(self._emitted, DRIFT_FRAMES)
            self._unlabelled_share += weight * ((reason is not None) - self._unlabelled_share)

    def skip(self, reason: str, detail: str = "") -> None:
        with self._lock:
            self._skipped[reason] += 1
            if detail:
                self._details[reason] = detail

    def miss(self, frames: int) -> None:
        """Frames that the source's own numbering says there were and that never arrived; they do not count as captured."""
        with self._lock:
            self._missed += frames

    @property
    def missed(self) -> int:
        return self._missed

    @property
    def captured(self) -> int:
        return self._captured

    @property
    def emitted(self) -> int:
        return self._emitted

    @property
    def unlabelled(self) -> dict[str, int]:
        """Emitted frames without a label: reason to count, in order of reason."""
        with self._lock:
            return dict(sorted(self._unlabelled.items()))

    @property
    def unlabelled_share(self) -> float:
        """Running share of frames without a label, 0 to 1, over about the last `DRIFT_FRAMES`.

        It rises when the scene or the camera drifts away from what the model was taught.
        """
        return self._unlabelled_share

    @property
    def skipped(self) -> dict[str, int]:
        """Reason to count, in order of reason."""
        with self._lock:
            return dict(sorted(self._skipped.items()))

    @property
    def details(self) -> dict[str, str]:
        """What was the matter with the last frame of a reason, such as which file is damaged and how; for reasons that say."""
        with self._lock:
            return dict(self._details)

    @property
    def in_flight(self) -> int:
        with self._lock:
            return self._captured - self._emitted - self._skipped.total()

    def to_dict(self) -> dict[str, Any]:
        counts = {"captured": self.captured, "emitted": self.emitted, "skipped": self.skipped}
        counts |= {"in_flight": self.in_flight, "missed": self.missed}
        return counts | {"unlabelled": self.unlabelled, "unlabelled_share": round(self.unlabelled_share, 4)}

    def __str__(self) -> str:
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.skipped.items()) or "0"
        return f"captured {self.captured} = emitted {self.emitted} + skipped {reasons}"
