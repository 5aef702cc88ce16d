"""The options of `run`, one frozen dataclass for each panel of its help."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from spatialnet_edge.bundle.trust import Trust, open_trust
from spatialnet_edge.cli.json_file import json_option
from spatialnet_edge.cli.option_values import names
from spatialnet_edge.core.deep_still import parse_range
from spatialnet_edge.core.output_paths import to_be_written
from spatialnet_edge.core.spec import ModelSpec
from spatialnet_edge.runtime.options import StreamOptions
from spatialnet_edge.runtime.selection import heads_to_show
from spatialnet_edge.sinks.registry import SINKS, Sink, names_of

RANGE_HELP = "For images of more than 8 bits: values of black and white, such as 0,4095. Default: the model's."


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where the results go."""

    json: Annotated[Path | None, json_option("one JSON object per frame")] = None
    video: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write an .mp4 with the predictions drawn on the frames.", callback=to_be_written),
    ] = None
    sink: Annotated[
        list[str] | None, typer.Option(metavar="NAME:WHERE", help="One more sink; an existing file is appended to.")
    ] = None
    keep_unknown: Annotated[
        int,
        typer.Option(min=0, metavar="N", help="Keep the N frames that the model knows least, as JPEG; 0: none."),
    ] = 0
    keep_folder: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder of --keep-unknown.")] = Path("unknown-frames")

    def sinks(self, fps: float | None) -> dict[str, str | Sink]:
        """The sinks by name. Sinks that overwrite a file are opened here; all others are given as URIs."""
        named: dict[str, str | Sink] = {}
        if self.json is not None:
            named["--json"] = SINKS["jsonl"].load()(str(self.json), overwrite=True)
        if self.video is not None:
            named["--video"] = SINKS["video"].load()(str(self.video), fps, overwrite=True)
        kept = [f"unknown:{self.keep_folder}?keep={self.keep_unknown}"] if self.keep_unknown else []
        others = [*(self.sink or []), *kept]
        return named | dict(zip(names_of(others), others, strict=True))


@dataclass(frozen=True, slots=True)
class Selection:
    """Which results are shown and written."""

    heads: Annotated[
        str,
        typer.Option(metavar="NAMES", help="Heads, separated by commas, or all. Default: all but those for evaluation."),
    ] = ""
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="HEAD=LABEL", help="Only frames with this prediction, such as objects=buildings."),
    ] = None
    top: Annotated[int, typer.Option(min=0, metavar="N", help="Number of most likely labels per head on the terminal.")] = 0
    limit: Annotated[int, typer.Option(min=0, metavar="N", help="Stop after this many frames; 0: all.")] = 0

    def shown(self, spec: ModelSpec) -> tuple[str, ...]:
        """The heads to show; empty for every head of the model."""
        return heads_to_show(spec, names(self.heads))


@dataclass(frozen=True, slots=True)
class Timing:
    """Frames that arrive while the engine is busy, and late ones."""

    policy: Annotated[
        str, typer.Option(help="every, latest or queue:N. Default: every for recordings, latest for live sources.")
    ] = ""
    deadline_ms: Annotated[
        float, typer.Option(min=0, metavar="MS", help="Milliseconds from capture to result; 0: no deadline.")
    ] = 0.0
    drop_late: Annotated[
        bool, typer.Option("--drop-late", help="Skip late frames; by default they are classified and marked as late.")
    ] = False
    smooth: Annotated[float, typer.Option(min=0, metavar="SECONDS", help="Half-life of the temporal smoothing; 0: none.")] = (
        0.0
    )
    workers: Annotated[int, typer.Option(min=0, metavar="N", help="Frames in the engine at once; 0: one per core.")] = 0


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """How the source is read."""

    wait: Annotated[
        bool | None,
        typer.Option("--wait/--no-wait", help="Wait for an absent source or broker. Default: only for live sources."),
    ] = None
    value_range: Annotated[str, typer.Option("--range", metavar="LOW,HIGH", help=RANGE_HELP)] = ""
    credentials: Annotated[
        str,
        typer.Option(metavar="FILE", help="netrc file with passwords of network cameras; else $SPATIALNET_CREDENTIALS."),
    ] = ""
    pose: Annotated[str, typer.Option(help="Source of positions: mavlink:CONNECTION.")] = ""


@dataclass(frozen=True, slots=True)
class Tiling:
    """Large frames, cut into tiles at the scale that the model was taught."""

    gsd: Annotated[float | None, typer.Option(metavar="METRES", help="Metres on the ground per pixel of the frame.")] = None
    fov: Annotated[
        float | None,
        typer.Option(metavar="DEGREES", help="Horizontal field of view; with the height of --pose it replaces --gsd."),
    ] = None
    ground: Annotated[float, typer.Option(metavar="METRES", help="With --fov: height of the ground above the sea.")] = 0.0


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Which bundles and engines are accepted."""

    backend: Annotated[str, typer.Option(help="Use only this backend.")] = ""
    no_fallback: Annotated[bool, typer.Option("--no-fallback", help="Fail if the preferred engine cannot run here.")] = False
    trust: Annotated[Path | None, typer.Option(metavar="FOLDER", help="The trust store: a folder of public keys.")] = None
    allow_unsigned: Annotated[bool, typer.Option("--allow-unsigned", help="Accept an absent or unknown signature.")] = False

    def trusted(self) -> Trust | None:
        """The trusted keys; None: the trust store of this computer, if there is one."""
        if self.trust is None and not self.allow_unsigned:
            return None
        return open_trust(self.trust, self.allow_unsigned)


def stream_options(selection: Selection, timing: Timing, source: SourceOptions, tiling: Tiling) -> StreamOptions:
    """The options of the stream.

    Raises:
        UsageError: an invalid value.
    """
    return StreamOptions(
        policy=timing.policy or None,
        smoothing_s=timing.smooth,
        workers=timing.workers or None,
        deadline_s=timing.deadline_ms / 1e3 if timing.deadline_ms else None,
        drop_late=timing.drop_late,
        wait=source.wait,
        only=tuple(selection.only or ()),
        value_range=parse_range(source.value_range, "--range") if source.value_range else None,
        gsd=tiling.gsd,
        fov_deg=tiling.fov,
        ground_m=tiling.ground,
        credentials=source.credentials,
    )
