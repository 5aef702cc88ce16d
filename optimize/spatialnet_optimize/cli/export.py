"""The command `export`: from a checkpoint to a portable bundle, the input of every build."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spatialnet_edge.cli.printer import printer
from spatialnet_edge.core.output_paths import bundle_to_be_written
from spatialnet_optimize.export.from_checkpoint import export_checkpoint
from spatialnet_optimize.export.graph import PARITY


def export(
    checkpoint: Annotated[Path, typer.Argument(help="The folder of a training run.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle to write.", callback=bundle_to_be_written)] = Path(
        "student.snb"
    ),
    golden: Annotated[
        list[Path] | None,
        typer.Option(
            help="At least 8 real images for the golden frames: a folder, a zip or a CSV; may be repeated. "
            "Default: shipped samples."
        ),
    ] = None,
    serial: Annotated[int, typer.Option(min=0, help="A number that increases with every release of a model.")] = 1,
    half: Annotated[
        bool, typer.Option("--half", help="Store large weights as float16: half the size. Evaluate the bundle afterwards.")
    ] = False,
) -> None:
    """Export a checkpoint, from uint8 pixels to probabilities, and compare it with torch on real images."""
    bundle = export_checkpoint(checkpoint, output, tuple(golden or ()), serial, half)
    stored = "; large weights are stored as float16" if half else ""
    printer().print(
        f"{bundle.path}: equal to torch within {PARITY:.0e} on {len(bundle.manifest.golden.frames)} images{stored}",
    )
