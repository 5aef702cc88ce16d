"""Accuracy of every subset of bands, and its gain over the first band group alone, as tables, a plot and a record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from spatialnet_edge.cli.json_file import write_json
from spatialnet_training.plots import plot_intervals
from spatialnet_training.studies.intervals import Interval, over_images, points

WITHHELD, ALONE, FOREST = "one network, others withheld", "trained only on these", "random forest on these"

KINDS = ((WITHHELD, "withheld"), (ALONE, "trained_alone"), (FOREST, "random_forest"))
"""Kinds of training on a subset of the bands, each with its key in the record."""


@dataclass(frozen=True, slots=True)
class Row:
    """The correctly classified validation images with some parts of the bands.

    Attributes:
        kept: names of the parts.
        right: kind of training to bool `[seeds, images]`: `WITHHELD`, optionally `ALONE` and `FOREST`.
        scenes: the scene of each image; intervals are over scenes.
    """

    kept: tuple[str, ...]
    right: dict[str, NDArray[np.bool_]]
    scenes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return " + ".join(self.kept)

    def interval(self, kind: str) -> Interval:
        return over_images(self.right[kind], self.scenes)

    def gain(self, kind: str, base: Row) -> Interval:
        """The difference from another subset, on the same images."""
        return over_images(self.right[kind].mean(axis=0)[None] - base.right[kind].mean(axis=0), self.scenes)


def kinds_of(rows: Sequence[Row]) -> list[str]:
    return [kind for kind, _ in KINDS if kind in rows[0].right]


def table(rows: Sequence[Row], title: str) -> Table:
    """The table for the terminal: accuracy with its interval, and each seed if there are several."""
    made = Table("bands", *kinds_of(rows), title=title)
    for row in rows:
        made.add_row(row.name, *(cell_of(figures(row, kind)) for kind in kinds_of(rows)))
    return made


def first_alone(rows: Sequence[Row]) -> Row | None:
    """The row of the first band group alone, such as colour, against which gains are measured; None if it has no other row yet."""
    return next((row for row in rows[1:] if row.kept == rows[0].kept[:1]), None)


def gains_table(rows: Sequence[Row]) -> Table | None:
    """What is gained over the first band group alone, in points, for the terminal; None with a single subset."""
    base = first_alone(rows)
    if base is None:
        return None
    made = Table("bands", *kinds_of(rows), title=f"points gained over {base.name} alone")
    for row in rows:
        if row is not base:
            made.add_row(row.name, *(points(row.gain(kind, base)) for kind in kinds_of(rows)))
    return made


def markdown(found: Mapping[str, Any]) -> str:
    """The tables of a `record` in Markdown: per cent with the 95 % interval and each seed if there are several, then gains."""
    kinds = [(kind, name) for kind, name in KINDS if name in found]
    text = markdown_table(kinds, found, cell_of)
    if gains := found.get("gains"):
        text += f"\nPoints gained over `{found['gains_over']}` alone:\n\n"
        text += markdown_table(kinds, gains, lambda each: points(interval_of(each)))
    return text


def markdown_table(
    kinds: Sequence[tuple[str, str]], found: Mapping[str, Any], cell: Callable[[Mapping[str, Any]], str]
) -> str:
    """One row per subset, one column per kind of training."""
    lines = [f"| bands | {' | '.join(kind for kind, _ in kinds)} |", "|---" * (len(kinds) + 1) + "|"]
    for subset in found[kinds[0][1]]:
        cells = [cell(found[name][subset]) for _, name in kinds]
        lines.append(f"| {subset.replace('+', ' + ')} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def cell_of(each: Mapping[str, Any]) -> str:
    seeds = "; " + ", ".join(f"{100 * value:.1f}" for value in each["seeds"]) if len(each["seeds"]) > 1 else ""
    return f"{interval_of(each)}{seeds}"


def interval_of(recorded: Mapping[str, Any]) -> Interval:
    """What `bounds` recorded."""
    return Interval(**{name: recorded[name] for name in ("mean", "low", "high") if name in recorded})


def record(rows: Sequence[Row], data_set: str, head: str) -> dict[str, Any]:
    """The record for `--json`: accuracy of each subset by kind of training, 0 to 1, with its interval and seeds, and gains."""
    images = rows[0].right[WITHHELD].shape[1]
    found: dict[str, Any] = {
        "data_set": data_set,
        "head": head,
        "images": images,
        "scenes": len(set(rows[0].scenes)) or images,
    }
    found["accuracy"] = {"+".join(row.kept): float(row.right[WITHHELD].mean()) for row in rows}
    for kind, name in KINDS:
        if kind in rows[0].right:
            found[name] = {"+".join(row.kept): figures(row, kind) for row in rows}
    base = first_alone(rows)
    if base is not None:
        found["gains_over"] = base.name
        found["gains"] = {
            name: {"+".join(row.kept): bounds(row.gain(kind, base)) for row in rows if row is not base}
            for kind, name in KINDS
            if kind in base.right
        }
    return found


def figures(row: Row, kind: str) -> dict[str, Any]:
    seeds = [round(float(each), 5) for each in row.right[kind].mean(axis=1)]
    return bounds(row.interval(kind)) | {"seeds": seeds}


def bounds(each: Interval) -> dict[str, float]:
    shares = {"mean": each.mean, "low": each.low, "high": each.high} if each.known else {"mean": each.mean}
    return {name: round(share, 5) for name, share in shares.items()}


def write(rows: Sequence[Row], data_set: str, head: str, json: Path | None, plot: Path | None) -> None:
    """Write the requested record and plot."""
    write_json(json, record(rows, data_set, head))
    if plot is not None:
        series = {kind: [drawn(row.interval(kind)) for row in rows] for kind in kinds_of(rows)}
        plot_intervals(plot, [row.name for row in rows], series, f"{data_set}: accuracy of {head}")


def drawn(each: Interval) -> tuple[float, float, float]:
    """Mean, low and high for the plot: the mean alone where there is no interval."""
    return (each.mean, each.low, each.high) if each.known else (each.mean, each.mean, each.mean)
