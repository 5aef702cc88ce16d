"""`spatialnet-edge recalibrate`: calibrate a finished network on poor pictures too, so that its confidence falls with its accuracy.

Calibrated on sharp images alone, a network is as sure of a foggy picture as of a clear one, and wrong.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from msgspec.structs import replace
from rich.table import Table
from torch import Tensor

from spatialnet_edge.cli.printer import echo, printer
from spatialnet_edge.core.spec import ModelSpec, Multiclass
from spatialnet_training.data.datasets import ground_sides, with_gsd
from spatialnet_training.lineage import continued
from spatialnet_training.networks.checkpoint import load_checkpoint_config, load_network, save_network
from spatialnet_training.networks.checkpoint_paths import checkpoint_to_be_written, located
from spatialnet_training.studies.poor_calibration import Confident, confident, recalibrated
from spatialnet_training.studies.poor_views import AS_IT_IS, DEGRADED, Views, held_out, observe


def recalibrate_checkpoint(checkpoint: Path, root: Path, output: Path, seed: int) -> Table:
    """Write the recalibrated checkpoint, and say what became of confident answers.

    Raises:
        DataRefused: see `held_out`.
        Refused: the checkpoint cannot be read.
    """
    network, spec, provenance = load_network(checkpoint)
    samples = held_out(spec, root)
    views = observe(network, spec, samples, seed)
    before = torch.ones(len(views.found), 1) if network.image_temperature is None else network.image_temperature(views.found)
    made, fitted, of_image = recalibrated(spec, views)
    network.image_temperature = made
    sides = ground_sides(samples, [*provenance.image_counts])
    fitted = replace(fitted, heads=tuple(with_gsd(head, sides, spec.input.height) for head in fitted.heads))
    provenance = continued(provenance, "recalibrated on degraded and corrupted held-out images")
    save_network(output, network.eval(), load_checkpoint_config(checkpoint).backbone, fitted, provenance)
    return report(spec, fitted, views, before.detach(), of_image)


def report(old: ModelSpec, new: ModelSpec, views: Views, before: Tensor, after: Tensor) -> Table:
    """Confident answers of each head at each severity: how many, and how many of them are right, before and after."""
    table = Table(
        "head", "severity", "confident", "of these right", "now confident", "of these right", title="held-out training images"
    )
    names = {AS_IT_IS: "as it is", DEGRADED: "degraded"}
    for head, changed in zip(old.heads, new.heads, strict=True):
        if not isinstance(head, Multiclass) or not views.judge(head):
            continue
        was, now = confident(head, views, before), confident(changed, views, after)
        for severity in was:
            shown = (f(each) for each in (was[severity], now[severity]) for f in (_share, _right))
            table.add_row(head.name, names.get(severity, str(severity)), *shown)
    return table


def _share(each: Confident) -> str:
    return f"{each.share:.0%}"


def _right(each: Confident) -> str:
    return "" if each.right is None else f"{each.right:.1%} of {each.count}"


def recalibrate(
    checkpoint: Annotated[Path, typer.Argument(help="The folder of a training run, or the name of a shipped checkpoint.")],
    data_root: Annotated[Path, typer.Option(help="The folder that holds the data sets.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder to write the checkpoint to.", callback=checkpoint_to_be_written)
    ] = Path("recalibrated"),
    seed: Annotated[int, typer.Option(help="Seed of the corruptions.")] = 0,
) -> None:
    """Calibrate a network on poor pictures too, so that its confidence falls with its accuracy; no label changes."""
    printer().print(recalibrate_checkpoint(located(str(checkpoint)), data_root, output, seed))
    echo(output)
