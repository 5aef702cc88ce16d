"""Frame statistics: every captured frame was emitted, was skipped for a reason, or is in flight."""

from __future__ import annotations

from collections import Counter
from threading import Lock
from typing import Any

FIRST_DETAILS = 20
"""So many details of each reason are kept, beside the last one."""
DRIFT_FRAMES = 300
"""Window of the running share, in frames."""


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
        self._first_details: dict[str, list[str]] = {}
        self._missed = 0
        self._unlabelled: Counter[str] = Counter()
        self._unlabelled_share = 0.0

    def capture(self) -> None:
        with self._lock:
            self._captured += 1

    def emit(self, reason: str | None = None) -> None:
        """Count an emitted frame.

        Args:
            reason: why it has no label (`FrameResult.reason`); None if it has one.
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
                first = self._first_details.setdefault(reason, [])
                if len(first) < FIRST_DETAILS and detail not in first:
                    first.append(detail)

    def miss(self, frames: int) -> None:
        """Count gaps in the source's frame numbers; missed frames do not count as captured."""
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

        It increases when the scenes or the camera differ more from the training images.
        """
        return self._unlabelled_share

    @property
    def skipped(self) -> dict[str, int]:
        """Reason to count, in order of reason."""
        with self._lock:
            return dict(sorted(self._skipped.items()))

    @property
    def details(self) -> dict[str, str]:
        """Reason to the detail of the last frame skipped for it, such as the damaged file; for reasons with details."""
        with self._lock:
            return dict(self._details)

    def first_details(self, reason: str) -> tuple[str, ...]:
        """Up to `FIRST_DETAILS` details of the frames that were skipped for a reason, such as each damaged file and what is wrong
        with it; in the order in which they came, each once."""
        with self._lock:
            return tuple(self._first_details.get(reason, ()))

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
