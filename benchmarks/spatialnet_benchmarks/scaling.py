"""Latency against input size, batch, number of streams and number of parameters, one varied at a time.

    python -m spatialnet_benchmarks.scaling [--plot scaling.png]

Networks of every preset get random weights, because time does not depend on the weights. For each series the exponent of
`cost ~ size^exponent` is fitted to the logarithms by least squares, with its standard error; EfficientNet-B0 is timed in the
same engine, alternating with the student.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from msgspec.structs import replace
from rich.table import Table
from scipy import stats

from spatialnet_benchmarks.environment import environment
from spatialnet_benchmarks.latency import engine_alone
from spatialnet_benchmarks.streams import streams
from spatialnet_edge.api import load
from spatialnet_edge.bundle.reader import MODEL, open_bundle
from spatialnet_edge.cli.printer import printer
from spatialnet_edge.core.output_paths import to_be_written
from spatialnet_edge.core.spec import ModelSpec
from spatialnet_edge.engines.registry import Engine, load_backend
from spatialnet_optimize.evaluation.latency import latencies
from spatialnet_optimize.export.graph import export_onnx
from spatialnet_training.networks.backbones import PRESETS
from spatialnet_training.networks.model import SpatialNet
from spatialnet_training.plots import figure

SIDES = (64, 96, 128, 192, 256)
BATCHES = (1, 2, 4, 8, 16)
STREAMS = (1, 2, 4, 8)
STUDENTS = tuple(name for name in PRESETS if name.startswith("student"))
RIVAL = "timm:efficientnet_b0"
RIVAL_SIDES = (96, 224)
RUNS = 60


@dataclass(frozen=True, slots=True)
class Series:
    """Latency as a function of one variable.

    Attributes:
        sizes: values of the variable; `cost`: milliseconds for each.
        exponent: of the fitted power law; `error`: its standard error.
    """

    what: str
    sizes: tuple[float, ...]
    cost: tuple[float, ...]
    exponent: float
    error: float


def fitted(what: str, sizes: Sequence[float], cost: Sequence[float]) -> Series:
    line: Any = stats.linregress(np.log(sizes), np.log(cost))
    return Series(what, tuple(sizes), tuple(cost), float(line.slope), float(line.stderr))


def network(preset: str, spec: ModelSpec, side: int) -> tuple[Engine, int]:
    """Make an engine of this network at this input side (one thread, FP32, the student's heads). Returns it and its number of
    parameters."""
    torch.manual_seed(0)
    sized = replace(spec, input=replace(spec.input, height=side, width=side))
    made = SpatialNet(preset, {head.name: head.width for head in spec.heads}, side).eval()
    engine = load_backend("onnxruntime").open(export_onnx(made, sized), sized, 1)
    return engine, sum(parameter.numel() for parameter in made.parameters())


def picture(side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8)


def by_side(spec: ModelSpec) -> Series:
    cost = [float(np.median(engine_alone(network("student-2m", spec, side)[0], picture(side), 1, RUNS))) for side in SIDES]
    return fitted("side of the input, pixels", SIDES, cost)


def by_preset(spec: ModelSpec, side: int) -> Series:
    made = [network(preset, spec, side) for preset in STUDENTS]
    cost = [float(np.median(engine_alone(engine, picture(side), 1, RUNS))) for engine, _ in made]
    return fitted("parameters of the network", [count for _, count in made], cost)


def by_batch(engine: Engine, side: int) -> Series:
    cost = [float(np.median(engine_alone(engine, picture(side), batch, RUNS))) for batch in BATCHES]
    return fitted("images in a batch", BATCHES, cost)


def by_streams() -> Series:
    with load("builtin:spatialnet-s", threads=1) as model:
        found = streams(model, STREAMS)
    cost = [1e3 * count / found[str(count)]["frames_per_second"] for count in STREAMS]
    return fitted("streams on one engine (a frame of each)", STREAMS, cost)


def against_rival(spec: ModelSpec, student: Engine, side: int) -> Mapping[str, float]:
    """Median milliseconds of the student and of EfficientNet-B0 at several input sides, alternating in every round."""
    rivals = {f"EfficientNet-B0, {each} px": network(RIVAL, spec, each)[0] for each in RIVAL_SIDES}
    engines = [student, *rivals.values()]
    images = [picture(each)[0] for each in (side, *RIVAL_SIDES)]
    found = latencies(engines, images, rounds=RUNS)
    return {name: each.p50_ms for name, each in zip((f"the student, {side} px", *rivals), found, strict=True)}


def draw(series: Sequence[Series], path: Path) -> None:
    """Plot every series on log-log axes with its fit."""
    pyplot, made, axes = figure(2, 2, (11, 8))
    for axis, each in zip(axes.ravel(), series, strict=True):
        sizes, cost = np.array(each.sizes), np.array(each.cost)
        middle = np.exp(np.log(cost).mean() - each.exponent * np.log(sizes).mean())
        axis.loglog(sizes, cost, "o", color="#2f6f9f")
        axis.loglog(
            sizes, middle * sizes**each.exponent, color="#b5652a", label=f"exponent {each.exponent:.2f} ± {each.error:.2f}"
        )
        axis.set(xlabel=each.what, ylabel="ms")
        axis.set_xticks(sizes, [f"{size / 1e6:.1f} M" if size > 1e5 else f"{size:g}" for size in each.sizes])
        axis.set_yticks(cost, [f"{value:.1f}" for value in each.cost])
        axis.minorticks_off()
        axis.legend(frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
    made.savefig(path, dpi=110)
    pyplot.close(made)


def main(
    plot: Annotated[Path | None, typer.Option(help="Write the plots to this PNG.", callback=to_be_written)] = None,
) -> None:
    """Measure latency against input size, parameters, batch and streams."""
    bundle = open_bundle("builtin:spatialnet-s")
    spec, side = bundle.spec, bundle.spec.input.height
    student = load_backend("onnxruntime").open(bundle.read(MODEL), spec, 1)
    series = [by_side(spec), by_preset(spec, side), by_batch(student, side), by_streams()]
    table = Table("varied", "sizes", "ms", "exponent", title=f"{environment()['device']}, FP32, one thread per inference")
    for each in series:
        sizes = ", ".join(f"{size:g}" if size < 1e5 else f"{size / 1e6:.1f} M" for size in each.sizes)
        cost = ", ".join(f"{value:.2f}" for value in each.cost)
        table.add_row(each.what, sizes, cost, f"{each.exponent:.2f} ± {each.error:.2f}")
    console = printer()
    console.print(table)
    rivals = against_rival(spec, student, side)
    ours = next(iter(rivals.values()))
    for name, cost in rivals.items():
        console.print(f"{name}: {cost:.2f} ms, {cost / ours:.2f} times the student's")
    if plot is not None:
        draw(series, plot)
    print(json.dumps({"series": [[s.what, s.sizes, s.cost, s.exponent, s.error] for s in series], "rivals": dict(rivals)}))


if __name__ == "__main__":
    typer.run(main)
