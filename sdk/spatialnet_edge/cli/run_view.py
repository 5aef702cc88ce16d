"""The output of `run`: a live table on a terminal, otherwise a line from time to time, and a summary at the end."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from spatialnet_edge.core.predictions import Classification, Prediction
from spatialnet_edge.core.results import FrameResult
from spatialnet_edge.runtime.frame_stats import FrameStats

REFRESH_HZ = 8
HEADS_ON_A_LINE = 3
KEPT = 20_000
"""Number of last frames for the percentiles of the summary. It is limited because a run may last for months."""


def detail_of(ledger: FrameStats, reason: str) -> str:
    """Detail of the last frame skipped for a reason; empty if unknown."""
    return f", the last: {ledger.details[reason]}" if reason in ledger.details else ""


def details_of(ledger: FrameStats, reason: str, count: int) -> list[str]:
    """One line for each frame skipped for a reason, at most `FIRST_DETAILS` lines and one about the rest."""
    first = list(ledger.first_details(reason))
    if not first or count <= len(first):
        return first
    return [*first, f"and {count - len(first)} more, the last: {ledger.details[reason]}"]


class LiveView:
    """Live view: a progress bar and the current predictions on a terminal, otherwise a line from time to time."""

    def __init__(self, console: Console, ledger: FrameStats, length: int | None, top: int = 0) -> None:
        self.ages: deque[float] = deque(maxlen=KEPT)
        self.engine: deque[float] = deque(maxlen=KEPT)
        self.started = time.monotonic()
        self._ledger = ledger
        self._top = top
        self._console = console
        self._next = 0.0
        self._last: FrameResult | None = None
        self._progress = Progress(
            TextColumn("{task.fields[rate]:>6.1f} frames/s"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._progress.add_task("", total=length, rate=0.0)
        self._live = Live(console=console, refresh_per_second=REFRESH_HZ)

    def __enter__(self) -> LiveView:
        if self._console.is_terminal:
            self._live.start()
        self.started = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            if self._last is not None:
                self._draw(self._last)
            self._live.stop()

    @property
    def rate(self) -> float:
        """Results per second so far."""
        return self._ledger.emitted / max(1e-9, time.monotonic() - self.started)

    def show(self, result: FrameResult) -> None:
        self.ages.append(result.age_ms)
        self.engine.append(result.engine_ms)
        self._last = result
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + (1 / REFRESH_HZ if self._console.is_terminal else 2.0)
        if self._console.is_terminal:
            self._draw(result)
        else:
            self._console.print(f"frame {result.seq}: {line(result, self._top)} ({self.rate:.0f} frames/s)")

    def _draw(self, result: FrameResult) -> None:
        self._progress.update(self._task, completed=self._ledger.captured, rate=self.rate)
        self._live.update(Group(answers(result, self._top), self._progress))


def answers(result: FrameResult, top: int = 0) -> Table:
    """The predictions of one frame as a table.

    Args:
        top: number of likely labels per multiclass head; 0: only the predicted one.
    """
    table = Table(title=f"frame {result.seq}   age {result.age_ms:.0f} ms   {result.reason or ''}", min_width=72)
    table.add_column("head")
    table.add_column("answer", min_width=32)
    table.add_column("confidence")
    for name, answer in result.predictions.items():
        if result.reason is not None:
            table.add_row(name, Text(str(result.reason), style="dim"), "")
        elif isinstance(answer, Classification):
            table.add_row(name, answer.label or Text("unsure", style="dim"), bar(answer.confidence))
            for label, confidence in answer.top(top):
                table.add_row("", Text(label, style="dim"), bar(confidence))
        else:
            table.add_row(name, str(answer), "")
    return table


def line(result: FrameResult, top: int = 0) -> str:
    """The predictions of up to `HEADS_ON_A_LINE` heads on one line; if there are more heads, only the first."""
    if result.reason is not None:
        return f"no label ({result.reason})"
    answers = list(result.predictions.items())
    shown = answers if len(answers) <= HEADS_ON_A_LINE else answers[:1]
    return "; ".join(f"{name} {in_words(answer, top)}" for name, answer in shown)


def in_words(answer: Prediction, top: int) -> str:
    """A prediction as text, or the most likely labels of a multiclass head with their confidences."""
    if top and isinstance(answer, Classification):
        return ", ".join(f"{label} {share:.0%}" for label, share in answer.top(top))
    return str(answer)


def bar(share: float) -> str:
    """Format a share of 0 to 1 as a bar of 16 characters and a percentage."""
    return f"{'█' * round(share * 16):<16} {share:4.0%}"


def summary(ledger: FrameStats, view: LiveView, sinks: Mapping[str, Mapping[str, int]]) -> Table:
    """The summary table: what happened to every frame, and how long it took.

    Args:
        sinks: per sink, the number of undelivered results by reason.
    """
    seconds = time.monotonic() - view.started
    table = Table(title="summary", show_header=False)
    table.add_column(justify="right", style="dim")
    table.add_column()
    table.add_row("frames captured", str(ledger.captured))
    table.add_row("emitted", str(ledger.emitted))
    for reason, count in ledger.skipped.items():
        table.add_row(f"skipped: {reason}", str(count))
        for detail in details_of(ledger, reason, count):
            table.add_row("", detail)
    if not ledger.skipped:
        table.add_row("skipped", "0")
    if ledger.in_flight:
        table.add_row("in flight", str(ledger.in_flight))
    for name, losses in sinks.items():
        for reason, count in losses.items():
            if count:
                table.add_row(f"{name}: {reason.replace('_', ' ')}", str(count))
    table.add_row("time", f"{seconds:.1f} s, {ledger.emitted / max(seconds, 1e-9):.1f} frames/s")
    for name, values in (("age at emit", view.ages), ("engine", view.engine)):
        if values:
            p50, p99 = np.percentile(values, (50, 99))
            table.add_row(name, f"p50 {p50:.1f} ms   p99 {p99:.1f} ms")
    return table
