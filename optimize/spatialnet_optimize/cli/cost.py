"""The command `cost`: what a model would take on a Jetson, predicted."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from spatialnet_edge.bundle.reader import MODEL, open_bundle
from spatialnet_edge.cli.printer import printer
from spatialnet_edge.core.errors import UsageError
from spatialnet_edge.core.output_paths import to_be_written
from spatialnet_optimize.targets.catalogue import by_power_mode, load_targets
from spatialnet_optimize.targets.roofline import BAND, Cost, layers, predict


def cost(
    bundle: Annotated[str, typer.Argument(help="A .snb file, a bundle directory, or builtin:spatialnet-s.")],
    target: Annotated[
        str, typer.Option(help="One device of 'spatialnet-edge targets'; by default all with known peaks.")
    ] = "",
    targets_file: Annotated[Path | None, typer.Option(help="A TOML file with devices of your own.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the predictions to this file.", callback=to_be_written)] = None,
) -> None:
    """Predict latency from operations and bytes, with its error band. Measure on the device before you rely on it."""
    table_of_targets = load_targets(targets_file)
    known = [name for name, row in table_of_targets.items() if row.tera_ops and row.bandwidth]
    if target and target not in known:
        raise UsageError(
            f"no peaks are known of '{target}'; there are {', '.join(known)}; give your own rows with --targets-file"
        )
    opened = open_bundle(bundle)
    found = layers(opened.read(MODEL))
    size = opened.spec.input
    operations = sum(layer.operations for layer in found)
    title = f"PREDICTED, not measured: {opened.spec.name}, {size.height}×{size.width}, {operations / 1e9:.2f} · 10⁹ operations"
    table = Table("target", "precision", "predicted", f"band (×{BAND:g} either way)", "mostly waits for", title=title)
    costs: list[Cost] = []
    for name in [target] if target else known:
        for mode, row in by_power_mode(name, table_of_targets[name]).items():
            for precision in row.tera_ops:
                each = predict(found, mode, row, precision)
                costs.append(each)
                waits = max(each.bound, key=lambda kind: each.bound[kind])
                band = f"{each.low_ms:.2f} to {each.high_ms:.2f} ms"
                table.add_row(mode, precision, f"{each.ms:.2f} ms", band, f"{waits} ({each.bound[waits]:.0%})")
    printer().print(table)
    if json is not None:
        record = [{"target": c.target, "precision": c.precision, "predicted_ms": round(c.ms, 4), "band": BAND} for c in costs]
        json.write_text(jsonlib.dumps(record, indent=1) + "\n", encoding="utf-8")
