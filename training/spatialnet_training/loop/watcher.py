"""Who is told how a training run goes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from spatialnet_training.loop.selection import Selection
from spatialnet_training.loop.verdict import Verdict


class Watcher:
    """Receives the progress of a run. This one ignores it; a subclass shows it."""

    def steps(self, epoch: int, count: int) -> AbstractContextManager[Callable[[], None]]:
        """Entered for every epoch. It gives a function that is called after each of `count` steps."""
        return nullcontext(lambda: None)

    def epoch(self, figures: dict[str, float]) -> None:
        """The figures of an epoch; epoch 0 is the linear head's."""

    def note(self, text: str) -> None:
        """What a user should know while the run goes on."""

    def finished(self, selection: Selection | None, verdict: Verdict) -> None:
        """Which weights were compared, if any were, and what the network reaches."""
