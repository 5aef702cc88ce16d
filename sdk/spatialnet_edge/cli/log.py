"""`spatialnet-edge log FOLDER`: what a journal holds, line by line, verified."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spatialnet_edge.core.errors import SourceRefused
from spatialnet_edge.sinks.journal_reader import PIN, name_of, read_journal, segments


def log(
    folder: Annotated[Path, typer.Argument(help="The folder of a log: sink or of a service.")],
    pin: Annotated[int, typer.Option(help="Keep this segment (its number) when old ones make room.")] = 0,
) -> None:
    """Print the records of a journal as JSON lines; what is damaged is counted on standard error and left out."""
    if not folder.is_dir() or not segments(folder):
        raise SourceRefused(f"{folder}: no segment of a log (000000001.log …) in this folder")
    if pin:
        path = folder / name_of(pin)
        if not path.exists():
            raise SourceRefused(f"{path}: no such segment; there are {', '.join(str(int(s.stem)) for s in segments(folder))}")
        path.with_name(path.name + PIN).touch()
        return
    damaged = 0
    for reading in read_journal(folder):
        damaged += reading.damaged
        for record in reading.records:
            typer.echo(record)
    if damaged:
        typer.echo(f"{damaged} damaged or unfinished lines were left out", err=True)
