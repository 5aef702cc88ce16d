"""The command of this room: `train`."""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from spatialnet_edge.errors import UsageError
from spatialnet_training.config import TrainConfig, load_config
from spatialnet_training.run import train as run_training


def train(
    config: Annotated[str, typer.Option(help="A TOML file, or the name of a shipped configuration.")] = "student",
    data_root: Annotated[Path, typer.Option(help="The folder that holds the data sets of the configuration.")] = Path("data"),
    out: Annotated[Path, typer.Option(help="Folder for the checkpoints, the log and student.pt.")] = Path("runs/student"),
) -> None:
    """Train a student. Started again with the same --out, it goes on where it stopped."""
    chosen = read_config(config)
    console = Console(stderr=True)
    columns = (TextColumn("epoch"), MofNCompleteColumn(), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=chosen.epochs)

        def report(figures: dict[str, float]) -> None:
            progress.update(bar, completed=figures["epoch"])
            held_out = "  ".join(f"{key[5:]} {value:.1%}" for key, value in figures.items() if key.startswith("tune/"))
            console.print(f"epoch {figures['epoch']:.0f}  loss {figures['loss']:.3f}  held out: {held_out}", highlight=False)

        student = run_training(chosen, data_root, out, "spatialnet-edge " + " ".join(sys.argv[1:]), report)
    print(student)


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
