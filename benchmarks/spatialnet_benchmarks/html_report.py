"""HTML report: a result of `bench` as one self-contained page."""

from __future__ import annotations

import base64
import io
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray

from spatialnet_benchmarks.energy import in_words
from spatialnet_training.plots import figure


def write_page(record: dict[str, Any], path: Path) -> None:
    """Write the page."""
    template = files("spatialnet_benchmarks").joinpath("html_report.html.j2").read_text(encoding="utf-8")
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(template)
    path.write_text(page.render(r=record, energy=in_words(record["energy_joules"]), plots=plots(record)), encoding="utf-8")


def plots(record: dict[str, Any]) -> str:
    """Latency, latency over time, tail, jitter, stages and energy, as a base64 PNG."""
    pyplot, made, axes = figure(3, 2, (14, 13))
    made.get_layout_engine().set(h_pad=0.15, w_pad=0.1)
    histogram, timeline, tail, jitter, stages, energy = axes.ravel()
    for name, colour in (("engine", "#2f6f9f"), ("paced", "#b5652a")):
        values = np.array(record["samples"][name])
        if not len(values):
            continue
        histogram.hist(most(values), bins=60, alpha=0.65, color=colour, label=f"{name} (p50 {np.median(values):.2f} ms)")
        timeline.plot(np.linspace(0, 100, len(values)), values, ".", markersize=2, color=colour, label=name)
        ordered = np.sort(values)
        tail.semilogy(ordered, 1 - np.arange(len(ordered)) / len(ordered), color=colour, label=name)
        changes = np.abs(np.diff(values))
        jitter.hist(most(changes), bins=60, alpha=0.65, color=colour, label=f"{name} (mean {changes.mean():.2f} ms)")
    histogram.set(title="Latency", xlabel="ms", ylabel="frames")
    timeline.set(title="Latency over the run (throttling rises to the right)", xlabel="% of the run", ylabel="ms")
    tail.set(title="Tail: share of frames slower than x", xlabel="ms", ylabel="share")
    jitter.set(title="Jitter: change from one frame to the next", xlabel="ms", ylabel="frames")
    for axis in (histogram, timeline, tail, jitter):
        axis.legend(frameon=False, markerscale=6 if axis is timeline else 1)
    draw_stages(stages, record["stages"])
    draw_energy(energy, record["energy_joules"])
    for axis in axes.ravel():
        axis.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    made.savefig(buffer, format="png", dpi=110)
    pyplot.close(made)
    return base64.b64encode(buffer.getvalue()).decode()


def most(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The values without the largest 0.5 %, for a readable histogram; the tail plot shows all."""
    return values[values <= np.percentile(values, 99.5)]


def draw_stages(axis: Any, stages: dict[str, dict[str, float]]) -> None:
    left = 0.0
    for name, colour in zip(
        ("decode", "resize", "engine", "answer"), ("#7a8fa6", "#a9b99a", "#2f6f9f", "#c9a66b"), strict=True
    ):
        width = stages[name]["core_ms"]
        axis.barh([0], [width], left=left, color=colour, label=f"{name} {width:.2f}")
        left += width
    axis.set(title="Core milliseconds per frame, by stage", xlabel="ms", yticks=[], xlim=(0, left * 1.02), ylim=(-1.2, 1.6))
    axis.legend(frameon=False, ncols=2, loc="upper left")


def draw_energy(axis: Any, joules: dict[str, float] | str) -> None:
    axis.set(title="Energy per frame")
    if isinstance(joules, str):
        axis.set(xticks=[], yticks=[])
        axis.text(0.5, 0.5, joules, ha="center", va="center", transform=axis.transAxes, color="#5a6675")
        return
    axis.barh(list(joules), list(joules.values()), color="#2f6f9f", height=0.5)
    axis.set(xlabel="J", ylim=(-1, len(joules)))
