"""`install`, `rollback`, `status`: which bundle flies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from spatialnet_edge.bundle.reader import open_bundle
from spatialnet_edge.bundle.slots import CURRENT, MAX_TRIES, PREVIOUS, TRIAL, Slots
from spatialnet_edge.bundle.trust import Trust, open_trust
from spatialnet_edge.core.errors import SpatialNetError

Root = Annotated[Path, typer.Option(help="The folder of the slots.", envvar="SPATIALNET_ROOT")]
ROOT = Path("/var/lib/spatialnet-edge")


def install(
    bundle: Annotated[Path, typer.Argument(help="A .snb file or a bundle directory.")],
    root: Root = ROOT,
    trust: Annotated[Path | None, typer.Option(help="The trust store: a folder of public keys.")] = None,
    allow_unsigned: Annotated[bool, typer.Option("--allow-unsigned", help="An absent or unknown signature will do.")] = False,
) -> None:
    """Put a bundle on trial: the next start of `serve` takes it, and takes it back if it fails."""
    kept = Slots(root).install(bundle, open_trust(trust, allow_unsigned))
    Console().print(
        f"on trial at the next start: {kept.spec.name}, serial {kept.manifest.serial}, {kept.signature}, sha256 {kept.sha256}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip


def rollback(root: Root = ROOT) -> None:
    """Take the trial back; without a trial, return to the bundle that flew before. Takes effect at the next start."""
    path = Slots(root).rollback()
    opened = open_bundle(path, Trust(allow_unsigned=True))
    Console().print(
        f"flies at the next start: {opened.spec.name}, serial {opened.manifest.serial}", highlight=False, soft_wrap=True
    )


def status(root: Root = ROOT, json: Annotated[bool, typer.Option("--json", help="Print the slots as JSON.")] = False) -> None:
    """Show which bundles are installed, verified, and how often the trial was tried."""
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
    if json:
        typer.echo(msgspec.json.format(msgspec.json.encode({"slots": rows, "accepted": slots.state.accepted})))
        return
    table = Table("slot", "model", "serial", "signature", "sha256", title=str(root))
    for row in rows:
        name = f"{row['slot']} (try {row['tries']} of {MAX_TRIES})" if row.get("tries") else str(row["slot"])
        if "refused" in row:
            table.add_row(name, "[red]refused[/]", "", str(row["refused"]), "")
        else:
            table.add_row(name, str(row["model"]), str(row["serial"]), str(row["signature"]), str(row["sha256"])[:16])
    Console().print(table if rows else f"{root}: no bundle is installed")
