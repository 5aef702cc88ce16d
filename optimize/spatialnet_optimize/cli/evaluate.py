"""The command `evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from spatialnet_edge.cli.json_file import console_beside, json_option, write_json
from spatialnet_edge.cli.option_values import names
from spatialnet_edge.cli.printer import Printer, printer
from spatialnet_edge.cli.run_options import RANGE_HELP
from spatialnet_edge.cli.tables import folded_table
from spatialnet_edge.core.deep_still import parse_range
from spatialnet_optimize.api import Evaluation
from spatialnet_optimize.api import evaluate as run_evaluation
from spatialnet_optimize.evaluation.metrics import Score, figures
from spatialnet_optimize.evaluation.robustness import CONFIDENT, JPEG_QUALITY, Robustness
from spatialnet_optimize.evaluation.tiled import FrameScore
from spatialnet_training.data.corruptions import SEVERITIES


def evaluate(
    bundle: Annotated[str, typer.Argument(help="A .snb file, a bundle directory, or builtin:spatialnet-s.")],
    data: Annotated[Path, typer.Argument(help="Labelled images: a folder or zip with <class>/<image>, or a CSV.")],
    heads: Annotated[
        str, typer.Option(metavar="NAMES", help="Heads, separated by commas. Default: every one with matching labels.")
    ] = "",
    split: Annotated[
        str, typer.Option(help="Use only this split, such as val, which training on these images does not use.")
    ] = "",
    json: Annotated[Path | None, json_option("all metrics and the confusion matrix")] = None,
    backend: Annotated[str, typer.Option(help="Use only this backend.")] = "",
    corrupted: Annotated[
        int,
        typer.Option(min=0, metavar="N", help="Evaluate N images with 8 corruptions at 3 severities; 0: none."),
    ] = 60,
    value_range: Annotated[str, typer.Option("--range", metavar="LOW,HIGH", help=RANGE_HELP)] = "",
    gsd: Annotated[
        float | None,
        typer.Option(metavar="METRES", help="Metres on the ground per pixel; also judges the images in tiles, as run --gsd."),
    ] = None,
) -> None:
    """Measure accuracy, calibration and robustness on labelled images, and confidence on pictures without land."""
    console = printer(stderr=True)
    columns = (TextColumn("decode"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=None)
        found = run_evaluation(
            bundle,
            data,
            heads=names(heads),
            split=split,
            backend=backend,
            corrupted=corrupted,
            value_range=parse_range(value_range, "--range") if value_range else None,
            gsd=gsd,
            progress=lambda done, images: progress.update(bar, completed=done, total=images),
        )
    if found.contains_training:
        console.print("these include training images; give --split val to use others", style="yellow")
    engine = found.engine
    out = console_beside(json)
    out.print(score_table(found.scores, f"{found.bundle.spec.name} ({engine.precision} on {engine.backend}), {data}"))
    print_doubts(found, out)
    if found.frames:
        out.print(frames_table(found.frames))
    for path in found.broken:
        console.print(f"skipped {path}: not an image", style="yellow")
    write_json(json, record_of(found, data, split))


def record_of(found: Evaluation, data: Path, split: str) -> dict[str, Any]:
    """The record of `--json`."""
    return {
        "bundle": found.bundle.sha256,
        "engine": found.engine.path,
        "data": str(data),
        "split": split,
        "broken": list(found.broken),
        "heads": [figures(each) for each in found.scores],
        "withheld": round(found.withheld, 5),
        "robustness": [robustness_figures(each) for each in found.robustness],
        "not_land": None if found.not_land is None else asdict(found.not_land),
        "frames": [asdict(each) for each in found.frames],
    }


def robustness_figures(each: Robustness) -> dict[str, Any]:
    return asdict(each) | {"accuracy": {f"{name} {severity}": value for (name, severity), value in each.accuracy.items()}}


def print_doubts(found: Evaluation, console: Printer) -> None:
    """Print the share without a label, the accuracy on corrupted images, and the result on pictures without land."""
    console.print(f"no label: {found.withheld:.1%} of these images")
    if found.robustness:
        console.print(robustness_table(found.robustness))
    if found.not_land is not None:
        console.print(
            f"pictures without land: {found.not_land.withheld:.1%} of {found.not_land.images} generated ones get no label, "
            f"{found.not_land.confident:.1%} one with a confidence of {CONFIDENT} or more"
        )


def robustness_table(found: Sequence[Robustness]) -> Table:
    """Accuracy of each head under corruption, one column for each head: the mean over the corruptions at each severity."""
    table = folded_table(("accuracy", *(each.head for each in found)), "accuracy on corrupted images")
    rows: dict[str, list[str]] = {
        "as they are": [f"{each.clean:.1%}" for each in found],
        f"JPEG {JPEG_QUALITY}": [f"{each.jpeg_75:.1%}" for each in found],
    }
    for severity in SEVERITIES:
        rows[f"severity {severity}"] = [f"{each.mean(severity):.1%}" for each in found]
    for severity in SEVERITIES:
        rows[f"severity {severity}, label ≥ {CONFIDENT}"] = [
            "—" if (right := each.labelled_right.get(severity)) is None else f"{right:.1%}" for each in found
        ]
    rows["images"] = [str(each.images) for each in found]
    rows["ECE, all severities"] = [f"{each.calibration_error:.3f}" for each in found]
    rows["no label, all severities"] = [f"{each.withheld:.1%}" for each in found]
    for name, cells in rows.items():
        table.add_row(name, *cells)
    return table


def frames_table(found: Sequence[FrameScore]) -> Table:
    """Each head on the frames as a whole and in tiles."""
    headers = ("head", "shown", "tiles", "accuracy", "with label", "right", f"label ≥ {CONFIDENT}", "right of these")
    table = folded_table(headers, f"{found[0].images} frames as a whole, and in tiles at the taught scale")
    for each in found:
        shares = (each.accuracy, each.labelled, each.right, each.confident, each.confident_right)
        cells = ("—" if value is None else f"{value:.1%}" for value in shares)
        table.add_row(each.head, each.shown, f"{each.tiles:.1f}", *cells)
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
