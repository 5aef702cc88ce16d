"""A result of `bench` as one self-contained HTML page, for a design review."""

from __future__ import annotations

import base64
import io
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from spatialnet_training.plots import figure


def write_page(record: dict[str, Any], path: Path) -> None:
    """Write the page."""
    template = files("spatialnet_benchmarks").joinpath("page.html.j2").read_text(encoding="utf-8")
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(template)
    path.write_text(page.render(r=record, plots=plots(record)), encoding="utf-8")


def plots(record: dict[str, Any]) -> str:
    """Histogram, latency over time, stages stacked and the tail, as a base64 PNG."""
    pyplot, made, axes = figure(2, 2, (14, 8.4))
    samples = {name: np.array(values) for name, values in record["samples"].items() if len(values)}
    histogram, timeline, stages, tail = axes.ravel()
    for name, colour in (("engine", "#2f6f9f"), ("paced", "#b5652a")):
        if name not in samples:
            continue
        values = samples[name]
        shown = values[values <= np.percentile(values, 99.5)]
        histogram.hist(shown, bins=60, alpha=0.65, color=colour, label=f"{name} (p50 {np.median(values):.2f} ms)")
        timeline.plot(np.linspace(0, 100, len(values)), values, ".", markersize=2, color=colour, label=name)
        ordered = np.sort(values)
        share = 1 - np.arange(len(ordered)) / len(ordered)
        tail.semilogy(ordered, share, color=colour, label=name)
    histogram.set(title="Latency", xlabel="ms", ylabel="frames")
    timeline.set(title="Over time: throttling would rise to the right", xlabel="% of the run", ylabel="ms")
    tail.set(title="The tail: share of frames slower than …", xlabel="ms", ylabel="share")
    for axis in (histogram, timeline, tail):
        axis.legend(frameon=False)
    left = 0.0
    for name, colour in zip(
        ("decode", "resize", "engine", "answer"), ("#7a8fa6", "#a9b99a", "#2f6f9f", "#c9a66b"), strict=True
    ):
        width = record["stages"][name]["core_ms"]
        stages.barh([0], [width], left=left, color=colour, label=f"{name} {width:.2f}")
        left += width
    stages.set(title="Core milliseconds of a frame, by stage", xlabel="ms", yticks=[], xlim=(0, left * 1.02), ylim=(-1.2, 1.6))
    stages.legend(frameon=False, ncols=2, loc="upper left")
    for axis in axes.ravel():
        axis.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    made.savefig(buffer, format="png", dpi=110)
    pyplot.close(made)
    return base64.b64encode(buffer.getvalue()).decode()
