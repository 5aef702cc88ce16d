"""Accuracy with every subset of a data set's bands.

For one network that was trained with dropped groups, and with `--train-alone` for networks and random forests trained only on
the subset.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from spatialnet_edge.cli.json_file import console_beside, json_option
from spatialnet_edge.cli.option_values import names as names_in
from spatialnet_edge.cli.printer import printer
from spatialnet_edge.core.bands import present_groups
from spatialnet_edge.core.errors import UsageError
from spatialnet_edge.core.output_paths import STANDARD_OUTPUT, to_be_written
from spatialnet_edge.core.spec import BandGroup
from spatialnet_training.cli.configs import read_config
from spatialnet_training.data.bands import groups_named
from spatialnet_training.data.dataset_registry import data_sets
from spatialnet_training.data.datasets import load_published, load_split
from spatialnet_training.data.measured_sets import head_of, scene_of
from spatialnet_training.data.samples import Samples, judging_side
from spatialnet_training.data.taxonomy import load_taxonomy
from spatialnet_training.loop.prediction import predict
from spatialnet_training.networks.checkpoint import load_network
from spatialnet_training.networks.checkpoint_paths import located
from spatialnet_training.studies.modality_table import ALONE, FOREST, WITHHELD, Row, gains_table, table, write
from spatialnet_training.studies.trained_alone import Right, Study, forests_alone, networks_alone


@dataclass(frozen=True, slots=True)
class Subset:
    """The accuracy of one head, 0 to 1, with only these groups.

    Attributes:
        right: the correctly classified images, bool `[1, images]`.
    """

    groups: tuple[str, ...]
    accuracy: float
    right: Right


def subsets(names: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Every non-empty subset, the largest first."""
    return [chosen for size in range(len(names), 0, -1) for chosen in combinations(names, size)]


def groups_of(samples: Samples, groups: tuple[BandGroup, ...]) -> tuple[str, ...]:
    """The band groups of a data set's images."""
    present = present_groups(np.stack([image[:16, :16] for image in samples.images]), groups).mean(axis=0) > 0.5
    return tuple(group.name for group, there in zip(groups, present, strict=True) if there)


def judge(checkpoint: Path, samples: Samples, size: int, parts: tuple[BandGroup, ...] = ()) -> list[Subset]:
    """The accuracy for each subset of the parts; `samples` has targets for one head.

    Args:
        parts: to withhold; empty: the network's groups that the images have.
    """
    network, spec, _ = load_network(checkpoint)
    (head,) = samples.targets
    chosen = parts or groups_named(groups_of(samples, spec.input.groups))
    found: list[Subset] = []
    for kept in subsets(tuple(part.name for part in chosen)):
        bands = [band for part in chosen if part.name in kept for band in part.bands]
        logits = predict(network, with_bands(samples, spec.input.groups, bands), size, spec.input.groups)
        right = logits[head].argmax(dim=1).numpy() == samples.targets[head]
        found.append(Subset(kept, float(right.mean()), np.asarray(right)[None]))
    return found


def with_bands(samples: Samples, groups: Sequence[BandGroup], kept: Sequence[str]) -> Samples:
    """The same samples with all other bands zero, as for a missing sensor."""
    mask = np.array([band in kept for group in groups for band in group.bands], np.uint8)
    return replace(samples, images=[image * mask for image in samples.images])


def modalities(
    checkpoint: Annotated[
        Path, typer.Argument(help="The folder of a run with several band groups, or the name of a shipped checkpoint.")
    ],
    data_root: Annotated[Path, typer.Option(help="The folder that holds the data sets.")],
    data_set: Annotated[str, typer.Option(help="The data set for the evaluation.")] = "eurosat",
    parts: Annotated[
        str, typer.Option(help="Bands or groups to withhold, such as vv,vh. Default: the groups of the data set.")
    ] = "",
    train_alone: Annotated[
        bool, typer.Option("--train-alone", help="Also train networks and random forests on each single subset.")
    ] = False,
    repeats: Annotated[int, typer.Option(min=1, help="With --train-alone: runs per subset, each with a seed of its own.")] = 3,
    config: Annotated[str, typer.Option(help="With --train-alone: configuration of the runs.")] = "studies/modalities",
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override that configuration: key=value.")] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="With --train-alone: folder for the runs; the same one resumes.")
    ] = Path("runs/modalities"),
    json: Annotated[Path | None, json_option("the results")] = None,
    plot: Annotated[Path | None, typer.Option(callback=to_be_written, help="Draw them to this file (.png).")] = None,
) -> None:
    """Evaluate a network with missing band groups."""
    checkpoint = located(str(checkpoint))
    _, spec, _ = load_network(checkpoint)
    names = [group.name for group in spec.input.groups]
    if len(names) < 2 and not parts:
        raise UsageError(f"{checkpoint}: has a single band group, {', '.join(names)}; nothing can be withheld")
    head = head_of(data_set)
    if head not in {each.name for each in spec.heads}:
        raise UsageError(f"{checkpoint}: has no head '{head}'; it has {', '.join(each.name for each in spec.heads)}")
    source = data_sets(data_root, data_set)
    own = only_head(load_split(source, load_taxonomy(), "val", judging_side(spec.input), spec.input.groups), head)
    chosen = groups_named(names_in(parts))
    if unknown := [
        band for part in chosen for band in part.bands if band not in [b for g in spec.input.groups for b in g.bands]
    ]:
        raise UsageError(f"--parts {parts}: this network has no band '{unknown[0]}'")
    found = judge(checkpoint, own, spec.input.height, chosen)
    scenes = tuple(scene_of(name) for name in own.names)
    rows = [Row(each.groups, {WITHHELD: each.right}, scenes) for each in found]
    if train_alone:
        chosen = groups_named(found[0].groups)
        base = read_config(config, tuple(set_ or ()))
        data = load_published(source, judging_side(spec.input), chosen)
        val = only_head(load_split(source, load_taxonomy(), "val", judging_side(spec.input), chosen), head)
        data = replace(data, heads=tuple(each for each in data.heads if each.name == head))
        data = replace(data, train=only_head(data.train, head), holdout=only_head(data.holdout, head))
        study = Study(data_set, data, val, chosen, base, output, repeats)
        for index, row in enumerate(rows):
            printer(stderr=True).print(f"{row.name}: {index + 1} of {len(rows)}")
            row.right[ALONE], row.right[FOREST] = networks_alone(study, row.kept), forests_alone(study, row.kept)
            if json != STANDARD_OUTPUT:  # what is known so far, should the next run fail
                write(rows[: index + 1], data_set, head, json, None)
    count = len(set(scenes))
    images = f"{len(own)} validation images of {data_set}, {f'from {count} scenes' if count > 1 else 'all of one scene'}"
    console_beside(json).print(table(rows, f"{spec.name}, head {head}: {images}"))
    if gains := gains_table(rows):
        console_beside(json).print(gains)
    write(rows, data_set, head, json, plot)


def only_head(samples: Samples, head: str) -> Samples:
    """The same samples with the targets of one head."""
    return replace(samples, targets={head: samples.targets[head]})
