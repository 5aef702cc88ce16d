"""The command `train`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from msgspec.structs import replace
from rich.console import Console

from spatialnet_edge.core.output_paths import to_be_written
from spatialnet_training.cli.configs import read_config
from spatialnet_training.cli.dataset_summary import describe
from spatialnet_training.cli.progress import ConsoleWatcher
from spatialnet_training.data.bands import groups_named
from spatialnet_training.data.custom_dataset import load_own
from spatialnet_training.data.dataset_options import DatasetOptions
from spatialnet_training.data.datasets import load_published
from spatialnet_training.loop.training_run import starting_point, stored_side
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
