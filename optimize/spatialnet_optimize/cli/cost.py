"""The command `cost`: predicted latency of a model on Jetson devices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from spatialnet_edge.bundle.reader import MODEL, open_bundle
from spatialnet_edge.cli.json_file import console_beside, json_option, write_json
from spatialnet_edge.core.errors import UsageError
from spatialnet_optimize.targets.catalogue import by_power_mode, load_targets
from spatialnet_optimize.targets.roofline import BAND, Cost, layers, predict


def cost(
    bundle: Annotated[str, typer.Argument(help="A .snb file, a bundle directory, or builtin:spatialnet-s.")],
    target: Annotated[
        str, typer.Option(help="One device of 'spatialnet-edge targets'. Default: all with known peak rates.")
    ] = "",
    targets_file: Annotated[Path | None, typer.Option(help="A TOML file with your own devices.")] = None,
    json: Annotated[Path | None, json_option("the predictions")] = None,
) -> None:
    """Predict latency from operations and bytes, with its error band. Measure on the device before you rely on it."""
    table_of_targets = load_targets(targets_file)
    known = [name for name, row in table_of_targets.items() if row.tera_ops and row.bandwidth]
    if target and target not in known:
        raise UsageError(
            f"the peak rates of '{target}' are unknown; available: {', '.join(known)}; give your own rows with --targets-file"
        )
    opened = open_bundle(bundle)
    found = layers(opened.read(MODEL))
    size = opened.spec.input
    operations = sum(layer.operations for layer in found)
    title = f"PREDICTED, not measured: {opened.spec.name}, {size.height}×{size.width}, {operations / 1e9:.2f} · 10⁹ operations"
    costs = [
        [predict(found, mode, row, precision) for precision in row.tera_ops]
        for name in ([target] if target else known)
        for mode, row in by_power_mode(name, table_of_targets[name]).items()
    ]
    console = console_beside(json)
    console.print(cost_table(costs, title))
    if all(each.bound["launch"] > ALMOST_ALL for row in costs for each in row[1:]):
        console.print(
            f"Below FP32 this model waits for the start of its {len(found)} kernels: precision and power mode change "
            "little, fewer layers or larger batches more.",
            soft_wrap=True,
        )
    record = [
        {"target": c.target, "precision": c.precision, "predicted_ms": round(c.ms, 4), "band": BAND, "bound": c.bound}
        for row in costs
        for c in row
    ]
    write_json(json, record)


ALMOST_ALL = 0.9
LIMITS = {"launch": "starting kernels", "memory": "memory", "arithmetic": "arithmetic"}


def cost_table(costs: Sequence[Sequence[Cost]], title: str) -> Table:
    """One row for each target and power mode, with the time and the limit of each precision."""
    limit = Column(f"limited by; band: ×{BAND:g} either way", overflow="fold")
    table = Table(Column("target", no_wrap=True), "precision", Column("ms", justify="right"), limit, title=title)
    for row in costs:
        for each in row:
            largest = max(each.bound, key=lambda kind: each.bound[kind])
            name = each.target if each is row[0] else ""
            table.add_row(name, each.precision, f"{each.ms:.2f}", f"{LIMITS[largest]} ({each.bound[largest]:.0%})")
    return table
