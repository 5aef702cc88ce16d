"""Pipeline efficiency: frames per second end to end ÷ the work bound (see `stages`), of several bundles alternating.

    python -m spatialnet_benchmarks.efficiency [CLIP] [--rounds 5] [--bundle BUNDLE …]

Without `--bundle`: the shipped portable graph, and the result of `build` for it on this computer (INT8 on most processors).
Each round measures decoding, resizing and engine alone, then the pipeline; the ratio is taken within a round.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from spatialnet_benchmarks.stages import Measurement, measure
from spatialnet_edge.api import Model, load
from spatialnet_edge.bundle.reader import open_bundle
from spatialnet_edge.cli.printer import printer
from spatialnet_edge.core.hardware_info import cores
from spatialnet_optimize.build.build import Job, build
from spatialnet_optimize.targets.catalogue import HERE

PORTABLE = "builtin:spatialnet-s"
KEPT = 100


def built_here() -> Model:
    """The shipped model after `spatialnet-edge build --target here`."""
    with TemporaryDirectory() as folder:
        bundle, _ = build(Job(open_bundle(PORTABLE), HERE, Path(folder) / "built.snb"))
        return load(bundle.path, threads=1)


def alternating(models: Sequence[Model], clip: str, rounds: int) -> list[list[Measurement]]:
    """The measurements of each model, one per round."""
    measured: list[list[Measurement]] = [[] for _ in models]
    for _ in range(rounds):
        for model, passes in zip(models, measured, strict=True):
            passes.append(measure(model, clip, KEPT))
    return measured


def main(
    clip: Annotated[str, typer.Argument(help="A video.")] = "samples/brighton_beach.mp4",
    rounds: Annotated[int, typer.Option(min=1, help="Number of measurements of every bundle.")] = 5,
    bundle: Annotated[list[str] | None, typer.Option(help="A bundle to measure; may be repeated.")] = None,
) -> None:
    """Print frames per second, work bound and pipeline efficiency."""
    with ExitStack() as stack:
        opened = [load(name, threads=1) for name in bundle] if bundle else [load(PORTABLE, threads=1), built_here()]
        models = [stack.enter_context(model) for model in opened]
        measured = alternating(models, clip, rounds)
    table = Table("engine", "frames/s", "work bound", "efficiency", "over the rounds", title=f"{clip}, {cores()} cores")
    record: dict[str, list[float]] = {}
    for model, passes in zip(models, measured, strict=True):
        ratios = np.array([each.pipeline_efficiency for each in passes])
        rate, bound = np.median([(each.frames_per_second, each.work_bound) for each in passes], axis=0)
        name = f"{model.opened.record.precision} on {model.opened.record.backend}"
        spread = f"{ratios.min():.2f} to {ratios.max():.2f}"
        table.add_row(name, f"{rate:.0f}", f"{bound:.0f}", f"{np.median(ratios):.2f}", spread)
        record[name] = ratios.round(4).tolist()
    printer().print(table)
    print(json.dumps(record))


if __name__ == "__main__":
    typer.run(main)
