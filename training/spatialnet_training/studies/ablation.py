"""Ablation: the same short run with one change of the network or recipe at a time.

Evaluated on held-out training images, so that the published validation images are not used for choices.
"""

from __future__ import annotations

import json as jsonlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from msgspec.structs import replace
from rich.table import Table

from spatialnet_edge.cli.option_values import names as names_in
from spatialnet_edge.cli.printer import printer
from spatialnet_edge.core.errors import UsageError
from spatialnet_training.cli.configs import read_config
from spatialnet_training.config import TrainConfig
from spatialnet_training.data.bands import groups_named
from spatialnet_training.data.dataset_registry import data_sets
from spatialnet_training.data.datasets import TrainingData, load_published
from spatialnet_training.loop.run_inputs import stored_side
from spatialnet_training.loop.run_result import LOG
from spatialnet_training.loop.training_run import train
from spatialnet_training.plots import read_log
from spatialnet_training.studies.intervals import Interval, over_seeds, points

BASE = "as it is"


def variants(base: TrainConfig) -> Iterator[tuple[str, TrainConfig]]:
    """The variants: a name, and the configuration with one change."""
    yield BASE, base
    yield "16×16 patches instead of the convolutional stem", replace(base, backbone="student-1m/patches")
    yield "no transformer blocks", replace(base, backbone="student-1m/no-attention")
    yield "no positions", replace(base, backbone="student-1m/no-positions")
    yield "four registers", replace(base, backbone="student-1m/registers")
    yield "mean pooling instead of one query per head", replace(base, backbone="student-1m/mean-pooling")
    yield "crops of a single scale", replace(base, least_crop=1.0)
    yield "no mixing of images", replace(base, mixup_share=0.0, cutmix_share=0.0)
    yield "uncertainty weighting", replace(base, balance="uncertainty")


@dataclass(frozen=True, slots=True)
class Outcome:
    """A variant's accuracy on held-out images, 0 to 1: the mean over the data sets' own heads, per seed."""

    name: str
    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        return float(np.mean(self.accuracies))


def accuracy(log: Path, data_sets: Sequence[str]) -> float:
    """The accuracy of the last epoch: the mean over the data sets' own heads."""
    last = read_log(log)[-1]
    return float(np.mean([last[f"holdout/land_use_{name}"] for name in data_sets]))


def chosen_variants(base: TrainConfig, names: Sequence[str]) -> dict[str, TrainConfig]:
    """The variants of these names, after the base; all of them without names.

    Raises:
        UsageError: there is no such variant.
    """
    found = dict(variants(base))
    if unknown := [name for name in names if name not in found]:
        raise UsageError(f"--variants: there is no variant '{unknown[0]}'; the variants are: {', '.join(found)}")
    return {name: config for name, config in found.items() if not names or name == BASE or name in names}


def compare(chosen: Mapping[str, TrainConfig], data: TrainingData, out: Path, seeds: int) -> Iterator[Outcome]:
    """Train every chosen variant with every seed; finished runs are reused."""
    for name, config in chosen.items():
        folder = out / "".join(c if c.isalnum() else "-" for c in name)
        found: list[float] = []
        for seed in range(seeds):
            train(replace(config, seed=seed), data, folder / str(seed), f"ablation: {name}")
            found.append(accuracy(folder / str(seed) / LOG, data.train.data_sets))
        yield Outcome(name, tuple(found))


def gain(outcome: Outcome, base: Outcome) -> str:
    """Points against the base, with Student's interval of 95 % over the pairs of runs with one seed."""
    found = over_seeds(np.array(outcome.accuracies) - np.array(base.accuracies))
    return points(Interval(found.mean) if outcome is base else found)


def markdown(outcomes: Sequence[Outcome]) -> str:
    lines = ["| variant | accuracy % | against the first line | each seed |", "|---|---|---|---|"]
    for each in outcomes:
        seeds = ", ".join(f"{100 * value:.1f}" for value in each.accuracies)
        lines.append(f"| {each.name} | {100 * each.mean:.1f} | {gain(each, outcomes[0])} | {seeds} |")
    return "\n".join(lines) + "\n"


def ablate(
    data_root: Annotated[Path, typer.Option(help="The folder that holds the data sets.")],
    config: Annotated[str, typer.Option(help="Configuration of the run to vary.")] = "studies/ablation",
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override the configuration: key=value.")] = None,
    only: Annotated[
        str, typer.Option("--variants", help="Names of some variants, comma-separated. Default: all; the first always runs.")
    ] = "",
    repeats: Annotated[int, typer.Option(min=1, help="Runs per variant, each with a seed of its own.")] = 3,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the runs and the table, ablation.md.")] = Path(
        "runs/ablation"
    ),
) -> None:
    """Train short runs with one change each, and print the effect of each change."""
    base = read_config(config, tuple(set_ or ()))
    chosen = chosen_variants(base, names_in(only))
    console = printer(stderr=True)
    paths = data_sets(data_root, ",".join(base.data))
    data = load_published(paths, stored_side(base), groups_named(base.groups))
    outcomes: list[Outcome] = []
    for outcome in compare(chosen, data, output, repeats):
        outcomes.append(outcome)
        console.print(f"{outcome.name}: {outcome.mean:.1%}")
    table = Table("variant", "accuracy", "against the first line", title=f"{repeats} seeds, held-out training images")
    for each in outcomes:
        table.add_row(each.name, f"{each.mean:.1%}", gain(each, outcomes[0]))
    printer().print(table)
    (output / "ablation.md").write_text(markdown(outcomes), encoding="utf-8")
    (output / "ablation.json").write_text(jsonlib.dumps({e.name: e.accuracies for e in outcomes}) + "\n", encoding="utf-8")
