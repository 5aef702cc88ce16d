"""`serve` and `health`: a service, and how it is."""

from __future__ import annotations

from pathlib import Path
from threading import Event
from typing import Annotated

import typer

from spatialnet_edge.cli.printer import echo
from spatialnet_edge.core.errors import Refused, SpatialNetError, UsageError
from spatialnet_edge.core.printable import printable
from spatialnet_edge.service.config import load_service_config
from spatialnet_edge.service.diagnostics import last_words, unblock_standard_error
from spatialnet_edge.service.health import read_health, verdict
from spatialnet_edge.service.service import serve as run_service
from spatialnet_edge.service.start_guard import set_by_signals


def serve(
    config: Annotated[Path, typer.Option(help="payload.toml.")],
    check: Annotated[bool, typer.Option("--check", help="Check the configuration and stop.")] = False,
) -> None:
    """Run unattended: cameras that come back, self-tests, bundles on trial, a health file. SIGTERM drains and ends it."""
    if check:
        settings = load_service_config(config)
        echo(f"{config}: {len(settings.sources)} source(s); the configuration is sound")
        return
    unblock_standard_error()
    stop = Event()
    set_by_signals(stop)
    try:
        run_service(load_service_config(config), stop)
    except SpatialNetError as error:
        last_words(f"spatialnet-edge: {printable(' '.join(str(error).split()))}")
        wrong = isinstance(error, UsageError)  # whatever is wrong in the configuration, a restart will not help
        raise typer.Exit(Refused.exit_status if wrong else error.exit_status) from error


def health(
    file: Annotated[Path, typer.Option(help="The health file of the service.")] = Path("/run/spatialnet-edge/health.json"),
    strict: Annotated[bool, typer.Option("--strict", help="DEGRADED counts as not working.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the whole health file.")] = False,
) -> None:
    """Say whether the service works: exit status 0 if a camera has a recent result and a sink takes it, 1 if not, 78 if there is no
    health file."""
    found = read_health(file)
    working, line = verdict(found)
    typer.echo(file.read_text(encoding="utf-8") if json else line)
    if not working or (strict and found.state != "READY"):
        raise typer.Exit(1)
