"""The report of a build as one self-contained HTML page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from spatialnet_edge.bundle.manifest import BuildRecord, CandidateRecord, LayerSensitivity
from spatialnet_edge.bundle.reader import MODEL, Bundle
from spatialnet_edge.core.errors import UsageError
from spatialnet_edge.core.printable import plot_text
from spatialnet_optimize.targets.catalogue import load_targets
from spatialnet_optimize.targets.roofline import BAND, BANDWIDTH_SHARE, BYTES, PEAK_SHARE, Cost, Layer, layers, predict
from spatialnet_training.plots import figure

ROOFLINE_TARGET = "orin-nano"


def write_page(bundle: Bundle, path: Path) -> None:
    """Write the page.

    Raises:
        UsageError: the bundle was not built, only exported.
    """
    build = bundle.manifest.build
    if build is None:
        raise UsageError(f"{bundle.path}: has no build report; only 'spatialnet-edge build' writes one")
    found = layers(bundle.read(MODEL))
    template = files("spatialnet_optimize.report").joinpath("html_report.html.j2").read_text(encoding="utf-8")
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(template)
    text = page.render(
        name=bundle.spec.name,
        identity=bundle.sha256,
        build=build,
        candidates=candidates_plot(build),
        poor=poor_pictures_plot(build),
        sensitivity=sensitivity_plot(build.sensitivity) if build.sensitivity else "",
        costs=costs_plot(all_costs(found)),
        roofline=roofline_plot(found, ROOFLINE_TARGET),
        band=f"{BAND:g}",
    )
    path.write_text(text, encoding="utf-8")


def all_costs(found: Sequence[Layer]) -> list[Cost]:
    rows = {name: row for name, row in load_targets().items() if row.tera_ops and row.bandwidth}
    return [predict(found, name, row, precision) for name, row in rows.items() for precision in row.tera_ops]


def candidates_plot(build: BuildRecord) -> str:
    """Plot accuracy of each head, size and latency."""
    judged = [each for each in build.candidates if each.accuracy]
    pyplot, made, axes = figure(1, 3, (15, 4.6))
    heads_axis, size_axis, latency_axis = axes[0]
    heads = [*judged[0].accuracy] if judged else []
    width = 0.8 / max(1, len(judged))
    for index, each in enumerate(judged):
        places = np.arange(len(heads)) + (index - (len(judged) - 1) / 2) * width
        heads_axis.bar(places, [100 * each.accuracy[head] for head in heads], width, label=plot_text(each.name))
    heads_axis.set_xticks(range(len(heads)), [plot_text(head).replace(" (", "\n(") for head in heads], fontsize=8)
    lowest = min((value for each in judged for value in each.accuracy.values()), default=0.0)
    heads_axis.set(title="accuracy, mean average precision or 1 − error, %", ylim=(max(0, 100 * lowest - 8), 100.5))
    if judged:
        heads_axis.legend(fontsize=8, loc="lower right")
    bars(size_axis, build.candidates, [each.size / 1e6 for each in build.candidates], "size, MB")
    timed = [each for each in build.candidates if each.latency_ms]
    bars(latency_axis, timed, [each.latency_ms for each in timed], "latency on this computer, ms (p50; whisker: p99)")
    for place, each in enumerate(timed):
        latency_axis.plot([each.latency_ms, each.latency_p99_ms], [place, place], color="black", linewidth=1)
    if not timed:
        latency_axis.text(
            0.5, 0.5, "nothing was timed:\nthe device is not here", ha="center", transform=latency_axis.transAxes
        )
    return encoded(pyplot, made)


def poor_pictures_plot(build: BuildRecord) -> str:
    """Accuracy on corrupted images, and how many pictures without land get no label; empty where neither was measured."""
    corrupted = [each for each in build.candidates if each.corrupted_accuracy is not None]
    not_land = [each for each in build.candidates if each.not_land_withheld is not None]
    if not corrupted and not not_land:
        return ""
    pyplot, made, axes = figure(1, 2, (15, 0.4 * max(len(corrupted), len(not_land)) + 1.6))
    values = [100 * (each.corrupted_accuracy or 0.0) for each in corrupted]
    bars(axes[0, 0], corrupted, values, "mean accuracy on corrupted images, %")
    values = [100 * (each.not_land_withheld or 0.0) for each in not_land]
    bars(axes[0, 1], not_land, values, "pictures without land that get no label, %")
    for axis in axes[0]:
        axis.set_xlim(0, 100)
        axis.bar_label(axis.containers[0], fmt="%.1f", padding=3, fontsize=9)
    return encoded(pyplot, made)


def bars(axis: Any, candidates: Sequence[CandidateRecord], values: Sequence[float], title: str) -> None:
    colours = ["tab:green" if each.chosen else "tab:grey" for each in candidates]
    axis.barh([plot_text(each.name) for each in candidates], values, color=colours)
    axis.invert_yaxis()
    axis.set_title(title)


def sensitivity_plot(curve: Sequence[LayerSensitivity]) -> str:
    """Plot the sensitivity of each layer, in increasing order."""
    pyplot, made, axes = figure(1, 1, (15, 4))
    axis = axes[0, 0]
    colours = ["tab:green" if each.quantised else "tab:red" for each in curve]
    axis.bar(range(len(curve)), [each.change for each in curve], color=colours)
    axis.set_xticks(
        range(len(curve)), [plot_text(each.layer.removeprefix("node_")) for each in curve], rotation=60, ha="right", fontsize=8
    )
    axis.set(ylabel="mean change of a probability", yscale="log", title="green: INT8 in the variant found by the search")
    return encoded(pyplot, made)


def costs_plot(costs: Sequence[Cost]) -> str:
    """Plot predicted latency with its band, for every target and precision."""
    pyplot, made, axes = figure(1, 1, (15, 0.32 * len(costs) + 1.2))
    axis = axes[0, 0]
    names = [f"{each.target} {each.precision}" for each in costs]
    spread = [[each.ms - each.low_ms for each in costs], [each.high_ms - each.ms for each in costs]]
    axis.errorbar([each.ms for each in costs], range(len(costs)), xerr=spread, fmt="o", color="tab:orange", capsize=3)
    axis.set_yticks(range(len(costs)), names, fontsize=9)
    axis.invert_yaxis()
    axis.set(xlabel="ms for one image, predicted", xscale="log", title="PREDICTED, not measured")
    axis.grid(axis="x", alpha=0.3, which="both")
    return encoded(pyplot, made)


def roofline_plot(found: Sequence[Layer], target: str, precision: str = "fp16") -> str:
    """Roofline plot: operations per byte of each layer, and the device's limits."""
    row = load_targets()[target]
    peak, bandwidth = row.tera_ops[precision] * 1e12, row.bandwidth * 1e9
    intensity = np.array([each.operations / (BYTES[precision] * each.elements) for each in found])
    reach = np.geomspace(min(0.1, float(intensity.min())), 1000, 200)
    pyplot, made, axes = figure(1, 1, (15, 4.6))
    axis = axes[0, 0]
    axis.plot(reach, np.minimum(peak, bandwidth * reach) / 1e12, color="black", label="peak of the data sheet")
    realistic = np.minimum(PEAK_SHARE * peak, BANDWIDTH_SHARE * bandwidth * reach) / 1e12
    axis.plot(reach, realistic, color="tab:orange", label="assumed by the prediction")
    limit = np.minimum(PEAK_SHARE * peak, BANDWIDTH_SHARE * bandwidth * intensity) / 1e12
    size = 10 + 290 * np.array([each.operations for each in found]) / max(each.operations for each in found)
    axis.scatter(intensity, limit, s=size, alpha=0.6, label="layers of this model; area: their operations")
    title = f"roofline of {row.description}, {precision} (kernel launches are added)"
    axis.set(xscale="log", yscale="log", xlabel="operations per byte", ylabel="10¹² operations per second", title=title)
    axis.grid(alpha=0.3, which="both")
    axis.legend(fontsize=9)
    return encoded(pyplot, made)


def encoded(pyplot: Any, made: Any) -> str:
    buffer = io.BytesIO()
    made.savefig(buffer, format="png", dpi=80)
    pyplot.close(made)
    return base64.b64encode(buffer.getvalue()).decode()
