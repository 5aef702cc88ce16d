"""The command of this room: `bench`."""

from __future__ import annotations

import json as jsonlib
import platform
import shlex
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from spatialnet_benchmarks.stages import Measurement, measure
from spatialnet_edge import __version__
from spatialnet_edge.api import Model, cores, load


def bench(
    bundle: Annotated[str, typer.Argument(help="A .snb file, a bundle directory, or builtin:student.")] = "builtin:student",
    source: Annotated[str, typer.Argument(help="What to stream; a recording gives the same work each time.")] = (
        "synthetic:frames=300&size=1280x720"
    ),
    rounds: Annotated[int, typer.Option(min=1, help="Passes over the source; the median pass is reported.")] = 5,
    kept: Annotated[int, typer.Option(min=10, help="Frames held in memory for the stages after decoding.")] = 100,
    backend: Annotated[str, typer.Option(help="Use this backend alone.")] = "",
    json: Annotated[Path | None, typer.Option(help="Write everything to this file.")] = None,
) -> None:
    """Measure what each stage costs, what the machine could do at best, and how much of that the pipeline reaches."""
    with load(bundle, backend, threads=1) as model:
        passes = [
            measure(model, source, kept) for _ in track(range(rounds), "measure", console=Console(stderr=True), transient=True)
        ]
        middle = sorted(passes, key=lambda each: each.pipeline_efficiency)[len(passes) // 2]
        record = describe(model, source, middle, passes)
    show(record)
    if json is not None:
        json.write_text(jsonlib.dumps(record, indent=1) + "\n", encoding="utf-8")


def describe(model: Model, source: str, middle: Measurement, passes: list[Measurement]) -> dict[str, Any]:
    """Everything needed to judge the figures and to repeat them."""
    efficiencies = [each.pipeline_efficiency for each in passes]
    p50, p99 = np.percentile(middle.ages, (50, 99))
    return {
        "command": shlex.join(["spatialnet-edge", *sys.argv[1:]]),
        "machine": f"{platform.system()} {platform.machine()}, {cores()} cores",
        "versions": {
            "spatialnet-edge": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("onnxruntime", "opencv-python-headless", "numpy")},
        },
        "bundle": model.bundle.sha256,
        "engine": model.opened.record.path,
        "source": source,
        "frames": len(middle.ages),
        "rounds": len(passes),
        "clock": "perf_counter for wall time, process_time for core time",
        "stages": {name: stage.percentiles() for name, stage in middle.stages.items()},
        "age_at_emit": {"p50_ms": round(float(p50), 3), "p99_ms": round(float(p99), 3)},
        "frames_per_second": round(middle.frames_per_second, 2),
        "work_bound_frames_per_second": round(middle.work_bound, 2),
        "pipeline_efficiency": round(middle.pipeline_efficiency, 4),
        "pipeline_efficiency_range": [round(min(efficiencies), 4), round(max(efficiencies), 4)],
    }


def show(record: dict[str, Any]) -> None:
    console = Console()
    table = Table("stage alone", "p50 ms", "p90 ms", "p99 ms", "max ms", "core ms a frame", title=record["machine"])
    for name, figures in record["stages"].items():
        table.add_row(name, *(f"{figures[key]:.3f}" for key in ("p50_ms", "p90_ms", "p99_ms", "max_ms", "core_ms")))
    console.print(table)
    low, high = record["pipeline_efficiency_range"]
    console.print(
        f"end to end {record['frames_per_second']:.1f} frames/s; work bound "
        f"{record['work_bound_frames_per_second']:.1f}; pipeline efficiency {record['pipeline_efficiency']:.2f} "
        f"({low:.2f} to {high:.2f} over {record['rounds']} rounds)",
        highlight=False,
    )
