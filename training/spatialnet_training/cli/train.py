"""The command `train`."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from spatialnet_edge.cli.option_groups import grouped
from spatialnet_edge.cli.option_values import names
from spatialnet_edge.cli.printer import echo, printer
from spatialnet_edge.core.output_paths import to_be_written
from spatialnet_training.cli.dataset_summary import describe
from spatialnet_training.cli.next_steps import after_interrupt, next_commands
from spatialnet_training.cli.progress import ConsoleWatcher
from spatialnet_training.cli.train_options import OwnImages, Recipe
from spatialnet_training.lineage import command_line
from spatialnet_training.loop.experiment_trackers import open_trackers
from spatialnet_training.loop.run_inputs import load_images, starting_point
from spatialnet_training.loop.training_run import train as run_training
from spatialnet_training.networks.checkpoint_paths import NETWORK


@grouped(recipe="The configuration, and options that override it", own="With --data: how your images are read")
def train(
    recipe: Recipe,
    own: OwnImages,
    data: Annotated[
        Path | None,
        typer.Option(help="Your own images: a folder or zip with <class>/<image>, a CSV, or a data set of another library."),
    ] = None,
    data_root: Annotated[Path, typer.Option(help="The folder that holds the data sets of the configuration.")] = Path("data"),
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the checkpoint, the log and the card.")] = Path(
        "runs/student"
    ),
    track: Annotated[str, typer.Option(help="Also log to tensorboard or mlflow, comma-separated. Each needs its extra.")] = "",
) -> None:
    """Train a network. The same command with the same --output resumes an interrupted run."""
    to_be_written(output / NETWORK)
    config = recipe.read(own=data is not None)
    starting_point(config)  # an unknown name is reported before images are read
    first = os.environ.get("RANK", "0") == "0"  # only one of several processes prints
    console = printer(stderr=True, quiet=not first)
    images = load_images(config, data, data_root, own.options())
    describe(images, console, config.flips, data)
    command = command_line()
    try:
        with ExitStack() as open_until_the_end:
            trackers = open_trackers(names(track), output) if first else []
            for tracker in trackers:
                open_until_the_end.callback(tracker.close)
            network = run_training(config, images, output, command, ConsoleWatcher(console, config.epochs, trackers))
    except KeyboardInterrupt:
        console.print(after_interrupt(output, command))
        raise typer.Exit(130) from None
    for line in next_commands(output, images):
        console.print(line, soft_wrap=True)
    if first:
        echo(network)
