"""The commands `build` and `evaluate`."""

from __future__ import annotations

import json as jsonlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import numpy as np
import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table

from spatialnet_edge.bundle.reader import Bundle
from spatialnet_edge.cli.inspect import candidates
from spatialnet_edge.cli.printer import printer
from spatialnet_edge.core.deep_still import parse_range
from spatialnet_edge.core.errors import UsageError
from spatialnet_edge.core.output_paths import to_be_written
from spatialnet_optimize.api import Evaluation, open_model
from spatialnet_optimize.api import evaluate as run_evaluation
from spatialnet_optimize.build.build import Job
from spatialnet_optimize.build.build import build as run_build
from spatialnet_optimize.build.build_cache import remembered
from spatialnet_optimize.cli import build_options as options
from spatialnet_optimize.compilers.plan_builder import RTX, TENSORRT, PlanOptions, trtexec
from spatialnet_optimize.compilers.plan_builder import Progress as BuilderProgress
from spatialnet_optimize.evaluation.candidate_evaluation import Step
from spatialnet_optimize.evaluation.metrics import Score, figures
from spatialnet_optimize.evaluation.robustness import CONFIDENT, JPEG_QUALITY, Robustness
from spatialnet_optimize.quantization.scheme import QatRequest
from spatialnet_optimize.targets.catalogue import HERE, find_target
from spatialnet_training.data.corruptions import SEVERITIES
from spatialnet_training.networks.checkpoint_paths import is_checkpoint

BUILD_STEPS = {"here": 8, "cpu": 8}
DEVICE_STEPS = 10


def build(
    model: options.Model,
    target: options.TargetName = HERE,
    output: options.Output = Path("model.snb"),
    labelled: options.Labelled = None,
    budget: options.Budget = 0.5,
    heads: options.Heads = "",
    calibration: options.CalibrationFolder = None,
    precision: options.Precision = "",
    dla: options.Dla = False,
    batches: options.Batches = "1",
    optimization_level: options.OptimizationLevel = None,
    workspace_mb: options.WorkspaceMb = None,
    version_compatible: options.VersionCompatible = False,
    strip_weights: options.StripWeights = False,
    targets_file: options.TargetsFile = None,
    search: options.Search = False,
    qat: options.Qat = 0,
    no_cache: options.NoCache = False,
    report: options.Report = None,
) -> None:
    """Build the fastest bundle that passes the gates, and report the reason for the choice."""
    started = time.monotonic()
    find_target(target, targets_file, precision, dla)  # before anything is read or exported
    images = tuple(labelled or ())
    plan = PlanOptions(
        batches_of(batches), optimization_level, workspace_mb, version_compatible, strip_weights, dla_core=0 if dla else None
    )
    job = Job(
        model=open_model(model, output, images),
        target=target,
        output=output,
        labelled=images,
        budget=budget,
        heads=names_of(heads),
        calibration=calibration,
        precision=precision,
        plan=plan,
        targets=targets_file,
        search=search,
        qat=qat_request(model, qat),
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


def names_of(text: str) -> tuple[str, ...]:
    """The names in a comma-separated list."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def qat_request(model: str, epochs: int) -> QatRequest | None:
    """The request for quantisation-aware training; None for 0 epochs.

    Raises:
        UsageError: the model is a bundle, whose weights cannot be trained.
    """
    if not epochs:
        return None
    if not is_checkpoint(Path(model)):
        raise UsageError(f"--qat: {model} is no checkpoint; give the folder of a training run")
    return QatRequest(Path(model), epochs)


def batches_of(text: str) -> tuple[int, ...]:
    """Parse `1,2,4,8` as distinct numbers.

    Raises:
        UsageError: not whole numbers from 1 on.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise UsageError(f"--batches {text}: give whole numbers from 1 on, such as 1,2,4,8")
    return tuple(sorted({int(part) for part in parts}))


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


def evaluate(
    bundle: Annotated[str, typer.Argument(help="A .snb file, a bundle directory, or builtin:spatialnet-s.")],
    data: Annotated[Path, typer.Argument(help="Labelled images: a folder or zip with <class>/<image>, or a CSV.")],
    head: Annotated[str, typer.Option(help="Evaluate only this head. Default: every head with matching labels.")] = "",
    split: Annotated[
        str, typer.Option(help="Use only this split, such as val, which training on these images does not use.")
    ] = "",
    json: Annotated[
        Path | None, typer.Option(help="Write all metrics and the confusion matrix to this file.", callback=to_be_written)
    ] = None,
    backend: Annotated[str, typer.Option(help="Use only this backend.")] = "",
    corrupted: Annotated[
        int, typer.Option(min=0, help="Number of images for the evaluation with 8 corruptions at 3 severities; 0: none.")
    ] = 60,
    value_range: Annotated[
        str,
        typer.Option(
            "--range",
            help="For images of more than 8 bits: values of black and white, such as 0,4095; by default the model's.",
        ),
    ] = "",
) -> None:
    """Measure accuracy, calibration and robustness on labelled images, and confidence on pictures without land."""
    console = printer(stderr=True)
    columns = (TextColumn("decode"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=None)
        found = run_evaluation(
            bundle,
            data,
            head=head,
            split=split,
            backend=backend,
            corrupted=corrupted,
            value_range=parse_range(value_range, "--range") if value_range else None,
            progress=lambda done, images: progress.update(bar, completed=done, total=images),
        )
    if found.contains_training:
        console.print("these include training images; give --split val to use others", style="yellow")
    engine = found.engine
    printer().print(score_table(found.scores, f"{found.bundle.spec.name} ({engine.precision} on {engine.backend}), {data}"))
    print_doubts(found)
    for path in found.broken:
        console.print(f"skipped {path}: not an image", style="yellow")
    if json is not None:
        record = {
            "bundle": found.bundle.sha256,
            "engine": engine.path,
            "data": str(data),
            "split": split,
            "broken": list(found.broken),
            "heads": [figures(each) for each in found.scores],
            "withheld": round(found.withheld, 5),
            "robustness": [robustness_figures(each) for each in found.robustness],
            "not_land": None if found.not_land is None else asdict(found.not_land),
        }
        json.write_text(jsonlib.dumps(record, indent=1) + "\n", encoding="utf-8")


def robustness_figures(each: Robustness) -> dict[str, Any]:
    return asdict(each) | {"accuracy": {f"{name} {severity}": value for (name, severity), value in each.accuracy.items()}}


def print_doubts(found: Evaluation) -> None:
    """Print the share without a label, the accuracy on corrupted images, and the result on pictures without land."""
    console = printer()
    console.print(f"no label: {found.withheld:.1%} of these images")
    if found.robustness:
        console.print(robustness_table(found.robustness))
    if found.not_land is not None:
        console.print(
            f"pictures without land: {found.not_land.withheld:.1%} of {found.not_land.images} generated ones get no label, "
            f"{found.not_land.confident:.1%} one with a confidence of {CONFIDENT} or more"
        )


def folded_table(headers: Sequence[str], title: str) -> Table:
    """A table with folded instead of truncated cells on a narrow terminal."""
    return Table(*(Column(header, overflow="fold") for header in headers), title=title)


def robustness_table(found: Sequence[Robustness]) -> Table:
    """Accuracy of each head under corruption: the mean over the corruptions at each severity."""
    headers = (
        "head", "images", "clean", f"JPEG {JPEG_QUALITY}", *(f"severity {each}" for each in SEVERITIES),
        "ECE", f"right of labels ≥ {CONFIDENT} at severity {', '.join(map(str, SEVERITIES))}", "no label",
    )  # fmt: skip
    table = folded_table(headers, "accuracy on corrupted images")
    for each in found:
        shown = [each.clean, each.jpeg_75, *(each.mean(severity) for severity in SEVERITIES)]
        cells = [f"{value:.1%}" for value in shown]
        table.add_row(
            each.head, str(each.images), *cells, f"{each.calibration_error:.3f}",
            ", ".join("—" if value is None else f"{value:.1%}" for value in each.labelled_right.values()),
            f"{each.withheld:.1%}",
        )  # fmt: skip
    return table


def score_table(scores: Sequence[Score], title: str) -> Table:
    headers = ("head", "images", "accuracy", "macro F1", "mAP", "ECE", "MAE", "AURC")
    table = folded_table(headers, title)
    wanted = ("expected_calibration_error", "mean_absolute_error", "area_under_risk_coverage")
    for each in scores:
        m = each.metrics
        shown = [m.get(name, np.nan) for name in ("accuracy", "macro_f1", "mean_average_precision")]
        cells = ["—" if np.isnan(value) else f"{value:.2%}" for value in shown]
        errors = [f"{m[key]:.3f}" if key in m else "—" for key in wanted]
        table.add_row(each.head, str(each.images), *cells, *errors)
    return table
