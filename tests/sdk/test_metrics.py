"""The health of a service as Prometheus reads it."""

from pathlib import Path

import pytest

from service_fixtures import start, wait_for
from spatialnet_edge.service.health import Health
from spatialnet_edge.service.metrics import write_metrics

parser = pytest.importorskip("prometheus_client.parser")


def samples(path: Path) -> dict[tuple[str, ...], float]:
    """Each sample under its name and the values of its labels, as Prometheus' own parser reads them."""
    families = parser.text_string_to_metric_families(path.read_text())
    return {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}


def test_a_service_writes_what_node_exporter_reads(payload: Path) -> None:
    path = payload.parent / "textfile" / "spatialnet.prom"
    payload.write_text(payload.read_text().replace("[health]", f'[health]\nmetrics = "{path}"'))
    service = start(payload)
    wait_for(payload.parent / "health.json", lambda found: found.state == "READY" and found.golden_rounds > 0)
    service.terminate()
    assert service.wait(10) == 0
    found = samples(path)
    camera = "synthetic:frames=100000&size=64x48&fps=50"
    emitted = found["spatialnet_frames_emitted_total", camera]
    skipped = sum(value for key, value in found.items() if key[0] == "spatialnet_frames_skipped_total")
    assert emitted > 10
    assert found["spatialnet_frames_captured_total", camera] == emitted + skipped
    assert 0 < found["spatialnet_engine_seconds", camera, "0.5"] <= found["spatialnet_engine_seconds", camera, "0.99"] < 1
    assert found["spatialnet_age_seconds", camera, "0.99"] > 0
    assert found["spatialnet_golden_rounds_total",] >= 1
    assert found["spatialnet_state", "STOPPED"] == 1
    assert found["spatialnet_results_not_delivered_total", camera, "dropped", "null"] == 0
    assert path.stat().st_mode & 0o777 == 0o644
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_names_with_quotes_and_unknown_figures_are_written_as_the_format_says(tmp_path: Path) -> None:
    ledger = {"captured": 1, "emitted": 0, "skipped": {"frozen": 1}, "unlabelled": {"unknown": 3}, "unlabelled_share": 0.6}
    figures = {
        "delivering": False,
        "ledger": ledger,
        "age_ms": {"p50": None, "p99": None},
        "engine_ms": {"p50": None, "p99": None},
        "sinks": {},
    }
    health = Health(
        state="SAFE", why=(), pid=1, boot="b", at_s=1, up_s=1, unix=1, temperature_c=71.5, sources={'a"b\\c\nd': figures}
    )
    write_metrics(tmp_path / "x.prom", health)
    found = samples(tmp_path / "x.prom")
    assert found["spatialnet_temperature_celsius",] == 71.5
    assert found["spatialnet_frames_skipped_total", 'a"b\\c\nd', "frozen"] == 1
    assert found["spatialnet_frames_unlabelled_total", 'a"b\\c\nd', "unknown"] == 3
    assert found["spatialnet_unlabelled_ratio", 'a"b\\c\nd'] == 0.6
    assert not any(key[0] in ("spatialnet_age_seconds", "spatialnet_battery_ratio") for key in found)
