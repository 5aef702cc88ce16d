"""`spatialnet-edge run BUNDLE SOURCE`: classify every frame; a live table while it runs, a summary at the end."""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Annotated

import numpy as np
import typer
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from spatialnet_edge.api import default_policy, engine_threads, load
from spatialnet_edge.bundle.trust import open_trust
from spatialnet_edge.core.errors import RunError, SpatialNetError
from spatialnet_edge.core.results import Classification, FrameResult
from spatialnet_edge.runtime.frame_stats import FrameStats
from spatialnet_edge.sinks.queued import QueuedSink
from spatialnet_edge.sinks.registry import SINKS, Sink, names_of, open_sink
from spatialnet_edge.sources.pose import PosedSource, open_pose
from spatialnet_edge.sources.registry import DEVICES, Source, open_source, parse_uri
from spatialnet_edge.sources.supervised import Report, SupervisedSource, Timeouts

REFRESH_HZ = 8
KEPT = 20_000
"""The summary's percentiles are over the last so many frames: a run may last for months."""


def run(
    bundle: Annotated[str, typer.Argument(help="A .snb file, a bundle directory, or builtin:student.")],
    source: Annotated[str, typer.Argument(help="clip.mp4, photo.jpg, folder/, 0, rtsp://…, gst:…, synthetic:…")],
    json: Annotated[str, typer.Option(help="Write one JSON object a frame to this file, anew; - for standard output.")] = "",
    video: Annotated[Path | None, typer.Option(help="Write the frames with the answers drawn on them (.mp4), anew.")] = None,
    sink: Annotated[list[str] | None, typer.Option(help="Further sinks, NAME:WHERE; they add to what is there.")] = None,
    policy: Annotated[
        str, typer.Option(help="every, latest or queue:N; by default every for recordings, latest for live sources.")
    ] = "",
    smooth: Annotated[float, typer.Option(min=0, help="Half-life of the temporal smoothing in seconds; 0 for none.")] = 0.0,
    backend: Annotated[str, typer.Option(help="Use this backend alone.")] = "",
    workers: Annotated[int, typer.Option(min=0, help="Frames in the engine at once; 0 for one a core.")] = 0,
    limit: Annotated[int, typer.Option(min=0, help="Stop after this many frames; 0 for all.")] = 0,
    deadline_ms: Annotated[float, typer.Option(min=0, help="From capture to result; 0 for none.")] = 0.0,
    drop_late: Annotated[
        bool, typer.Option("--drop-late", help="Skip frames past the deadline; else they are marked.")
    ] = False,
    pose: Annotated[str, typer.Option(help="Where positions come from: mavlink:CONNECTION.")] = "",
    allow_unsigned: Annotated[bool, typer.Option("--allow-unsigned", help="An absent or unknown signature will do.")] = False,
    no_fallback: Annotated[
        bool, typer.Option("--no-fallback", help="Refuse when the preferred engine cannot run here.")
    ] = False,
) -> None:
    """Classify every frame of a source.

    With --json - standard output holds the JSON objects and nothing else; all else goes to standard error.
    """
    console = Console(stderr=json == "-")
    opened_source = open_supervised(source, pose, console)
    with ExitStack() as cleanup:
        cleanup.callback(opened_source.close)
        chosen = policy or default_policy(opened_source)
        trust = open_trust(allow_unsigned=True) if allow_unsigned else None
        threads = engine_threads(chosen)
        model = cleanup.enter_context(load(bundle, backend, threads, trust=trust, fallback=not no_fallback))
        pipeline = model.pipeline(chosen, smooth, workers, deadline_ms / 1e3 if deadline_ms else float("inf"), drop_late)
        for reason in model.opened.rejected:
            console.print(f"passed over {reason}", style="yellow", highlight=False)
        record = model.opened.record
        console.print(
            f"[bold]{model.bundle.spec.name}[/] {record.precision} on {record.backend}; golden test passed "
            f"(difference {model.golden.difference:.4f}, allowed {model.golden.tolerance:.3f})",
            highlight=False,
        )
        sinks = open_sinks(opened_source, json, video, sink or [], console)
        stop_on_terminate()
        view = LiveView(opened_source, console, pipeline.ledger)
        failure: SpatialNetError | None = None
        stopped = False
        try:
            with view:
                for result in pipeline.stream(opened_source):
                    for each in sinks:
                        each.write(result)
                    view.show(result)
                    if limit and pipeline.ledger.emitted >= limit:
                        break
        except SpatialNetError as error:
            failure = error
        except KeyboardInterrupt:
            stopped = True
            console.print("stopped; results up to here are kept", style="yellow")
        for each in sinks:
            try:
                each.close()
            except SpatialNetError as error:
                failure = failure or error
        console.print(summary(pipeline.ledger, view, {each.name: each.figures() for each in sinks}))
        if failure is None and not stopped:
            failure = nothing_answered(source, pipeline.ledger)
        if failure is not None:
            raise failure


def nothing_answered(source: str, ledger: FrameStats) -> RunError | None:
    """A run to the end without a single answer is a failure, whatever became of the frames."""
    if ledger.emitted or not ledger.captured:
        return None
    why = "; ".join(f"{count} {reason}" + detail_of(ledger, reason) for reason, count in ledger.skipped.items())
    return RunError(f"{source}: none of its {ledger.captured} frames was answered: {why}")


def detail_of(ledger: FrameStats, reason: str) -> str:
    """What was the matter with the last frame that was skipped for a reason, where that is known."""
    return f", the last: {ledger.details[reason]}" if reason in ledger.details else ""


def open_supervised(uri: str, pose: str, console: Console) -> Source:
    """What a URI names; a device in a process of its own, so that it may hang, crash or go away and come back."""

    if parse_uri(uri).kind in DEVICES:
        source: Source = SupervisedSource(uri, Timeouts(give_up="unopened"), print_event(console))
    else:
        source = open_source(uri)
    return PosedSource(source, open_pose(pose)) if pose else source


def print_event(console: Console) -> Report:
    """Prints what cameras and sinks report."""
    return lambda kind, detail: console.print(f"{kind}: {detail}", style="yellow", highlight=False)


def open_sinks(source: Source, json: str, video: Path | None, others: list[str], console: Console) -> list[QueuedSink]:
    """Every sink behind its own queue; a recording waits for a slow sink, a live source does not."""
    opened: dict[str, Sink] = {}
    if json:
        opened["--json"] = SINKS["jsonl"].load()(json, overwrite=True)
    if video is not None:
        opened["--video"] = SINKS["video"].load()(str(video), source.fps, overwrite=True)
    opened |= {name: open_sink(uri) for name, uri in zip(names_of(others), others, strict=True)}
    return [QueuedSink(each, wait=not source.live, report=print_event(console), name=name) for name, each in opened.items()]


def stop_on_terminate() -> None:
    """SIGTERM ends the run as Ctrl-C does: drain, close, summary."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


class LiveView:
    """A progress bar and the current answers on a terminal; a line now and then elsewhere."""

    def __init__(self, source: Source, console: Console, ledger: FrameStats) -> None:
        self.ages: deque[float] = deque(maxlen=KEPT)
        self.engine: deque[float] = deque(maxlen=KEPT)
        self.started = time.monotonic()
        self._ledger = ledger
        self._console = console
        self._next = 0.0
        self._last: FrameResult | None = None
        self._progress = Progress(
            TextColumn("{task.fields[rate]:>6.1f} frames/s"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        )
        self._task = self._progress.add_task("", total=source.length, rate=0.0)
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
        """Results a second so far."""
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
            first = next(iter(result.predictions.items()))
            self._console.print(f"frame {result.seq}: {first[0]} {first[1]} ({self.rate:.0f} frames/s)", highlight=False)

    def _draw(self, result: FrameResult) -> None:
        self._progress.update(self._task, completed=self._ledger.captured, rate=self.rate)
        self._live.update(Group(answers(result), self._progress))


def answers(result: FrameResult) -> Table:
    """The answers for one frame."""
    table = Table(title=f"frame {result.seq}   age {result.age_ms:.0f} ms   {result.reason or ''}", min_width=72)
    table.add_column("head")
    table.add_column("answer", min_width=32)
    table.add_column("confidence")
    for name, answer in result.predictions.items():
        if result.reason is not None:
            table.add_row(name, f"[dim]{result.reason}[/]", "")
        elif isinstance(answer, Classification):
            length = round(answer.confidence * 16)
            table.add_row(name, answer.label or "[dim]unsure[/]", f"{'█' * length:<16} {answer.confidence:4.0%}")
        else:
            table.add_row(name, str(answer), "")
    return table


def summary(ledger: FrameStats, view: LiveView, sinks: Mapping[str, Mapping[str, int]]) -> Table:
    """What happened to every frame, and how long it took.

    Args:
        sinks: of each, results that did not arrive, by reason.
    """
    seconds = time.monotonic() - view.started
    table = Table(title="summary", show_header=False)
    table.add_column(justify="right", style="dim")
    table.add_column()
    table.add_row("frames captured", str(ledger.captured))
    table.add_row("emitted", str(ledger.emitted))
    for reason, count in ledger.skipped.items():
        table.add_row(f"skipped: {reason}", f"{count}{detail_of(ledger, reason)}")
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
