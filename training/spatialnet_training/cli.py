"""The command `train`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from msgspec.structs import replace
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from spatialnet_edge.core.errors import UsageError
from spatialnet_edge.core.output_paths import to_be_written
from spatialnet_edge.core.spec import Head, Multiclass, Regression
from spatialnet_training.config import TrainConfig, load_config
from spatialnet_training.data.bands import groups_named
from spatialnet_training.data.custom_dataset import load_own
from spatialnet_training.data.dataset_options import DatasetOptions
from spatialnet_training.data.datasets import TrainingData, load_published
from spatialnet_training.loop.training_run import Watcher, starting_point, stored_side
from spatialnet_training.loop.training_run import train as run_training
from spatialnet_training.networks.checkpoint_paths import NETWORK

SCRATCH = "scratch"
"""What `--start` calls random weights."""


def train(
    data: Annotated[
        Path | None,
        typer.Option(help="Your own images: a folder or zip with <class>/<image>, or a CSV. Starts from the shipped student."),
    ] = None,
    config: Annotated[str, typer.Option(help="A TOML file, or the name of a shipped configuration.")] = "",
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override the configuration: key=value or section.key=value.")
    ] = None,
    data_root: Annotated[Path, typer.Option(help="The folder that holds the data sets of the configuration.")] = Path("data"),
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint, the log and the card.")] = Path("runs/student"),
    backbone: Annotated[str, typer.Option(help="A preset, timm:NAME or timm-trunk:NAME; overrides the configuration.")] = "",
    start: Annotated[
        str,
        typer.Option(
            help="A checkpoint to start from, or a shipped one's name; 'scratch' for none; overrides the configuration."
        ),
    ] = "",
    labels: Annotated[str, typer.Option(help="With --data: the only labels to accept, comma-separated.")] = "",
) -> None:
    """Train a network. Started again with the same --out, it goes on where it stopped."""
    overrides = [*(set_ or []), *([f'backbone="{backbone}"'] if backbone else [])]
    to_be_written(out / NETWORK)
    chosen = read_config(config or ("folder" if data else "student"), tuple(overrides))
    if start or backbone:  # another backbone cannot begin with the weights that the configuration names
        chosen = replace(chosen, start="" if start == SCRATCH else start)
    starting_point(chosen)  # a name that is not there is told before images are read
    first = os.environ.get("RANK", "0") == "0"  # of several processes, one speaks
    console = Console(stderr=True, quiet=not first)
    side, groups = stored_side(chosen), groups_named(chosen.groups)
    if data is not None:
        images = load_own(
            data, side, groups, DatasetOptions(labels=tuple(each.strip() for each in labels.split(",") if each.strip()))
        )
    else:
        images = load_published({name: data_root / file for name, file in chosen.data.items()}, side, groups)
    describe(images, console, own=data is not None)
    command = "spatialnet-edge " + " ".join(sys.argv[1:])
    network = run_training(chosen, images, out, command, ConsoleWatcher(console, chosen.epochs))
    for name in images.broken:
        console.print(f"skipped {name}: not an image", style="yellow", highlight=False)
    if first:
        print(network)


class ConsoleWatcher(Watcher):
    """A progress bar for each epoch, and a line of figures after it."""

    def __init__(self, console: Console, epochs: int) -> None:
        self.console = console
        self.epochs = epochs

    @contextmanager
    def steps(self, epoch: int, count: int) -> Iterator[Callable[[], None]]:
        columns = (
            TextColumn("{task.description}"),
            MofNCompleteColumn(),
            BarColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            bar = progress.add_task(f"epoch {epoch + 1} of {self.epochs}", total=count)
            yield lambda: progress.advance(bar)

    def epoch(self, figures: dict[str, float]) -> None:
        held_out = "  ".join(f"{key[5:]} {value:.1%}" for key, value in figures.items() if key.startswith("holdout/"))
        self.console.print(
            f"epoch {figures['epoch']:.0f}  {figures['images_per_second']:.0f} images/s  loss {figures['loss']:.3f}  "
            f"held out: {held_out}",
            highlight=False,
        )


def describe(images: TrainingData, console: Console, own: bool) -> None:
    """How many images there are, and, of a user's own, what is learnt of them and how unevenly the classes are filled."""
    console.print(f"training on {', '.join(images.summary)}; {len(images.holdout)} held out to calibrate", highlight=False)
    if not own:
        return
    console.print(f"to learn: {', '.join(map(in_words, images.heads))}", highlight=False)
    for split, count in images.unseen.items():
        console.print(
            f"left to judge by: {count} images; spatialnet-edge evaluate BUNDLE DATA --split {split}", highlight=False
        )
    for head in images.heads:
        if not isinstance(head, Multiclass):
            continue
        values = images.train.targets[head.name].astype(np.int64)
        counts = np.bincount(values[values >= 0], minlength=head.width)
        rarest, commonest = int(counts.argmin()), int(counts.argmax())
        if counts[commonest] > 5 * max(1, counts[rarest]):
            console.print(
                f"imbalance in {head.name}: {counts[commonest]} images of {head.labels[commonest]}, {counts[rarest]} of "
                f"{head.labels[rarest]}; expect the rare class to be missed more often",
                style="yellow",
                highlight=False,
            )


def in_words(head: Head) -> str:
    """What a head answers, so that a column that was taken for something else is seen before training."""
    if isinstance(head, Regression):
        return f"{head.name} (a quantity, {head.low:g} to {head.high:g})"
    return f"{head.name} ({head.width} {'classes' if isinstance(head, Multiclass) else 'labels'})"


def read_config(name: str, overrides: tuple[str, ...] = ()) -> TrainConfig:
    """A configuration by path or by the name of a shipped one.

    Raises:
        UsageError: neither, or not a valid configuration.
    """
    shipped = Path(str(files("spatialnet_training"))).joinpath("configs")
    path = Path(name) if Path(name).suffix == ".toml" else shipped / f"{name}.toml"
    if not path.is_file():
        raise UsageError(f"no configuration '{name}'; shipped: {', '.join(p.stem for p in sorted(shipped.glob('*.toml')))}")
    try:
        return load_config(path, overrides)
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error
