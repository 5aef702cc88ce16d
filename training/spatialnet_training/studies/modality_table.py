"""Accuracy of every subset of bands, as a table, a plot and a record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from spatialnet_edge.cli.json_file import write_json
from spatialnet_training.plots import plot_intervals
from spatialnet_training.studies.intervals import Interval, over_images

WITHHELD, ALONE, FOREST = "one network, others withheld", "trained only on these", "random forest on these"

KINDS = ((WITHHELD, "withheld"), (ALONE, "trained_alone"), (FOREST, "random_forest"))
"""Kinds of training on a subset of the bands, each with its key in the record."""


@dataclass(frozen=True, slots=True)
class Row:
    """The correctly classified validation images with some parts of the bands.

    Attributes:
        kept: names of the parts.
        right: kind of training to bool `[seeds, images]`: `WITHHELD`, optionally `ALONE` and `FOREST`.
    """

    kept: tuple[str, ...]
    right: dict[str, NDArray[np.bool_]]

    @property
    def name(self) -> str:
        return " + ".join(self.kept)

    def interval(self, kind: str) -> Interval:
        return over_images(self.right[kind])


def kinds_of(rows: Sequence[Row]) -> list[str]:
    return [kind for kind, _ in KINDS if kind in rows[0].right]


def table(rows: Sequence[Row], title: str) -> Table:
    """The table for the terminal: accuracy with its interval, and each seed if there are several."""
    made = Table("bands", *kinds_of(rows), title=title)
    for row in rows:
        made.add_row(row.name, *(cell(row, kind) for kind in kinds_of(rows)))
    return made


def cell(row: Row, kind: str) -> str:
    return cell_of(figures(row.right[kind]))


def markdown(found: Mapping[str, Any]) -> str:
    """The table of a `record` in Markdown: per cent with the 95 % interval, and each seed if there are several."""
    kinds = [(kind, name) for kind, name in KINDS if name in found]
    lines = [f"| bands | {' | '.join(kind for kind, _ in kinds)} |", "|---" * (len(kinds) + 1) + "|"]
    for subset in found[kinds[0][1]]:
        cells = [cell_of(found[name][subset]) for _, name in kinds]
        lines.append(f"| {subset.replace('+', ' + ')} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def cell_of(each: Mapping[str, Any]) -> str:
    seeds = "; " + ", ".join(f"{100 * value:.1f}" for value in each["seeds"]) if len(each["seeds"]) > 1 else ""
    return f"{Interval(each['mean'], each['low'], each['high'])}{seeds}"


def record(rows: Sequence[Row], data_set: str, head: str) -> dict[str, Any]:
    """The record for `--json`: accuracy of each subset by kind of training, 0 to 1, with its interval and seeds."""
    found: dict[str, Any] = {"data_set": data_set, "head": head, "images": rows[0].right[WITHHELD].shape[1]}
    found["accuracy"] = {"+".join(row.kept): row.interval(WITHHELD).mean for row in rows}
    for kind, name in KINDS:
        if kind in rows[0].right:
            found[name] = {"+".join(row.kept): figures(row.right[kind]) for row in rows}
    return found


def figures(right: NDArray[np.bool_]) -> dict[str, Any]:
    interval = over_images(right)
    seeds = [round(float(each), 5) for each in right.mean(axis=1)]
    return {"mean": round(interval.mean, 5), "low": round(interval.low, 5), "high": round(interval.high, 5), "seeds": seeds}


def write(rows: Sequence[Row], data_set: str, head: str, json: Path | None, plot: Path | None) -> None:
    """Write the requested record and plot."""
    write_json(json, record(rows, data_set, head))
    if plot is not None:
        series = {kind: [(i.mean, i.low, i.high) for i in (row.interval(kind) for row in rows)] for kind in kinds_of(rows)}
        plot_intervals(plot, [row.name for row in rows], series, f"{data_set}: accuracy of {head}")
