"""How a network answers when groups of bands are missing."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from spatialnet_edge.cli.printer import printer
from spatialnet_edge.core.errors import UsageError
from spatialnet_edge.core.spec import BandGroup
from spatialnet_training.data.dataset_registry import data_sets
from spatialnet_training.data.datasets import load_split
from spatialnet_training.data.samples import Samples, judging_side
from spatialnet_training.data.taxonomy import load_taxonomy
from spatialnet_training.loop.trainer import WithPresence, accuracies, predict
from spatialnet_training.networks.checkpoint import load_network


def withheld(groups: tuple[BandGroup, ...]) -> list[tuple[str, ...]]:
    """Which groups to withhold: none, each alone, all but each, in that order and without repetition."""
    names = tuple(group.name for group in groups)
    sets = [(), *combinations(names, 1), *combinations(names, len(names) - 1)]
    return list(dict.fromkeys(sets))


def judge(checkpoint: Path, samples: Samples, size: int) -> list[tuple[tuple[str, ...], dict[str, float]]]:
    """For each choice of missing groups, the accuracy of every head that the samples can judge."""
    network, spec, _ = load_network(checkpoint)
    found: list[tuple[tuple[str, ...], dict[str, float]]] = []
    for missing in withheld(spec.input.groups):
        seen = WithPresence(network, [group.name not in missing for group in spec.input.groups])
        found.append((missing, accuracies(predict(seen, samples, size, spec.input.groups), samples)))
    return found


def modalities(
    checkpoint: Annotated[Path, typer.Argument(help="The folder of a run with several groups of bands.")],
    data_root: Annotated[Path, typer.Option(help="The folder that holds the data sets.")],
    data_set: Annotated[str, typer.Option(help="Whose validation images judge it.")] = "eurosat",
) -> None:
    """Withhold groups of bands one by one, and say what is still answered right."""
    _, spec, _ = load_network(checkpoint)
    names = [group.name for group in spec.input.groups]
    if len(names) < 2:
        raise UsageError(f"{checkpoint}: takes one group of bands, {', '.join(names)}; there is nothing to withhold")
    head = f"land_use_{data_set}"
    if head not in {each.name for each in spec.heads}:
        raise UsageError(f"{checkpoint}: has no head '{head}'; it has {', '.join(each.name for each in spec.heads)}")
    samples = load_split(data_sets(data_root, data_set), load_taxonomy(), "val", judging_side(spec.input), spec.input.groups)
    own = Samples(samples.images, {head: samples.targets[head]}, samples.data_set, samples.data_sets)
    table = Table("withheld", f"{head}, accuracy", title=f"{spec.name} on {len(own)} validation images of {data_set}")
    for missing, figures in judge(checkpoint, own, spec.input.height):
        table.add_row(" + ".join(missing) or "nothing", f"{figures[head]:.1%}")
    printer().print(table)
