"""`spatialnet-edge run BUNDLE SOURCE`: classify every frame. Shows a live table during the run and a summary at the end."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from dataclasses import replace
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console

from spatialnet_edge.api import Model, load
from spatialnet_edge.cli.json_file import console_beside
from spatialnet_edge.cli.option_groups import grouped
from spatialnet_edge.cli.run_options import (
    EngineOptions,
    Outputs,
    Selection,
    SourceOptions,
    Tiling,
    Timing,
    stream_options,
)
from spatialnet_edge.cli.run_view import LiveView, detail_of, summary
from spatialnet_edge.core.errors import ReaderGone, RunError, SpatialNetError
from spatialnet_edge.runtime.frame_stats import FrameStats
from spatialnet_edge.runtime.inputs import open_input
from spatialnet_edge.runtime.session import default_policy, engine_threads
from spatialnet_edge.runtime.stream import Stream
from spatialnet_edge.sources.pose import open_pose
from spatialnet_edge.sources.supervised import Report


@grouped(
    outputs="Where the results go",
    selection="What is shown and written",
    timing="Time",
    reading="The source",
    tiling="Large frames, cut into tiles at the taught scale",
    engine="The engine",
)
def run(
    bundle: Annotated[str, typer.Argument(help="A .snb file, a bundle directory, or builtin:spatialnet-s.")],
    source: Annotated[str, typer.Argument(help="clip.mp4, photo.jpg, folder/, 0, rtsp://…, gst:…, synthetic:…")],
    outputs: Outputs,
    selection: Selection,
    timing: Timing,
    reading: SourceOptions,
    tiling: Tiling,
    engine: EngineOptions,
) -> None:
    """Classify every frame of a source.

    With --json -, standard output has only the JSON objects; everything else goes to standard error.

    --json and --video overwrite their files.
    """
    console = console_beside(outputs.json)
    options = stream_options(selection, timing, reading, tiling)
    report = print_event(console)
    opened = open_input(source, options, report)
    with ExitStack() as cleanup:
        cleanup.callback(opened.close)
        threads = engine_threads(options.policy or default_policy(opened.live))
        fallback = not engine.no_fallback
        model = cleanup.enter_context(load(bundle, engine.backend, threads, trust=engine.trusted(), fallback=fallback))
        introduce(model, console)
        results = cleanup.enter_context(
            model.stream(
                opened,
                replace(options, show=selection.shown(model.bundle.spec)),
                sinks=outputs.sinks(opened.fps),
                pose=open_pose(reading.pose, patient=opened.live and reading.wait is not False) if reading.pose else None,
                report=report,
            )
        )
        stop_on_terminate()
        consume(results, console, selection.limit, selection.top, opened.live)


def consume(results: Stream, console: Console, limit: int, top: int, live: bool) -> None:
    """Consume the stream: show every result, then the summary.

    Raises:
        SpatialNetError: the source, the engine or a sink failed; no frame was classified; or files of a source that is not live
            could not be decoded.
    """
    view = LiveView(console, results.stats, results.length, top)
    failure: SpatialNetError | None = None
    stopped = False
    try:
        with view:
            for result in results:
                view.show(result)
                if limit and results.stats.emitted >= limit:
                    break
    except ReaderGone:  # `… | head`: the reader has closed the pipe
        stopped = True
    except SpatialNetError as error:
        failure = error
    except KeyboardInterrupt:
        stopped = True
        console.print("stopped; the results so far are kept", style="yellow")
    results.stop()
    try:
        results.close_sinks()
    except ReaderGone:
        stopped = True
    except SpatialNetError as error:
        failure = failure or error
    results.close()
    console.print(summary(results.stats, view, {each.name: each.figures() for each in results.sinks}))
    if failure is None and not stopped:
        failure = nothing_answered(results.name, results.stats)
        if failure is None and not live:
            failure = not_decoded(results.name, results.stats)
    if failure is not None:
        raise failure


def introduce(model: Model, console: Console) -> None:
    """Print the variant that runs and why others were rejected."""
    for reason in model.opened.rejected:
        console.print(f"rejected {reason}", style="yellow")
    record = model.opened.record
    console.print(
        f"{model.bundle.spec.name} {record.precision} on {record.backend}; golden test passed "
        f"(difference {model.golden.difference:.4f}, allowed {model.golden.tolerance:.3f})",
    )


def nothing_answered(source: str, ledger: FrameStats) -> RunError | None:
    """The error for a run without any result; None if there is a result."""
    if ledger.emitted or ledger.skipped.get("not_selected") or not ledger.captured:
        return None
    why = "; ".join(f"{count} {reason}" + detail_of(ledger, reason) for reason, count in ledger.skipped.items())
    return RunError(f"{source}: none of its {ledger.captured} frames was classified: {why}")


def not_decoded(source: str, ledger: FrameStats) -> RunError | None:
    """The error for a recording or folder with damaged parts; None if all of it was decoded."""
    count = ledger.skipped.get("decode_error", 0)
    if not count:
        return None
    return RunError(f"{source}: {count} of its {ledger.captured} frames could not be decoded; all others have results")


def print_event(console: Console) -> Report:
    """Print an event of a source or sink."""
    return lambda kind, detail: console.print(f"{kind}: {detail}", style="yellow")


def stop_on_terminate() -> None:
    """Handle SIGTERM like Ctrl-C: drain, close, print the summary."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
