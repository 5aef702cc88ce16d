"""Plots of a run: curves, confusion matrices, robustness."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.core.printable import plot_text


@dataclass(frozen=True, slots=True)
class Confusion:
    """Confusion matrix of a head.

    Attributes:
        table: counts `[labels, labels]`, rows are the truth.
    """

    title: str
    labels: tuple[str, ...]
    table: NDArray[np.int64]


def plot_intervals(
    path: Path, names: Sequence[str], series: Mapping[str, Sequence[tuple[float, float, float]]], title: str
) -> None:
    """Shares with their intervals, one row a name and one mark a series.

    Args:
        series: name to (mean, low, high) for each of `names`, 0 to 1.
    """
    pyplot, made, axes = figure(1, 1, (8, 0.9 + 0.38 * len(names)))
    axis = axes[0, 0]
    for index, (label, values) in enumerate(series.items()):
        mean, low, high = (100 * np.array(each) for each in zip(*values, strict=True))
        places = np.arange(len(names)) + 0.2 * (index - (len(series) - 1) / 2)
        axis.errorbar(mean, places, xerr=[mean - low, high - mean], fmt="os^D"[index % 4], capsize=3, label=label)
    axis.set(
        yticks=range(len(names)), yticklabels=names, xlabel="accuracy in per cent, with its interval of 95 %", title=title
    )
    axis.invert_yaxis()
    axis.grid(axis="x", alpha=0.3)
    axis.legend(fontsize="small")
    made.savefig(path, dpi=130)
    pyplot.close(made)


def figure(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, Any, NDArray[Any]]:
    """pyplot with a non-interactive backend, a figure and its axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    matplotlib.rcParams["font.family"] = list(fonts()[0])
    made, axes = pyplot.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    return pyplot, made, axes


FONTS = ("DejaVu Sans", "Noto Sans CJK JP", "Noto Sans CJK SC", "WenQuanYi Micro Hei", "IPAGothic", "Arial Unicode MS")
"""Fonts to try, in this order; the first comes with matplotlib and has no Chinese, Japanese or Korean characters."""


@lru_cache(maxsize=1)
def fonts() -> tuple[tuple[str, ...], frozenset[int]]:
    """The installed fonts of `FONTS`, and all characters that they have."""
    from matplotlib import font_manager

    there = {entry.name: entry.fname for entry in font_manager.fontManager.ttflist}
    names = tuple(name for name in FONTS if name in there)
    characters = [font_manager.get_font(there[name]).get_charmap() for name in names]
    return names, frozenset(code for each in characters for code in each)


def drawable(label: str, index: int) -> str:
    """A drawable label; if no font has its characters, its number."""
    return label if all(ord(c) in fonts()[1] for c in label) else f"class {index}"


def plot_confusions(path: Path, confusions: Sequence[Confusion]) -> None:
    """Plot confusion matrices side by side, in per cent of the true class; nothing without matrices."""
    if not confusions:
        path.unlink(missing_ok=True)
        return
    columns = min(2, len(confusions))
    rows = ceil(len(confusions) / columns)
    pyplot, made, axes = figure(rows, columns, (8.5 * columns, 8 * rows))
    for axis in axes.flat[len(confusions) :]:
        axis.axis("off")
    for axis, each in zip(axes.flat, confusions, strict=False):
        share = 100 * each.table / each.table.sum(axis=1, keepdims=True).clip(min=1)
        axis.imshow(share, cmap="Blues", vmin=0, vmax=100)
        shown = [plot_text(drawable(label, index)) for index, label in enumerate(each.labels)]
        axis.set_xticks(range(len(shown)), shown, rotation=90)
        axis.set_yticks(range(len(shown)), shown)
        axis.set(title=plot_text(each.title), xlabel="answer", ylabel="truth")
        size = 9 if len(share) <= 10 else 6.5
        for row, column in zip(*np.nonzero(share >= 0.5), strict=True):
            colour = "white" if share[row, column] > 55 else "black"
            axis.text(column, row, f"{share[row, column]:.0f}", ha="center", va="center", color=colour, fontsize=size)
    made.savefig(path, dpi=70)
    pyplot.close(made)


def read_log(log: Path) -> list[dict[str, float]]:
    """The rows of a run's `log.csv`."""
    with log.open(encoding="utf-8", newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def plot_curves(path: Path, log: Path) -> None:
    """Plot loss and held-out accuracy over the epochs."""
    rows = read_log(log)
    epochs = [row["epoch"] for row in rows]
    pyplot, made, axes = figure(1, 2, (13, 4.5))
    left, right = axes[0]
    left.plot(epochs, [row["loss"] for row in rows], color="tab:red", marker="." if len(rows) < 30 else None)
    left.set(title="training loss", xlabel="epoch")
    marker = "." if len(rows) < 30 else None
    for kind, style, words in (("holdout/", "-", "held out"), ("val/", "--", "validation")):
        for key in sorted(key for key in rows[0] if key.startswith(kind)):
            label = f"{key.removeprefix(kind)}, {words}"
            right.plot(epochs, [100 * row[key] for row in rows], style, label=label, marker=marker, clip_on=False)
    right.set(title="accuracy, averaged weights", xlabel="epoch", ylabel="%")
    right.set_ylim(top=100)  # limits from the worst head: one point matters if all are above ninety
    if right.lines:  # without held-out and validation images there are none
        right.legend(fontsize=8)
    for axis in (left, right):
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        for before, after in pairwise(rows):
            if before["size"] != after["size"]:
                axis.axvline(before["epoch"] + 0.5, color="grey", linestyle="--")
                place = (before["epoch"] + 0.7, 0.02)
                axis.annotate(f"{after['size']:.0f} px", place, xycoords=axis.get_xaxis_transform(), fontsize=8, color="grey")
    made.savefig(path, dpi=80)
    pyplot.close(made)


def plot_robustness(path: Path, accuracy: Mapping[str, Mapping[tuple[str, int], float]]) -> None:
    """Plot accuracy under each corruption, one line per severity.

    Args:
        accuracy: title of a plot to (corruption, severity) to accuracy, 0 to 1.
    """
    columns = min(3, max(1, len(accuracy)))
    rows = ceil(max(1, len(accuracy)) / columns)
    pyplot, made, axes = figure(rows, columns, (5 * columns, 3.6 * rows))
    for axis in axes.flat[len(accuracy) :]:
        axis.axis("off")
    for axis, (title, figures) in zip(axes.flat, accuracy.items(), strict=False):
        names = list(dict.fromkeys(name for name, _ in figures))
        for severity in sorted({severity for _, severity in figures}):
            axis.plot(names, [100 * figures[name, severity] for name in names], marker="o", label=f"severity {severity}")
        axis.tick_params(axis="x", rotation=40)
        axis.set(title=title, ylim=(0, 101), ylabel="accuracy, %")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    made.savefig(path, dpi=70)
    pyplot.close(made)


def plot_risk(path: Path, coverages: Sequence[float], risk: Mapping[str, Sequence[float]]) -> None:
    """Share of wrong answers against the share of images answered, the most confident first: one line for each entry of `risk`.

    Args:
        coverages: shares of the answers, 0 to 1.
        risk: name of a line to the share of wrong answers at each of them, 0 to 1.
    """
    pyplot, made, axes = figure(1, 1, (7, 4.2))
    axis = axes[0, 0]
    for name, values in risk.items():
        axis.plot([100 * each for each in coverages], [100 * each for each in values], marker=".", label=plot_text(name))
    axis.set(xlabel="answered, most confident first, %", ylabel="wrong, %", title="risk and coverage on corrupted images")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    made.savefig(path, dpi=70)
    pyplot.close(made)
