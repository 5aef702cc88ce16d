"""Pareto front of accuracy and latency over networks and input sizes, measured on this computer.

Accuracy is measured on held-out training images, because the front is used for selection. The selected network is then
evaluated once on the validation images by `spatialnet-edge card`.
"""

from __future__ import annotations

import json as jsonlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from msgspec import structs
from rich.table import Table

from spatialnet_edge.bundle.manifest import Provenance
from spatialnet_edge.cli.printer import printer
from spatialnet_edge.core.errors import UsageError
from spatialnet_edge.core.frames import preprocess
from spatialnet_edge.core.output_paths import to_be_written
from spatialnet_edge.core.printable import plot_text
from spatialnet_edge.core.spec import ModelSpec, Multiclass
from spatialnet_edge.engines.registry import Engine, load_backend
from spatialnet_optimize.evaluation.latency import latencies
from spatialnet_optimize.export.graph import export_onnx
from spatialnet_training.data.custom_dataset import load_own
from spatialnet_training.data.dataset_registry import data_sets, learnt
from spatialnet_training.data.datasets import load_split
from spatialnet_training.data.samples import Samples
from spatialnet_training.data.taxonomy import load_taxonomy
from spatialnet_training.loop.evaluation import judge
from spatialnet_training.networks.checkpoint import load_network
from spatialnet_training.networks.checkpoint_paths import run_name
from spatialnet_training.networks.model import SpatialNet
from spatialnet_training.plots import figure
from spatialnet_training.studies.study_data import OWN_OR_PUBLISHED, DataRoot, OwnData

STORED_SIDE = 256
Loaded = tuple[SpatialNet, ModelSpec, Provenance]
"""The result of `load_network`."""


@dataclass(frozen=True, slots=True)
class Point:
    """One network at one input size.

    Attributes:
        accuracy: mean over the data sets' own heads, 0 to 1.
        loss: log-loss, mean over all heads, at the best temperatures for these images and this size.
        p50_ms: median latency of one image on one thread of this computer.
        best: no other point is both faster and at least as accurate.
    """

    network: str
    size: int
    parameters: int
    accuracy: float
    loss: float
    p50_ms: float
    best: bool = False

    @property
    def name(self) -> str:
        return f"{self.network} {self.size}"


def on_front(points: Sequence[Point]) -> list[Point]:
    """The points in order of latency, with those on the front marked."""
    found: list[Point] = []
    highest = -1.0
    for point in sorted(points, key=lambda each: (each.p50_ms, -each.accuracy)):
        found.append(replace(point, best=point.accuracy > highest))
        highest = max(highest, point.accuracy)
    return found


def measure(networks: Mapping[Path, Loaded], sizes: Sequence[int], samples: Samples, heads: Sequence[str]) -> list[Point]:
    """Export every network at every size, evaluate each, then time all of them in turn.

    Args:
        heads: whose accuracy is averaged.
    """
    engines: list[Engine] = []
    specs: list[ModelSpec] = []
    points: list[Point] = []
    for checkpoint, (network, spec, _) in networks.items():
        parameters = sum(parameter.numel() for parameter in network.parameters())
        for size in sizes:
            resized = structs.replace(spec, input=structs.replace(spec.input, height=size, width=size))
            engines.append(load_backend("onnxruntime").open(export_onnx(network, resized), resized, 1))
            specs.append(resized)
            found = judge(network, resized, samples)
            accuracy = float(np.mean([found.figures[head] for head in heads]))
            points.append(Point(run_name(checkpoint), size, parameters, accuracy, found.loss, 0.0))
    images = [preprocess(samples.images[0], spec.input) for spec in specs]
    timed = latencies(engines, images)
    for engine in engines:
        engine.close()
    return [replace(point, p50_ms=times.p50_ms) for point, times in zip(points, timed, strict=True)]


def images_to_judge(networks: Mapping[Path, Loaded], own: Path | None, root: Path | None) -> tuple[Samples, list[str]]:
    """Held-out training images, and the heads that they judge; of a user's own data, or of the published ones below `root`.

    Raises:
        UsageError: a network whose classes are others.
        DataRefused: the images cannot be used.
    """
    if own is None:
        assert root is not None
        names = judged(networks)
        samples = load_split(data_sets(root, ",".join(names)), load_taxonomy(), "holdout", STORED_SIDE)
        return samples, [f"land_use_{name}" for name in samples.data_sets]
    _, first, _ = next(iter(networks.values()))
    data = load_own(own, STORED_SIDE, first.input.groups)
    heads = [head for head in data.heads if isinstance(head, Multiclass)]
    if not heads:
        raise UsageError(f"{own}: has no classes, only quantities or objects; the study compares classes")
    for path, (_, spec, _) in networks.items():
        known = {head.name: head.labels for head in spec.heads if isinstance(head, Multiclass)}
        if other := [head.name for head in heads if known.get(head.name) != head.labels]:
            raise UsageError(f"{path}: does not have the classes of '{other[0]}' in {own}; train it on these images first")
    return data.holdout, [head.name for head in heads]


def judged(networks: Mapping[Path, Loaded]) -> list[str]:
    """The data sets for which every network has a head.

    Raises:
        UsageError: there is none.
    """
    names = learnt([spec for _, spec, _ in networks.values()])
    if not names:
        raise UsageError(f"no published data set has a head in every one of {', '.join(map(str, networks))}")
    return names


def plot(path: Path, points: Sequence[Point]) -> None:
    """Plot accuracy over latency: one colour per network, sizes next to the points, the front as a line."""
    pyplot, made, axes = figure(1, 1, (9, 6))
    axis = axes[0, 0]
    best = [point for point in points if point.best]
    front = ([p.p50_ms for p in best], [100 * p.accuracy for p in best])
    axis.plot(*front, color="black", alpha=0.4, linestyle="--", label="nothing is faster and as accurate", zorder=1)
    for network in dict.fromkeys(point.network for point in points):
        own = [point for point in points if point.network == network]
        places = [(p.p50_ms, 100 * p.accuracy) for p in own]
        axis.scatter(*zip(*places, strict=True), label=plot_text(network), zorder=2)
        for point, place in zip(own, places, strict=True):
            axis.annotate(f"{point.size} px", place, xytext=(6, 5), textcoords="offset points", fontsize=9)
    axis.set(xlabel="latency of one image, one thread, ms (median)", ylabel="accuracy, mean over the data sets, %")
    axis.set_title("accuracy against latency, FP32 in ONNX Runtime")
    axis.margins(x=0.1, y=0.1)
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2, frameon=False)  # next to the points
    axis.grid(alpha=0.3)
    made.savefig(path, dpi=90)
    pyplot.close(made)


def front(
    checkpoints: Annotated[list[Path], typer.Argument(help="The folders of one or more training runs.")],
    data: OwnData = None,
    data_root: DataRoot = None,
    size: Annotated[str, typer.Option(help="Input sides in pixels, multiples of 16, comma-separated.")] = "64,96,128",
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="The plot. The figures are written next to it as JSON.", callback=to_be_written),
    ] = Path("front.png"),
) -> None:
    """Evaluate and time networks at several input sizes on this computer, and plot accuracy against latency."""
    try:
        sides = [int(each) for each in size.split(",")]
    except ValueError as error:
        raise UsageError(f"--size {size}: give integers separated by commas, such as 64,96,128") from error
    if odd := [side for side in sides if side < 16 or side % 16]:
        raise UsageError(f"--size {size}: {odd[0]} is not a multiple of 16")
    if (data is None) == (data_root is None):
        raise UsageError(OWN_OR_PUBLISHED)
    networks = {checkpoint: load_network(checkpoint) for checkpoint in checkpoints}
    samples, heads = images_to_judge(networks, data, data_root)
    with printer(stderr=True).status(f"{len(checkpoints)} networks at {len(sides)} sizes, {len(samples)} held-out images"):
        points = on_front(measure(networks, sides, samples, heads))
    table = Table(
        "network, size", "parameters", "accuracy", "log-loss", "p50", "", title=f"{len(samples)} held-out training images"
    )
    for p in points:
        figures = (f"{p.parameters / 1e6:.2f} M", f"{p.accuracy:.2%}", f"{p.loss:.4f}", f"{p.p50_ms:.2f} ms")
        table.add_row(p.name, *figures, "front" if p.best else "")
    printer().print(table)
    plot(output, points)
    record = [
        {
            "name": p.name,
            "accuracy": round(p.accuracy, 5),
            "loss": round(p.loss, 5),
            "p50_ms": round(p.p50_ms, 3),
            "best": p.best,
        }
        for p in points
    ]
    output.with_suffix(".json").write_text(jsonlib.dumps(record, indent=1) + "\n", encoding="utf-8")
