"""The command `build`."""

from __future__ import annotations

import json as jsonlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from spatialnet_edge.bundle.reader import Bundle
from spatialnet_edge.cli.inspect import candidates
from spatialnet_edge.cli.option_groups import grouped
from spatialnet_edge.cli.option_values import names
from spatialnet_edge.cli.printer import printer
from spatialnet_edge.core.output_paths import bundle_to_be_written, to_be_written
from spatialnet_optimize.api import open_model
from spatialnet_optimize.build.build import Job
from spatialnet_optimize.build.build import build as run_build
from spatialnet_optimize.build.build_cache import remembered
from spatialnet_optimize.cli.build_options import Builder, Gates, Variants
from spatialnet_optimize.compilers.plan_builder import RTX, TENSORRT, PlanOptions, trtexec
from spatialnet_optimize.compilers.plan_builder import Progress as BuilderProgress
from spatialnet_optimize.evaluation.candidate_evaluation import Step
from spatialnet_optimize.targets.catalogue import HERE, find_target

BUILD_STEPS = {"here": 8, "cpu": 8}
DEVICE_STEPS = 10


@grouped(
    gates="What every variant must reach",
    variants="Which variants are made",
    builder="NVIDIA's builders",
)
def build(
    model: Annotated[str, typer.Argument(help="A bundle, the folder of a training run, or builtin:spatialnet-s.")],
    gates: Gates,
    variants: Variants,
    builder: Builder,
    target: Annotated[str, typer.Option(help="A device of 'spatialnet-edge targets'; 'here' is this computer.")] = HERE,
    targets_file: Annotated[Path | None, typer.Option(metavar="FILE", help="A TOML file with your own devices.")] = None,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="The bundle to write: a .snb file or a directory.", callback=bundle_to_be_written),
    ] = Path("model.snb"),
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the build report (.json or .html).", callback=to_be_written),
    ] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Build again even if the same build was done before.")] = False,
) -> None:
    """Build the fastest bundle that passes the gates, and report the reason for the choice."""
    started = time.monotonic()
    find_target(target, targets_file, variants.precision, builder.dla)  # before anything is read or exported
    plan, qat = builder.plan(), variants.qat_request(model)
    images = tuple(gates.labelled or ())
    job = Job(
        model=open_model(model, output, images),
        target=target,
        output=output,
        labelled=images,
        budget=gates.budget,
        heads=names(gates.heads),
        calibration=variants.calibration,
        precision=variants.precision,
        plan=plan,
        targets=targets_file,
        search=variants.search,
        qat=qat,
    )
    bundle = build_visibly(job, run_build_anew if no_cache else remembered)
    print_result(bundle, plan, time.monotonic() - started)
    if report is not None:
        write_report(bundle, report)


BuildFunction: TypeAlias = Callable[[Job, Step, BuilderProgress], Bundle]


def run_build_anew(job: Job, step: Step, progress: BuilderProgress) -> Bundle:
    """Like `remembered`, without the cache."""
    return run_build(job, step, progress)[0]


def build_visibly(job: Job, run: BuildFunction) -> Bundle:
    """Run a build; show its steps and the progress of NVIDIA's builder on standard error."""
    console = printer(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        head = progress.add_task("open the model", total=BUILD_STEPS.get(job.target, DEVICE_STEPS))
        builder = progress.add_task("", visible=False)

        def step(text: str) -> None:
            progress.update(head, description=text, advance=1)
            console.print(text, style="yellow" if text.startswith("warning") else "dim")

        def watch(phase: str, done: int, steps: int) -> None:
            progress.update(builder, description=f"  {phase}", completed=done, total=steps, visible=done < steps)

        return run(job, step, watch)


def print_result(bundle: Bundle, plan: PlanOptions, seconds: float) -> None:
    """Print every candidate, the reason for the choice, and the written files."""
    out = printer()
    out.print(candidates(bundle.manifest))
    if bundle.manifest.build is not None:
        out.print(f"why: {bundle.manifest.build.reason}")
    for library in (RTX, TENSORRT):
        if any(engine.backend == library.module for engine in bundle.manifest.engines):
            command = trtexec(library, bundle.spec.input.shape, plan)
            out.print(f"the same plan with NVIDIA's own program: {command}")
    size = sum(record.size for record in bundle.manifest.files)
    out.print(f"{bundle.path}: {size / 1e6:.1f} MB, identity {bundle.sha256[:16]}…, {seconds:.1f} s")


def write_report(bundle: Bundle, path: Path) -> None:
    """Write an HTML page if the name ends in .html, otherwise JSON."""
    if path.suffix == ".html":
        from spatialnet_optimize.report.html_report import write_page

        write_page(bundle, path)
    else:
        path.write_bytes(jsonlib.dumps(report_of(bundle), indent=1).encode() + b"\n")


def report_of(bundle: Bundle) -> dict[str, Any]:
    import msgspec

    return {"bundle": str(bundle.path), "identity": bundle.sha256, "build": msgspec.to_builtins(bundle.manifest.build)}
