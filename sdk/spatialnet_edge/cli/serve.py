"""The commands `serve` and `health`: run the service, and report its health."""

from __future__ import annotations

from pathlib import Path
from threading import Event
from typing import Annotated

import typer

from spatialnet_edge.cli.json_file import json_option, write_text
from spatialnet_edge.cli.printer import echo
from spatialnet_edge.core.errors import ConfigRefused, Refused, SpatialNetError, UsageError
from spatialnet_edge.core.output_paths import STANDARD_OUTPUT
from spatialnet_edge.core.printable import printable
from spatialnet_edge.service.config import load_service_config, trust_of
from spatialnet_edge.service.diagnostics import last_words, unblock_standard_error
from spatialnet_edge.service.health import read_health, verdict
from spatialnet_edge.service.service import serve as run_service
from spatialnet_edge.service.start_guard import set_by_signals


def serve(
    config: Annotated[Path, typer.Option(help="payload.toml.")],
    check: Annotated[bool, typer.Option("--check", help="Check the configuration and exit.")] = False,
) -> None:
    """Run unattended: reconnecting cameras, self-tests, bundles on trial, a health file. SIGTERM drains and ends it."""
    if check:
        settings = load_service_config(config)
        if problem := trust_of(settings).problem:
            raise ConfigRefused(f"{config}: trust: {problem}; the installed bundle stays in use, and no new one is accepted")
        echo(f"{config}: {len(settings.sources)} source(s); the configuration is valid")
        return
    unblock_standard_error()
    stop = Event()
    set_by_signals(stop)
    try:
        run_service(load_service_config(config), stop)
    except SpatialNetError as error:
        last_words(f"spatialnet-edge: {printable(' '.join(str(error).split()))}")
        wrong = isinstance(error, UsageError)  # a restart does not fix a wrong configuration
        raise typer.Exit(Refused.exit_status if wrong else error.exit_status) from error


def health(
    file: Annotated[Path, typer.Option(help="The health file of the service.")] = Path("/run/spatialnet-edge/health.json"),
    strict: Annotated[bool, typer.Option("--strict", help="Count DEGRADED as not working.")] = False,
    json: Annotated[Path | None, json_option("the complete health file")] = None,
) -> None:
    """Report whether the service works. Exit status 0: a camera has a recent result and a sink accepted it. 1: not. 78: no
    health file."""
    found = read_health(file)
    working, line = verdict(found)
    if json is not None:
        write_text(json, file.read_text(encoding="utf-8"))
    if json != STANDARD_OUTPUT:
        typer.echo(line)
    if not working or (strict and found.state != "READY"):
        raise typer.Exit(1)
