"""The observer of a training run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from spatialnet_training.loop.selection import Selection
from spatialnet_training.loop.verdict import Verdict


class Watcher:
    """Receives the progress of a run. This one ignores it; a subclass shows it."""

    def steps(self, epoch: int, count: int) -> AbstractContextManager[Callable[[], None]]:
        """Context for an epoch; the returned function is called after each of `count` steps."""
        return nullcontext(lambda: None)

    def epoch(self, figures: dict[str, float]) -> None:
        """Receive the metrics of an epoch; epoch 0 is the linear head."""

    def note(self, text: str) -> None:
        """Receive a remark for the user."""

    def finished(self, selection: Selection | None, verdict: Verdict) -> None:
        """Receive the selection, if there was one, and the final evaluation."""
