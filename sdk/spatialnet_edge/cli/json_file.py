"""The option `--json FILE` of every command: a file, or `-` for standard output."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Any

import typer

from spatialnet_edge.cli.printer import Printer, printer
from spatialnet_edge.core.output_paths import STANDARD_OUTPUT, to_be_written


def json_option(contents: str) -> Any:
    """The option `--json` of a parameter of type `Path | None`.

    Args:
        contents: what the file contains, for the help text.
    """
    text = f"Write {contents} to this file; - for standard output."
    return typer.Option("--json", metavar="FILE", help=text, callback=to_be_written)


def console_beside(json: Path | None) -> Printer:
    """The console for tables: standard error if the JSON goes to standard output."""
    return printer(stderr=json == STANDARD_OUTPUT)


def write_json(json: Path | None, record: Any) -> None:
    """Write a record, indented; None writes nothing."""
    if json is not None:
        write_text(json, jsonlib.dumps(record, indent=1) + "\n")


def write_text(json: Path | None, text: str) -> None:
    """Write JSON text as it is; None writes nothing."""
    if json == STANDARD_OUTPUT:
        typer.echo(text, nl=False)
    elif json is not None:
        json.write_text(text, encoding="utf-8")
