"""`spatialnet-edge reproduce`: every stage of a shipped model's recipe by one command, which resumes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from spatialnet_edge.cli.printer import echo, printer
from spatialnet_edge.core.errors import MissingExtra
from spatialnet_optimize.export.from_checkpoint import export_checkpoint
from spatialnet_optimize.reproduce.plan import (
    KNOWING,
    RECALIBRATED,
    Profile,
    Request,
    Stage,
    finished,
    is_done,
    note_done,
    plan,
)
from spatialnet_optimize.reproduce.recipe import read_recipe
from spatialnet_training.lineage import command_line


def reproduce(
    recipe: Annotated[str, typer.Argument(help="The name of a shipped model, or a recipe's TOML file.")],
    data_root: Annotated[Path, typer.Option(help="The folder that holds the data sets and not_land.zip.")] = Path("data"),
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for every stage. Default: runs/RECIPE.")
    ] = None,
    profile: Annotated[Profile, typer.Option(help="Where the runs take place; gpu changes how they are computed.")] = "cpu",
    weights: Annotated[Path | None, typer.Option(help="File of the public weights that the teacher begins with.")] = None,
    serial: Annotated[int, typer.Option(min=0, help="Serial of the bundle; it increases with every release of a model.")] = 1,
    seed: Annotated[
        int, typer.Option(help="Seed of the generated pictures and corruptions in the stages after training.")
    ] = 0,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="A different value in every training run, such as epoch_images=2000, for a quick trial."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the stages and do nothing.")] = False,
) -> None:
    """Make a shipped model again: teachers, student, teach-known, recalibrate, export. The same command resumes."""
    known = read_recipe(recipe)
    out = output or Path("runs") / known.model
    request = Request(out, data_root, profile, weights, seed, serial, tuple(overrides or ()))
    stages = plan(known, request)
    record = finished(out)
    console = printer(stderr=not dry_run)
    if dry_run:
        console.print(as_table(stages, record))
        return
    out.mkdir(parents=True, exist_ok=True)
    previous: Path | None = None
    for stage in stages:
        if is_done(stage, record):
            console.print(f"{stage.name}: done, {stage.output}")
        else:
            console.print(f"{stage.name}: {stage.described}", soft_wrap=True)
            perform(stage, previous, request, console)
            note_done(stage, out)
        previous = stage.output.parent
    echo(stages[-1].output)


def as_table(stages: list[Stage], record: dict[str, str]) -> Table:
    """The stages with their expected times."""
    table = Table("stage", "state", "expected", Column("command", overflow="fold"))
    for stage in stages:
        expected = "not measured" if stage.hours is None else f"{stage.hours:g} h"
        table.add_row(stage.name, "done" if is_done(stage, record) else "to do", expected, stage.described)
    return table


def perform(stage: Stage, previous: Path | None, request: Request, console: Console) -> None:
    """Do one stage.

    Args:
        previous: the folder that the stage before left; None for the first.

    Raises:
        MissingExtra: torch or another library of the extra `training` is not installed.
    """
    try:
        from spatialnet_training.cli.progress import ConsoleWatcher
        from spatialnet_training.data.dataset_options import DatasetOptions
        from spatialnet_training.loop.run_inputs import load_images
        from spatialnet_training.loop.training_run import train
        from spatialnet_training.studies.known import with_known_head
        from spatialnet_training.studies.recalibrate import recalibrate_checkpoint
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "torch", "training") from error
    folder = stage.output.parent
    if stage.config is not None:
        images = load_images(stage.config, None, request.data_root, DatasetOptions())
        command = command_line()
        train(stage.config, images, folder, command, ConsoleWatcher(console, stage.config.epochs))
        return
    assert previous is not None
    if stage.name == KNOWING:
        with_known_head(previous, request.data_root, folder, request.seed)
    elif stage.name == RECALIBRATED:
        console.print(recalibrate_checkpoint(previous, request.data_root, folder, request.seed))
    else:
        export_checkpoint(previous, stage.output, (), request.serial)
