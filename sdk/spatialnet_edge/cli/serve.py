"""`serve` and `health`: a service, and how it is."""

from __future__ import annotations

import signal
from pathlib import Path
from threading import Event
from types import FrameType
from typing import Annotated

import typer

from spatialnet_edge.service.config import load_service_config
from spatialnet_edge.service.health import read_health, verdict
from spatialnet_edge.service.service import serve as run_service


def serve(
    config: Annotated[Path, typer.Option(help="payload.toml.")],
    check: Annotated[bool, typer.Option("--check", help="Check the configuration and stop.")] = False,
) -> None:
    """Run unattended: cameras that come back, self-tests, bundles on trial, a health file. SIGTERM drains and ends it."""
    settings = load_service_config(config)
    if check:
        typer.echo(f"{config}: {len(settings.sources)} source(s); the configuration is sound")
        return
    stop = Event()

    def end(number: int, frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    run_service(settings, stop)


def health(
    file: Annotated[Path, typer.Option(help="The health file of the service.")] = Path("/run/spatialnet-edge/health.json"),
    strict: Annotated[bool, typer.Option("--strict", help="DEGRADED counts as not working.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the whole health file.")] = False,
) -> None:
    """Say whether the service works: exit status 0 if it does, 1 if it does not, 78 if there is none."""
    found = read_health(file)
    working, line = verdict(found)
    typer.echo(file.read_text(encoding="utf-8") if json else line)
    if not working or (strict and found.state != "READY"):
        raise typer.Exit(1)
