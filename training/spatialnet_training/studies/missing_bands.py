"""Accuracy of a network with every subset of a data set's band groups."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from spatialnet_edge.cli.printer import printer
from spatialnet_edge.core.bands import present_groups
from spatialnet_edge.core.errors import DataRefused, UsageError
from spatialnet_edge.core.output_paths import to_be_written
from spatialnet_edge.core.spec import BandGroup
from spatialnet_training.data.dataset_registry import data_sets
from spatialnet_training.data.datasets import load_split
from spatialnet_training.data.measured_sets import MEASURED
from spatialnet_training.data.samples import Samples, judging_side
from spatialnet_training.data.taxonomy import load_taxonomy
from spatialnet_training.loop.trainer import WithPresence, accuracies, predict
from spatialnet_training.networks.checkpoint import load_network


@dataclass(frozen=True, slots=True)
class Subset:
    """The accuracy of one head, 0 to 1, with only these groups."""

    groups: tuple[str, ...]
    accuracy: float


def subsets(names: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Every non-empty subset, the largest first."""
    return [chosen for size in range(len(names), 0, -1) for chosen in combinations(names, size)]


def groups_of(samples: Samples, groups: tuple[BandGroup, ...]) -> tuple[str, ...]:
    """The band groups of a data set's images."""
    present = present_groups(np.stack([image[:16, :16] for image in samples.images]), groups).mean(axis=0) > 0.5
    return tuple(group.name for group, there in zip(groups, present, strict=True) if there)


def judge(checkpoint: Path, samples: Samples, size: int) -> list[Subset]:
    """The accuracy for each subset of the groups that the images have; `samples` has targets for one head."""
    network, spec, _ = load_network(checkpoint)
    (head,) = samples.targets
    found: list[Subset] = []
    for kept in subsets(groups_of(samples, spec.input.groups)):
        seen = WithPresence(network, [group.name in kept for group in spec.input.groups])
        found.append(Subset(kept, accuracies(predict(seen, samples, size, spec.input.groups), samples)[head]))
    return found


def head_of(data_set: str) -> str:
    """The head of a data set's classes."""
    row = MEASURED.get(data_set)
    if row is None:
        return f"land_use_{data_set}"
    return row.head.name if row.head is not None else f"land_use_{row.taxonomy}"


def source_of(root: Path, data_set: str) -> Path:
    """The path of a data set below the data root.

    Raises:
        UsageError: no such data set.
        DataRefused: its file is missing.
    """
    if data_set not in MEASURED:
        return data_sets(root, data_set)[data_set]
    path = root / MEASURED[data_set].file
    if not path.exists():
        raise DataRefused(f"{path}: no such file; give the folder that holds the data sets with --data-root")
    return path


def modalities(
    checkpoint: Annotated[Path, typer.Argument(help="The folder of a run with several band groups.")],
    data_root: Annotated[Path, typer.Option(help="The folder that holds the data sets.")],
    data_set: Annotated[str, typer.Option(help="The data set for the evaluation.")] = "eurosat",
    output: Annotated[
        Path | None, typer.Option("--json", callback=to_be_written, help="Also write the results to this file.")
    ] = None,
) -> None:
    """Evaluate a network with missing band groups."""
    _, spec, _ = load_network(checkpoint)
    names = [group.name for group in spec.input.groups]
    if len(names) < 2:
        raise UsageError(f"{checkpoint}: has a single band group, {', '.join(names)}; nothing can be withheld")
    head = head_of(data_set)
    if head not in {each.name for each in spec.heads}:
        raise UsageError(f"{checkpoint}: has no head '{head}'; it has {', '.join(each.name for each in spec.heads)}")
    source = {data_set: source_of(data_root, data_set)}
    samples = load_split(source, load_taxonomy(), "val", judging_side(spec.input), spec.input.groups)
    own = Samples(samples.images, {head: samples.targets[head]}, samples.data_set, samples.data_sets)
    found = judge(checkpoint, own, spec.input.height)
    table = Table("seen", "accuracy", title=f"{spec.name}, head {head}: {len(own)} validation images of {data_set}")
    for each in found:
        table.add_row(" + ".join(each.groups), f"{each.accuracy:.1%}")
    printer().print(table)
    if output is not None:
        accuracy = {"+".join(each.groups): each.accuracy for each in found}
        record = {"data_set": data_set, "head": head, "images": len(own), "accuracy": accuracy}
        output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
