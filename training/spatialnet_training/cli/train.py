"""The command `train`."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Literal

import typer
from msgspec.structs import replace

from spatialnet_edge.cli.printer import echo, printer
from spatialnet_edge.core.deep_still import parse_range
from spatialnet_edge.core.errors import UsageError
from spatialnet_edge.core.output_paths import to_be_written
from spatialnet_training.cli.configs import read_config
from spatialnet_training.cli.dataset_summary import describe
from spatialnet_training.cli.next_steps import after_interrupt, next_commands
from spatialnet_training.cli.overrides import PlainOptions, names
from spatialnet_training.cli.progress import ConsoleWatcher
from spatialnet_training.config import TrainConfig
from spatialnet_training.data.bands import groups_named
from spatialnet_training.data.custom_dataset import load_own
from spatialnet_training.data.dataset_options import DatasetOptions
from spatialnet_training.data.datasets import TrainingData, load_published
from spatialnet_training.lineage import command_line
from spatialnet_training.loop.experiment_trackers import open_trackers
from spatialnet_training.loop.run_inputs import starting_point, stored_side
from spatialnet_training.loop.training_run import train as run_training
from spatialnet_training.networks.checkpoint_paths import NETWORK

SCRATCH = "scratch"
"""Value of `--start` for random weights."""


def train(
    data: Annotated[
        Path | None,
        typer.Option(help="Your own images: a folder or zip with <class>/<image>, a CSV, or a data set of another library."),
    ] = None,
    config: Annotated[str, typer.Option(help="A TOML file, or the name of a shipped configuration.")] = "",
    epochs: Annotated[int | None, typer.Option(min=1, help="Largest number of fine-tuning epochs.")] = None,
    batch: Annotated[int | None, typer.Option(min=2, help="Images per batch.")] = None,
    size: Annotated[int | None, typer.Option(min=16, help="Side of the network's input, in pixels.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Random seed.")] = None,
    fine_tune: Annotated[
        Literal["auto", "always", "never"] | None,
        typer.Option(help="Train all weights after the linear head. auto: only if the linear head is not good enough."),
    ] = None,
    flips: Annotated[
        Literal["all", "horizontal", "none"] | None,
        typer.Option(help="Symmetries of your images: all (seen from above), horizontal (seen from the side), or none."),
    ] = None,
    balance: Annotated[
        Literal["none", "sampling", "logits", "auto"] | None,
        typer.Option(
            help=(
                "For classes of unequal size: sampling draws them equally often, logits adjusts the logits, auto "
                "chooses by cross-validated loss."
            )
        ),
    ] = None,
    classes_from: Annotated[
        Literal["first", "deepest"],
        typer.Option(
            help="The folder that names the class: the first one below the split, or the deepest one "
            "(directly above the image)."
        ),
    ] = "first",
    group: Annotated[
        str | None,
        typer.Option(help="Keep images of one flight or site in the same split: a regular expression, a column, or 'none'."),
    ] = None,
    value_range: Annotated[
        str, typer.Option("--range", help="For images of more than 8 bits: the values for black and white, such as 0,4095.")
    ] = "",
    columns: Annotated[str, typer.Option(help="For a table: the columns to learn, comma-separated. Default: all.")] = "",
    ignore: Annotated[str, typer.Option(help="For a table: columns that are not labels, comma-separated.")] = "",
    regression: Annotated[str, typer.Option(help="For a table: columns that are quantities, comma-separated.")] = "",
    tile: Annotated[int, typer.Option(min=8, help="For rasters with polygons: side of a tile in pixels.")] = 128,
    metres: Annotated[
        float | None, typer.Option(help="For rasters with polygons: metres per pixel. Default: the raster's.")
    ] = None,
    labels: Annotated[str, typer.Option(help="With --data: the allowed labels, comma-separated. Default: any.")] = "",
    start: Annotated[
        str,
        typer.Option(
            help=(
                "A checkpoint to start from: a path, the name of a shipped one, or 'scratch' for random weights. "
                "Overrides the configuration."
            )
        ),
    ] = "",
    backbone: Annotated[str, typer.Option(help="A preset, timm:NAME or timm-trunk:NAME; overrides the configuration.")] = "",
    track: Annotated[str, typer.Option(help="Also log to tensorboard or mlflow, comma-separated. Each needs its extra.")] = "",
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override the configuration: key=value or section.key=value.")
    ] = None,
    data_root: Annotated[Path, typer.Option(help="The folder that holds the data sets of the configuration.")] = Path("data"),
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint, the log and the card.")] = Path("runs/student"),
) -> None:
    """Train a network. The same command with the same --out resumes an interrupted run."""
    to_be_written(out / NETWORK)
    plain = PlainOptions(batch, lr, seed, flips, fine_tune, balance, backbone or None)
    chosen = read_config(config or ("folder" if data else "student"), (*(set_ or ()), *plain.overrides()))
    chosen = with_stage(chosen, epochs, size)
    if start or backbone:  # another backbone cannot start from the configured weights
        chosen = replace(chosen, start="" if start == SCRATCH else start)
    starting_point(chosen)  # an unknown name is reported before images are read
    first = os.environ.get("RANK", "0") == "0"  # only one of several processes prints
    console = printer(stderr=True, quiet=not first)
    options = DatasetOptions(
        classes_from=classes_from,
        group=group,
        value_range=parse_range(value_range, "--range") if value_range else None,
        columns=names(columns),
        ignore=names(ignore),
        regression=names(regression),
        labels=names(labels),
        tile=tile,
        metres_per_pixel=metres,
    )
    images = load_images(chosen, data, data_root, options)
    describe(images, console, chosen.flips, data)
    command = command_line()
    try:
        with ExitStack() as open_until_the_end:
            trackers = open_trackers(names(track), out) if first else []
            for tracker in trackers:
                open_until_the_end.callback(tracker.close)
            network = run_training(chosen, images, out, command, ConsoleWatcher(console, chosen.epochs, trackers))
    except KeyboardInterrupt:
        console.print(after_interrupt(out, command))
        raise typer.Exit(130) from None
    for line in next_commands(out, images):
        console.print(line, soft_wrap=True)
    if first:
        echo(network)


def load_images(config: TrainConfig, data: Path | None, data_root: Path, options: DatasetOptions) -> TrainingData:
    """Load the user's own images, or the data sets of the configuration.

    Raises:
        UsageError: options for own images without `--data`.
        DataRefused: the images cannot be trained on.
    """
    side, groups = stored_side(config), groups_named(config.groups)
    if data is not None:
        return load_own(data, side, groups, options)
    if options != DatasetOptions():
        raise UsageError("options such as --labels, --group and --range describe your own images; give them with --data")
    return load_published({name: data_root / file for name, file in config.data.items()}, side, groups)


def with_stage(config: TrainConfig, epochs: int | None, size: int | None) -> TrainConfig:
    """The configuration with another number of epochs or another image size.

    Raises:
        UsageError: it has several stages, or a value is out of range.
    """
    if epochs is None and size is None:
        return config
    if len(config.stages) != 1:
        raise UsageError(
            f"the configuration has {len(config.stages)} stages; give --set stages=[…] instead of --epochs or --size"
        )
    stage = config.stages[0]
    stage = replace(stage, epochs=epochs or stage.epochs, size=size or stage.size)
    try:
        return replace(config, stages=(stage,))
    except ValueError as error:
        raise UsageError(f"--size {size}: {error}") from error
