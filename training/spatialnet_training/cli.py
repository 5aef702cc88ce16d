"""The command of this room: `train`."""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from spatialnet_edge.errors import UsageError
from spatialnet_training.config import TrainConfig, load_config
from spatialnet_training.datasets import TrainingData, load_own, load_published
from spatialnet_training.run import stored_side
from spatialnet_training.run import train as run_training


def train(
    data: Annotated[
        Path | None,
        typer.Option(help="Your own images: a folder or zip with <class>/<image>. Starts from the shipped student."),
    ] = None,
    config: Annotated[str, typer.Option(help="A TOML file, or the name of a shipped configuration.")] = "",
    data_root: Annotated[Path, typer.Option(help="The folder that holds the data sets of the configuration.")] = Path("data"),
    out: Annotated[Path, typer.Option(help="Folder for the checkpoints, the log and student.pt.")] = Path("runs/student"),
    start: Annotated[
        str, typer.Option(help="A checkpoint to start from; 'scratch' for none. Default with --data: the shipped student.")
    ] = "",
) -> None:
    """Train a student. Started again with the same --out, it goes on where it stopped."""
    chosen = read_config(config or ("folder" if data else "student"))
    console = Console(stderr=True)
    side = stored_side(chosen)
    if data is not None:
        images = load_own(data, side)
    else:
        images = load_published({name: data_root / file for name, file in chosen.data.items()}, side)
    describe(images, console)
    columns = (TextColumn("epoch"), MofNCompleteColumn(), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=chosen.epochs)

        def report(figures: dict[str, float]) -> None:
            progress.update(bar, completed=figures["epoch"])
            held_out = "  ".join(f"{key[5:]} {value:.1%}" for key, value in figures.items() if key.startswith("tune/"))
            console.print(f"epoch {figures['epoch']:.0f}  loss {figures['loss']:.3f}  held out: {held_out}", highlight=False)

        command = "spatialnet-edge " + " ".join(sys.argv[1:])
        student = run_training(chosen, images, out, command, report, starting_point(start, own=data is not None))
    for name in images.broken:
        console.print(f"skipped {name}: not an image", style="yellow", highlight=False)
    print(student)


def starting_point(start: str, own: bool) -> Path | None:
    """The checkpoint to start from: the one asked for, or the shipped student's for a user's own images.

    Raises:
        UsageError: there is no such checkpoint.
    """
    if start == "scratch" or not (start or own):
        return None
    path = Path(start) if start else Path(str(files("spatialnet_training"))).joinpath("weights", "student.pt")
    if not path.is_file():
        raise UsageError(
            f"{path}: no checkpoint to start from; name one with --start, or start from scratch with --start scratch"
        )
    return path


def describe(images: TrainingData, console: Console) -> None:
    """How many images there are, and how unevenly the classes of a single data set are filled."""
    console.print(f"training on {', '.join(images.summary)}; {len(images.tune)} held out to calibrate", highlight=False)
    if len(images.labels) > 1:
        return
    ((head, names),) = images.labels.items()
    counts = np.bincount(images.train.targets[head], minlength=len(names))
    rarest, commonest = int(counts.argmin()), int(counts.argmax())
    if counts[commonest] > 5 * max(1, counts[rarest]):
        console.print(
            f"imbalance: {counts[commonest]} images of {names[commonest]}, {counts[rarest]} of {names[rarest]}; "
            f"expect the rare class to be missed more often",
            style="yellow",
            highlight=False,
        )


def read_config(name: str) -> TrainConfig:
    """A configuration by path or by the name of a shipped one.

    Raises:
        UsageError: neither, or not a valid configuration.
    """
    shipped = Path(str(files("spatialnet_training"))).joinpath("configs")
    path = Path(name) if Path(name).suffix == ".toml" else shipped / f"{name}.toml"
    if not path.is_file():
        raise UsageError(f"no configuration '{name}'; shipped: {', '.join(p.stem for p in sorted(shipped.glob('*.toml')))}")
    try:
        return load_config(path)
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error
