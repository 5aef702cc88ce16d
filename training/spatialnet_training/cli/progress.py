"""Output during training: a progress bar and a line of metrics per epoch, and a table at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from spatialnet_training.loop.best_epoch import LINEAR_HEAD
from spatialnet_training.loop.experiment_trackers import Tracker
from spatialnet_training.loop.selection import Selection
from spatialnet_training.loop.verdict import HeadVerdict, Verdict
from spatialnet_training.loop.watcher import Watcher

WEAK = 0.9
"""Classes with an accuracy below this are listed."""


class ConsoleWatcher(Watcher):
    """Prints the progress to a console.

    Args:
        epochs: of the complete run, at most.
        trackers: further receivers of the metrics of each epoch.
    """

    def __init__(self, console: Console, epochs: int, trackers: Sequence[Tracker] = ()) -> None:
        self.trackers = trackers
        self.console = console
        self.epochs = epochs
        self.durations: list[float] = []
        self.begun = time.monotonic()

    @contextmanager
    def steps(self, epoch: int, count: int) -> Iterator[Callable[[], None]]:
        self.begun = time.monotonic()
        columns = (
            TextColumn("{task.description}"),
            MofNCompleteColumn(),
            BarColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            bar = progress.add_task(f"epoch {epoch + 1} of {self.epochs}", total=count)
            yield lambda: progress.advance(bar)

    def epoch(self, figures: dict[str, float]) -> None:
        for tracker in self.trackers:
            tracker.epoch(figures)
        number = int(figures["epoch"])
        kinds = {"held out": listed(figures, "holdout/"), "val": listed(figures, "val/")}
        reached = [f"{name}: {text}" for name, text in kinds.items() if text]
        if "holdout_loss" in figures:
            reached.append(f"held-out loss {figures['holdout_loss']:.3f}")
        if number == LINEAR_HEAD:
            line = f"linear head on frozen features, {figures['seconds']:.0f} s"
        else:
            self.durations.append(time.monotonic() - self.begun)
            left = (self.epochs - number) * sum(self.durations) / len(self.durations)
            line = (
                f"epoch {number} of {self.epochs}  {figures['images_per_second']:.0f} images/s  loss {figures['loss']:.3f}  "
                f"{duration(left)} left at most"
            )
        self.console.print("  ".join([line, *reached]), highlight=False, soft_wrap=True)

    def note(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)

    def finished(self, selection: Selection | None, verdict: Verdict) -> None:
        if selection is not None:
            self.console.print(selection_table(selection))
            self.console.print(f"reason: {selection.reason}", highlight=False, soft_wrap=True)
        for each in verdict.heads:
            for line in in_words(each, verdict.judged_by):
                self.console.print(line, highlight=False, soft_wrap=True)
        if verdict.suspects:
            first = verdict.suspects[0]
            self.console.print(
                f"{len(verdict.suspects)} training images may be mislabelled, such as {first.name}: label "
                f"{first.truth}, prediction {first.answer} ({first.probability:.0%}); card.html shows them",
                style="yellow",
                highlight=False,
                soft_wrap=True,
            )


def listed(figures: dict[str, float], kind: str) -> str:
    return "  ".join(f"{key.removeprefix(kind)} {value:.1%}" for key, value in figures.items() if key.startswith(kind))


def selection_table(selection: Selection) -> Table:
    names = list(selection.options[0].figures) if selection.options else []
    table = Table("weights", "held-out loss", *names)
    for option in selection.options:
        mark = " ←" if option.chosen else ""
        table.add_row(f"{option.name}{mark}", f"{option.loss:.3f}", *(f"{option.figures[name]:.1%}" for name in names))
    return table


def in_words(verdict: HeadVerdict, judged_by: str) -> list[str]:
    """Accuracy, weakest classes and confused pairs of one head, one line each."""
    lines = [f"{verdict.head.name}: {verdict.accuracy:.1%} of {verdict.images} {judged_by} images"]
    weak = sorted((accuracy, label, count) for label, (count, accuracy) in verdict.per_class.items() if accuracy < WEAK)
    if weak:
        lines.append("  weakest: " + ", ".join(f"{label} {accuracy:.0%} of {count}" for accuracy, label, count in weak[:5]))
    if verdict.pairs:
        pairs = (f"{pair.truth} as {pair.answer} {pair.count} of {pair.of}" for pair in verdict.pairs)
        lines.append("  most confused: " + ", ".join(pairs))
    return lines


def duration(seconds: float) -> str:
    """Format a duration in seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
