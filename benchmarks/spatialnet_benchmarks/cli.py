"""The command `bench`."""

from __future__ import annotations

import shlex
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.progress import track
from rich.table import Table

from spatialnet_benchmarks.energy import energy_a_frame, gpu_memory_mb, in_words
from spatialnet_benchmarks.environment import environment, state
from spatialnet_benchmarks.latency import WARM_UP, batches, cold_starts, engine_alone, paced, summary
from spatialnet_benchmarks.stages import Measurement, measure, read
from spatialnet_benchmarks.streams import no_decoding, streams
from spatialnet_edge.api import Model, load
from spatialnet_edge.cli.json_file import console_beside, json_option, write_json
from spatialnet_edge.cli.option_groups import grouped
from spatialnet_edge.cli.printer import Printer, printer
from spatialnet_edge.core.errors import MissingExtra, UsageError
from spatialnet_edge.core.output_paths import to_be_written
from spatialnet_edge.sources.registry import open_source

BATCHES = (1, 2, 4, 8)
STREAMS = (1, 2, 4)
KEPT_SAMPLES = 5000
NOT_MEASURABLE = "not measurable on this computer"
LOAD = 0.7
"""Share of its capacity at which a stream is measured unless a rate is given."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured."""

    rounds: Annotated[int, typer.Option(min=1, metavar="N", help="Passes over the source; the median pass is reported.")] = 5
    kept: Annotated[int, typer.Option(min=10, metavar="N", help="Frames held in memory for the stages after decoding.")] = 100
    runs: Annotated[int, typer.Option(min=20, metavar="N", help="Number of inferences of the engine alone.")] = 500
    rate: Annotated[
        float, typer.Option(min=0, metavar="HZ", help="Frames per second of the paced stream; 0: 70 % of capacity.")
    ] = 0.0
    seconds: Annotated[
        float,
        typer.Option(min=1, metavar="SECONDS", help="Duration of the paced stream; throttling shows after minutes."),
    ] = 10.0


@grouped(effort="How much is measured")
def bench(
    effort: Effort,
    bundle: Annotated[
        str, typer.Argument(help="A .snb file, a bundle directory, or builtin:spatialnet-s.")
    ] = "builtin:spatialnet-s",
    source: Annotated[
        str,
        typer.Argument(
            help="Source to stream, such as a recording. Default: generated 720p frames with all the model's bands."
        ),
    ] = "",
    backend: Annotated[str, typer.Option(help="Use only this backend.")] = "",
    json: Annotated[Path | None, json_option("all results, for --compare,")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with plots to this file.", callback=to_be_written)] = None,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(help="Compare two results of --json instead of measuring: A B.")
    ] = None,
) -> None:
    """Measure each stage, the work bound of this computer, and the pipeline's efficiency."""
    if compare is not None:
        show_comparison(*compare)
        return
    if html is not None and html.suffix != ".html":
        raise UsageError(f"--html {html}: name a file that ends in .html")
    if source:
        require_end(source)
    with load(bundle, backend, threads=1) as model:
        source = source or f"synthetic:frames=300&size=1280x720&bands={model.bundle.spec.input.channels}"
        record = take(model, bundle, source, effort, backend)
    show(record, console_beside(json))
    write_json(json, record)
    if html is not None:
        write_html(record, html)


def require_end(source: str) -> None:
    """Refuse a camera or a network stream, because every stage is measured on the same frames.

    Raises:
        UsageError: the source is live.
    """
    with closing(open_source(source)) as opened:
        if opened.live and opened.length is None:
            raise UsageError(f"{source}: a live source has no end; record some seconds of it and measure on the recording")


def take(model: Model, bundle: str, source: str, effort: Effort, backend: str) -> dict[str, Any]:
    """Run all measurements, with the environment needed to interpret and repeat them."""
    start = state()
    passes = [
        measure(model, source, effort.kept)
        for _ in track(range(effort.rounds), "measure", console=printer(stderr=True), transient=True)
    ]
    energy = energy_a_frame(lambda: whole_pass(model, source))
    middle = sorted(passes, key=lambda each: each.pipeline_efficiency)[len(passes) // 2]
    golden, _ = model.bundle.golden()
    engine = model.opened.engine
    alone = engine_alone(engine, golden, 1, effort.runs)
    rate = effort.rate or LOAD * min(middle.frames_per_second, 1e3 / float(np.median(alone)))
    stream = paced(model, rate, effort.seconds)
    cold_start, memory_mb = cold_starts(bundle, backend, min(effort.rounds, 5))
    return {
        "command": shlex.join(["spatialnet-edge", *sys.argv[1:]]),
        "environment": environment(),
        "state": {"start": start, "end": state()},
        "model": model.bundle.spec.name,
        "bundle": model.bundle.sha256,
        "engine": f"{model.opened.record.path} ({model.opened.record.precision} on {model.opened.record.backend})",
        "input": list(model.bundle.spec.input.shape),
        "source": source,
        "frames": len(middle.ages),
        "rounds": len(passes),
        "runs": effort.runs,
        "warm_up": WARM_UP,
        "clock": "perf_counter for wall time, process_time for core time, CLOCK_MONOTONIC for frames",
        "stages": {name: stage.percentiles() for name, stage in middle.stages.items()},
        "engine_alone": summary(alone),
        "streams": streams(model, STREAMS),
        "no_decoding": no_decoding(model, (frame.pixels for frame in read(source, effort.kept)), effort.rounds),
        "batches": batches(engine, golden, BATCHES, max(20, effort.runs // 5)),
        "paced": {"rate": round(rate, 2), "seconds": effort.seconds, "latency": summary(stream)},
        "cold_start": cold_start,
        "memory_mb": round(memory_mb, 1),
        "gpu_memory_mb": gpu_memory_mb() or NOT_MEASURABLE,
        "energy_joules": {of: round(joules, 5) for of, joules in energy.items()} or NOT_MEASURABLE,
        **throughput(middle, passes),
        "samples": {
            "engine": thinned(alone),
            "paced": thinned(stream),
            "end_to_end": thinned(np.concatenate([each.end_to_end for each in passes])),
        },
    }


def whole_pass(model: Model, source: str) -> int:
    """Run the source once through the complete pipeline; returns the number of frames."""
    with closing(open_source(source)) as opened:
        return sum(1 for _ in model.stream(opened, policy="every"))


def throughput(middle: Measurement, passes: list[Measurement]) -> dict[str, Any]:
    efficiencies = [each.pipeline_efficiency for each in passes]
    p50, p99 = np.percentile(middle.ages, (50, 99))
    return {
        "age_at_emit": {"p50_ms": round(float(p50), 3), "p99_ms": round(float(p99), 3)},
        "frames_per_second": round(middle.frames_per_second, 2),
        "work_bound_frames_per_second": round(middle.work_bound, 2),
        "pipeline_efficiency": round(middle.pipeline_efficiency, 4),
        "pipeline_efficiency_range": [round(min(efficiencies), 4), round(max(efficiencies), 4)],
    }


def thinned(milliseconds: np.ndarray) -> list[float]:
    """At most `most` values, evenly spaced, in order."""
    step = -(-len(milliseconds) // KEPT_SAMPLES)
    return [round(float(value), 4) for value in milliseconds[:: max(1, step)]]


def write_html(record: dict[str, Any], path: Path) -> None:
    try:
        from spatialnet_benchmarks.html_report import write_page
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "optimize") from error
    write_page(record, path)


def show_comparison(a: Path, b: Path) -> None:
    try:
        from spatialnet_benchmarks.compare import compare, read_result
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "optimize") from error
    console = printer()
    comparisons, differing = compare(read_result(a), read_result(b))
    table = Table("", "a", "b", "b ÷ a", "95 % interval", "verdict", title=f"a: {a}   b: {b}")
    for each in comparisons:
        interval = f"{each.low:.3f} to {each.high:.3f}"
        table.add_row(each.what, f"{each.a_ms:.3f}", f"{each.b_ms:.3f}", f"{each.ratio:.3f}", interval, each.verdict)
    console.print(table)
    for line in differing:
        console.print(f"warning: {line}", style="yellow")


def show(record: dict[str, Any], console: Printer) -> None:
    where = record["environment"]
    title = f"{where['device']}, {where['machine']}"
    table = Table("stage alone", "p50 ms", "p90 ms", "p99 ms", "max ms", "core ms per frame", title=title)
    for name, figures in record["stages"].items():
        table.add_row(name, *(f"{figures[key]:.3f}" for key in ("p50_ms", "p90_ms", "p99_ms", "max_ms", "core_ms")))
    console.print(table)
    table = Table("latency", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms", "jitter ms")
    rows = {
        "engine alone": record["engine_alone"],
        f"due to result at {record['paced']['rate']:g} Hz": record["paced"]["latency"],
    }
    for name, figures in rows.items():
        table.add_row(name, *(f"{figures[key]:.3f}" for key in ("p50", "p90", "p99", "p99.9", "max", "jitter")))
    console.print(table)
    low, high = record["pipeline_efficiency_range"]
    console.print(
        f"end to end {record['frames_per_second']:.1f} frames/s; work bound "
        f"{record['work_bound_frames_per_second']:.1f}; pipeline efficiency {record['pipeline_efficiency']:.2f} "
        f"({low:.2f} to {high:.2f} over {record['rounds']} rounds)",
    )
    several = ", ".join(f"{count}: {figures['frames_per_second']:.1f}" for count, figures in record["streams"].items())
    console.print(f"frames/s of several streams on one engine, in total: {several}")
    undecoded = record["no_decoding"]
    low, high = undecoded["range"]
    console.print(
        f"frames that need no decoding {undecoded['frames_per_second']:.1f} frames/s, {undecoded['of_engine_only']:.2f} "
        f"of the engine-only rate ({low:.2f} to {high:.2f})",
    )
    parts = ", ".join(f"{name} {value:.2f}" for name, value in record["cold_start"].items() if name != "whole")
    console.print(f"new process to first result {record['cold_start']['whole']:.2f} s ({parts})")
    energy = in_words(record["energy_joules"])
    console.print(f"memory at its first result {record['memory_mb']:.0f} MB; energy per frame: {energy}")
