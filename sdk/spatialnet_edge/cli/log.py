"""`spatialnet-edge log FOLDER`: verify a journal and print its records, one line each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spatialnet_edge.core.errors import SourceRefused
from spatialnet_edge.core.printable import printable_json
from spatialnet_edge.sinks.journal_reader import PIN, name_of, read_journal, segments


def log(
    folder: Annotated[Path, typer.Argument(help="The folder of a log: sink or of a service's events.")],
    pin: Annotated[int, typer.Option(help="Number of a segment that is never deleted to make room.")] = 0,
) -> None:
    """Verify a log and print its records as JSON lines. Damaged lines, and records that are not JSON, are skipped and counted on
    standard error."""
    if not folder.is_dir() or not segments(folder):
        raise SourceRefused(f"{folder}: this folder has no log segment (000000001.log …)")
    if pin:
        path = folder / name_of(pin)
        if not path.exists():
            raise SourceRefused(f"{path}: no such segment; there are {', '.join(str(int(s.stem)) for s in segments(folder))}")
        path.with_name(path.name + PIN).touch()
        return
    damaged = strange = 0
    for reading in read_journal(folder):
        damaged += reading.damaged
        for record in reading.records:
            try:
                typer.echo(printable_json(record))
            except ValueError:
                strange += 1
    if damaged:
        typer.echo(f"{damaged} damaged or unfinished lines were skipped", err=True)
    if strange:
        typer.echo(f"{strange} records were skipped: their checksum is right, but they are not JSON", err=True)
