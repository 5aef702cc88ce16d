"""The commands `install`, `rollback` and `status`: the installed bundles and the active one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from spatialnet_edge.bundle.reader import open_bundle
from spatialnet_edge.bundle.slots import CURRENT, MAX_TRIES, PREVIOUS, TRIAL, Slots
from spatialnet_edge.bundle.trust import Trust, open_trust
from spatialnet_edge.cli.json_file import json_option, write_json
from spatialnet_edge.cli.printer import echo, printer
from spatialnet_edge.cli.tables import folded_table
from spatialnet_edge.core.errors import SpatialNetError
from spatialnet_edge.core.output_paths import STANDARD_OUTPUT
from spatialnet_edge.service.config import load_service_config

Root = Annotated[Path, typer.Option(help="The folder of the slots.", envvar="SPATIALNET_ROOT")]
ROOT = Path("/var/lib/spatialnet-edge")


def install(
    bundle: Annotated[Path, typer.Argument(help="A .snb file or a bundle directory.")],
    root: Root = ROOT,
    trust: Annotated[Path | None, typer.Option(help="The trust store: a folder of public keys.")] = None,
    allow_unsigned: Annotated[bool, typer.Option("--allow-unsigned", help="Accept an absent or unknown signature.")] = False,
    config: Annotated[Path | None, typer.Option(help="payload.toml: read root, trust and compatible models from it.")] = None,
    rebuild_state: Annotated[
        bool,
        typer.Option(
            "--rebuild-state",
            help="When both copies of the slot state are damaged: read the highest serials from the installed bundles.",
        ),
    ] = False,
) -> None:
    """Install a bundle on trial: the next start of `serve` runs it, and rolls it back if it fails."""
    compatible: tuple[str, ...] = ()
    if config is not None:
        settings = load_service_config(config)
        root, compatible = Path(settings.root), settings.compatible
        trust = trust or (Path(settings.trust) if settings.trust else None)
        allow_unsigned = allow_unsigned or settings.allow_unsigned
    slots = Slots(root)
    if rebuild_state:
        slots.rebuild_state()
    kept = slots.install(bundle, open_trust(trust, allow_unsigned), compatible)
    echo(
        f"on trial at the next start: {kept.spec.name}, serial {kept.manifest.serial}, {kept.signature}, sha256 {kept.sha256}"
    )


def rollback(root: Root = ROOT) -> None:
    """Roll back the trial; without a trial, return to the previous bundle. Takes effect at the next start."""
    path = Slots(root).rollback()
    opened = open_bundle(path, Trust(allow_unsigned=True))
    echo(f"active at the next start: {opened.spec.name}, serial {opened.manifest.serial}")


def status(root: Root = ROOT, json: Annotated[Path | None, json_option("the slots")] = None) -> None:
    """Verify and list the installed bundles, with the number of tries of the trial."""
    slots = Slots(root)
    rows: list[dict[str, str | int]] = []
    for name in (CURRENT, PREVIOUS, TRIAL):
        if slots.target(name) is None:
            continue
        try:
            opened = open_bundle(root / name, open_trust(allow_unsigned=True))
        except SpatialNetError as error:
            rows.append({"slot": name, "refused": str(error)})
            continue
        row = {"slot": name, "model": opened.spec.name, "serial": opened.manifest.serial, "signature": opened.signature}
        rows.append(row | {"sha256": opened.sha256, "tries": slots.state.tries if name == TRIAL else 0})
    state = slots.state
    write_json(json, {"slots": rows, "accepted": state.accepted, "state_complete": state.complete})
    if json == STANDARD_OUTPUT:
        return
    table = folded_table(("slot", "model", "serial", "signature", "sha256"), str(root))
    for row in rows:
        name = f"{row['slot']} (try {row['tries']} of {MAX_TRIES})" if row.get("tries") else str(row["slot"])
        if "refused" in row:
            table.add_row(name, Text("refused", style="red"), "", str(row["refused"]), "")
        else:
            table.add_row(name, str(row["model"]), str(row["serial"]), str(row["signature"]), str(row["sha256"])[:16])
    printer().print(table if rows else f"{root}: no bundle is installed")
    if not slots.state.complete:
        printer().print(
            "the highest serials are unknown because both copies of the state are damaged; see 'install --rebuild-state'"
        )
