"""The health of a service in Prometheus' text format, for node_exporter's textfile collector (extra `metrics`).

Names follow Prometheus' conventions: base units, `_total` for counters. Counters begin at zero with each start of the service.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, final

from spatialnet_edge.core.atomic_io import write_durably
from spatialnet_edge.core.errors import MissingExtra
from spatialnet_edge.service.health import Health

FILE_MODE = 0o644
"""Mode of the file. node_exporter runs as another user, and the file has no secrets."""
QUANTILES = {"p50": "0.5", "p99": "0.99"}
Labels = Mapping[str, str]
Samples = Iterable[tuple[Labels, float | None]]


def require_prometheus() -> Any:
    """Import the library `prometheus_client`.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        return import_module("prometheus_client")
    except ModuleNotFoundError as error:
        raise MissingExtra("prometheus_client", "metrics") from error


def write_metrics(path: Path, health: Health) -> None:
    """Replace the file, which must end in `.prom` for node_exporter.

    Raises:
        OSError: it cannot be written.
    """
    prometheus = require_prometheus()
    registry: Any = prometheus.CollectorRegistry(auto_describe=False)
    registry.register(HealthCollector(import_module("prometheus_client.core"), health))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, prometheus.generate_latest(registry), sync=False, mode=FILE_MODE)


@final
class HealthCollector:
    """Converts one health file to Prometheus' metric families.

    Args:
        families: the module `prometheus_client.core`.
    """

    def __init__(self, families: Any, health: Health) -> None:
        self._families = families
        self._health = health

    def collect(self) -> Iterator[Any]:
        """Every family with its samples; unknown values have none."""
        health = self._health
        cameras = [({"camera": name}, figures) for name, figures in health.sources.items()]
        yield self._gauge("up_seconds", "Time since the start of the service.", [({}, health.up_s)])
        yield self._gauge("working", "1 if a camera has a recent result that a sink accepted.", [({}, float(health.working))])
        yield self._gauge("state", "1 for the state of the service.", [({"state": health.state}, 1.0)])
        info = {"bundle": health.sha256[:16], "serial": str(health.serial), "engine": health.engine}
        yield self._gauge("model_info", "The bundle in use and its engine.", [(info, 1.0)])
        yield self._gauge("temperature_celsius", "The hottest zone of the computer.", [({}, health.temperature_c)])
        battery = None if health.battery is None else health.battery / 100
        yield self._gauge("battery_ratio", "The weakest battery.", [({}, battery)])
        yield self._counter("golden_rounds", "Rounds of all golden frames that passed.", [({}, health.golden_rounds)])
        yield self._counter("events", "Events by name.", [({"event": name}, n) for name, n in health.events.items()])
        yield self._counter("stderr_lines_dropped", "Lines dropped from standard error.", [({}, health.dropped_lines)])
        yield from self._of_cameras(cameras)

    def _of_cameras(self, cameras: list[tuple[dict[str, str], dict[str, Any]]]) -> Iterator[Any]:
        yield self._gauge(
            "camera_delivering",
            "1 while the camera delivers frames.",
            [(labels, float(found["delivering"])) for labels, found in cameras],
        )
        for name, text in (("captured", "Captured frames."), ("emitted", "Emitted results.")):
            yield self._counter(f"frames_{name}", text, [(labels, found["ledger"][name]) for labels, found in cameras])
        skipped = [
            (labels | {"reason": reason}, count)
            for labels, found in cameras
            for reason, count in found["ledger"]["skipped"].items()
        ]
        yield self._counter("frames_skipped", "Skipped frames by reason.", skipped)
        unlabelled = [
            (labels | {"reason": reason}, count)
            for labels, found in cameras
            for reason, count in found["ledger"]["unlabelled"].items()
        ]
        yield self._counter("frames_unlabelled", "Emitted frames without a label, by reason.", unlabelled)
        shares = [(labels, found["ledger"]["unlabelled_share"]) for labels, found in cameras]
        yield self._gauge(
            "unlabelled_ratio", "Running share of frames without a label: drift of the scene or the camera.", shares
        )
        for name, text in (
            ("age", "Time from capture to result, over the last frames."),
            ("engine", "Inference of one frame."),
        ):
            quantiles = [
                (labels | {"quantile": QUANTILES[key]}, None if value is None else value / 1e3)
                for labels, found in cameras
                for key, value in found[f"{name}_ms"].items()
            ]
            yield self._gauge(f"{name}_seconds", text, quantiles)
        lost = [
            (labels | {"sink": sink, "reason": reason}, count)
            for labels, found in cameras
            for sink, counts in found["sinks"].items()
            for reason, count in counts.items()
        ]
        yield self._counter("results_not_delivered", "Results not delivered to a sink, by reason.", lost)

    def _gauge(self, name: str, text: str, samples: Samples) -> Any:
        return filled(self._families.GaugeMetricFamily, name, text, samples)

    def _counter(self, name: str, text: str, samples: Samples) -> Any:
        return filled(self._families.CounterMetricFamily, name, text, samples)


def filled(family: Any, name: str, text: str, samples: Samples) -> Any:
    """A metric family with its samples."""
    known = [(labels, value) for labels, value in samples if value is not None]
    found = family(f"spatialnet_{name}", text, labels=list(known[0][0]) if known else [])
    for labels, value in known:
        found.add_metric(list(labels.values()), value)
    return found
