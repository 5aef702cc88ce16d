"""`spatialnet-edge run BUNDLE SOURCE`: classify every frame. Shows a live table during the run and a summary at the end."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console

from spatialnet_edge.api import Model, load
from spatialnet_edge.bundle.trust import open_trust
from spatialnet_edge.cli.printer import printer
from spatialnet_edge.cli.run_view import LiveView, detail_of, summary
from spatialnet_edge.core.deep_still import parse_range
from spatialnet_edge.core.errors import ReaderGone, RunError, SpatialNetError
from spatialnet_edge.core.spec import ModelSpec
from spatialnet_edge.runtime.frame_stats import FrameStats
from spatialnet_edge.runtime.inputs import open_input
from spatialnet_edge.runtime.options import StreamOptions
from spatialnet_edge.runtime.session import default_policy, engine_threads
from spatialnet_edge.runtime.stream import Stream
from spatialnet_edge.sinks.registry import SINKS, Sink, names_of
from spatialnet_edge.sources.pose import open_pose
from spatialnet_edge.sources.supervised import Report


def run(
    bundle: Annotated[str, typer.Argument(help="A .snb file, a bundle directory, or builtin:spatialnet-s.")],
    source: Annotated[str, typer.Argument(help="clip.mp4, photo.jpg, folder/, 0, rtsp://…, gst:…, synthetic:…")],
    json: Annotated[
        str, typer.Option(help="Write one JSON object per frame; the file is overwritten; - for standard output.")
    ] = "",
    video: Annotated[
        Path | None, typer.Option(help="Write an .mp4 with the predictions drawn on the frames; the file is overwritten.")
    ] = None,
    sink: Annotated[list[str] | None, typer.Option(help="More sinks, NAME:WHERE; existing files are appended to.")] = None,
    policy: Annotated[
        str, typer.Option(help="every, latest or queue:N. Default: every for recordings, latest for live sources.")
    ] = "",
    smooth: Annotated[float, typer.Option(min=0, help="Half-life of the temporal smoothing in seconds; 0 for none.")] = 0.0,
    backend: Annotated[str, typer.Option(help="Use only this backend.")] = "",
    workers: Annotated[int, typer.Option(min=0, help="Frames in the engine at once; 0: one per core.")] = 0,
    limit: Annotated[int, typer.Option(min=0, help="Stop after this many frames; 0: all.")] = 0,
    deadline_ms: Annotated[float, typer.Option(min=0, help="Milliseconds from capture to result; 0: no deadline.")] = 0.0,
    drop_late: Annotated[
        bool, typer.Option("--drop-late", help="Skip late frames; by default they are classified and marked as late.")
    ] = False,
    wait: Annotated[
        bool | None,
        typer.Option("--wait/--no-wait", help="Wait for an absent source or broker. Default: only for live sources."),
    ] = None,
    heads: Annotated[
        str, typer.Option(help="Heads to show and write, separated by commas, or all. Default: all but those for evaluation.")
    ] = "",
    only: Annotated[
        list[str] | None, typer.Option(help="HEAD=LABEL, such as objects=buildings: only frames with this prediction.")
    ] = None,
    top: Annotated[int, typer.Option(min=0, help="Number of most likely labels per head on the terminal.")] = 0,
    value_range: Annotated[
        str,
        typer.Option(
            "--range", help="For images of more than 8 bits: values of black and white, such as 0,4095. Default: the model's."
        ),
    ] = "",
    keep_unknown: Annotated[
        int, typer.Option(min=0, help="Keep this many of the frames that the model knows least, as JPEG; 0: none.")
    ] = 0,
    keep_folder: Annotated[Path, typer.Option(help="Folder of --keep-unknown.")] = Path("unknown-frames"),
    gsd: Annotated[
        float | None,
        typer.Option(help="Metres on the ground per pixel of the frame; cuts large frames into tiles at the taught scale."),
    ] = None,
    fov: Annotated[
        float | None, typer.Option(help="Horizontal field of view in degrees; with the pose's height in the place of --gsd.")
    ] = None,
    ground: Annotated[float, typer.Option(help="With --fov: height of the ground above the sea in metres.")] = 0.0,
    credentials: Annotated[
        str, typer.Option(help="netrc file with users and passwords of network cameras; default: $SPATIALNET_CREDENTIALS.")
    ] = "",
    pose: Annotated[str, typer.Option(help="Source of positions: mavlink:CONNECTION.")] = "",
    allow_unsigned: Annotated[bool, typer.Option("--allow-unsigned", help="Accept an absent or unknown signature.")] = False,
    no_fallback: Annotated[bool, typer.Option("--no-fallback", help="Fail if the preferred engine cannot run here.")] = False,
) -> None:
    """Classify every frame of a source.

    With --json -, standard output has only the JSON objects; everything else goes to standard error.
    """
    console = printer(stderr=json == "-")
    options = StreamOptions(
        policy or None, smooth, workers or None, deadline_ms / 1e3 if deadline_ms else None, drop_late, wait,
        only=tuple(only or ()),
        gsd=gsd, fov_deg=fov, ground_m=ground,
        value_range=parse_range(value_range, "--range") if value_range else None,
        credentials=credentials,
    )  # fmt: skip
    report = print_event(console)
    opened = open_input(source, options, report)
    with ExitStack() as cleanup:
        cleanup.callback(opened.close)
        threads = engine_threads(options.policy or default_policy(opened.live))
        trust = open_trust(allow_unsigned=True) if allow_unsigned else None
        model = cleanup.enter_context(load(bundle, backend, threads, trust=trust, fallback=not no_fallback))
        introduce(model, console)
        results = cleanup.enter_context(
            model.stream(
                opened,
                replace(options, show=heads_shown(heads, model.bundle.spec)),
                sinks=outputs(json, video, [*(sink or []), *keeping(keep_unknown, keep_folder)], opened.fps),
                pose=open_pose(pose, patient=opened.live and wait is not False) if pose else None,
                report=report,
            )
        )
        stop_on_terminate()
        consume(results, console, limit, top)


def consume(results: Stream, console: Console, limit: int, top: int) -> None:
    """Consume the stream: show every result, then the summary.

    Raises:
        SpatialNetError: the source, the engine or a sink failed, or no frame was classified.
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


def print_event(console: Console) -> Report:
    """Print an event of a source or sink."""
    return lambda kind, detail: console.print(f"{kind}: {detail}", style="yellow")


def outputs(json: str, video: Path | None, others: list[str], fps: float | None) -> dict[str, str | Sink]:
    """The sinks by name. Sinks that overwrite a file are opened here; all others are given as URIs."""
    named: dict[str, str | Sink] = {}
    if json:
        named["--json"] = SINKS["jsonl"].load()(json, overwrite=True)
    if video is not None:
        named["--video"] = SINKS["video"].load()(str(video), fps, overwrite=True)
    return named | dict(zip(names_of(others), others, strict=True))


def heads_shown(text: str, spec: ModelSpec) -> tuple[str, ...]:
    """The heads of --heads; empty for every head of the model."""
    if text.strip() == "all":
        return ()
    return tuple(name.strip() for name in text.split(",") if name.strip()) or spec.main_heads


def keeping(count: int, folder: Path) -> list[str]:
    """The sink of --keep-unknown, as a URI; none for 0."""
    return [f"unknown:{folder}?keep={count}"] if count else []


def stop_on_terminate() -> None:
    """Handle SIGTERM like Ctrl-C: drain, close, print the summary."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
