"""What is said while a network trains: a progress bar for each epoch, and a line of figures after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from spatialnet_training.loop.training_run import Watcher


class ConsoleWatcher(Watcher):
    """A progress bar for each epoch, and a line of figures after it."""

    def __init__(self, console: Console, epochs: int) -> None:
        self.console = console
        self.epochs = epochs

    @contextmanager
    def steps(self, epoch: int, count: int) -> Iterator[Callable[[], None]]:
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
        held_out = "  ".join(f"{key[5:]} {value:.1%}" for key, value in figures.items() if key.startswith("holdout/"))
        self.console.print(
            f"epoch {figures['epoch']:.0f}  {figures['images_per_second']:.0f} images/s  loss {figures['loss']:.3f}  "
            f"held out: {held_out}",
            highlight=False,
        )
