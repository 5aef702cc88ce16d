"""The command `targets`: the devices that a bundle can be built for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group
from rich.table import Column, Table
from rich.text import Text

from spatialnet_edge.cli.printer import printer
from spatialnet_edge.core.printable import printable
from spatialnet_optimize.targets.catalogue import HERE, Target, load_targets


def targets(
    targets_file: Annotated[Path | None, typer.Option(help="A TOML file with your own devices.")] = None,
) -> None:
    """List the devices that a bundle can be built for."""
    table = Table(Column("target", style="bold", no_wrap=True), "device", box=None, pad_edge=False)
    table.add_row(HERE, "This computer: its GPU if TensorRT is installed, otherwise its CPU")
    for name, row in load_targets(targets_file).items():
        table.add_row(name, Group(row.description, *(Text(printable(line), style="dim") for line in details(row))))
    printer().print(table)


def details(row: Target) -> list[str]:
    """Details of a device, one line each: precisions, software, hardware, speed."""
    software = [f"TensorRT {' to '.join(dict.fromkeys(row.tensorrt))}"] if row.tensorrt else []
    software += [f"JetPack {row.jetpack}"] if row.jetpack else []
    hardware = [f"compute capability {', '.join(row.compute_capability)}"] if row.compute_capability else []
    hardware += [f"{row.memory_gb:g} GB"] if row.memory_gb else []
    hardware += [f"{row.bandwidth:g} GB/s"] if row.bandwidth else []
    hardware += [f"DLA cores: {row.dla}"] if row.dla else []
    speed = [f"{precision} {value:g}" for precision, value in row.tera_ops.items()]
    lines = [
        f"variants: {', '.join(row.precisions)}" if row.precisions else "predicted by 'cost' only; cannot be built for",
        "; ".join(software),
        "; ".join(hardware),
        f"peak, 10¹² operations/s (dense): {', '.join(speed)}" if speed else "",
    ]
    return [line for line in lines if line]
