"""Optional abilities of sinks are declared by protocols and detected by `isinstance`."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest

from service_fixtures import result
from spatialnet_edge.sinks.log import LogSink
from spatialnet_edge.sinks.memory import NullSink
from spatialnet_edge.sinks.queued import QueuedSink
from spatialnet_edge.sinks.registry import (
    CountsClients,
    CountsLost,
    CountsOverBudget,
    Flushable,
    PixelChoice,
    Reporting,
    open_sink,
)

SDK = Path(__file__).parents[2] / "sdk"
PROTOCOLS = (CountsClients, CountsLost, CountsOverBudget, Flushable, PixelChoice, Reporting)
ALLOWED = {"os", "time", "cv2.utils", "_threads", "image"}
"""Modules, thread-local storage, and Pillow's images: their attributes depend on the system, the thread or the file format."""


def abilities(sink: object) -> set[str]:
    return {protocol.__name__ for protocol in PROTOCOLS if isinstance(sink, protocol)}


def test_sinks_have_the_abilities_that_they_are_used_with(tmp_path: Path) -> None:
    assert abilities(NullSink()) == {"PixelChoice"}
    log = LogSink(str(tmp_path))
    assert abilities(log) == {"PixelChoice", "Flushable", "Reporting", "CountsLost"}
    log.close()
    unix = open_sink(f"unix:{tmp_path}/s")
    assert abilities(unix) == {"PixelChoice", "Flushable", "CountsLost", "CountsOverBudget", "CountsClients"}
    unix.close()
    udp = open_sink("udp://127.0.0.1:9")
    assert abilities(udp) == {"PixelChoice", "Reporting", "CountsLost", "CountsOverBudget"}
    udp.close()


class Able:
    """A sink with every ability."""

    wants_pixels = False
    report: Callable[[str, str], None] | None = None
    lost, missed, turned_away, over_budget = 1, 2, 3, 0

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.flushed = False

    def write(self, each: object) -> None:
        self.sizes.append(each.frame.pixels.size)  # type: ignore[attr-defined]

    def flush(self) -> None:
        self.flushed = True

    def close(self) -> None: ...


class Plain:
    """A sink with none."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def write(self, each: object) -> None:
        self.sizes.append(each.frame.pixels.size)  # type: ignore[attr-defined]

    def close(self) -> None: ...


def test_the_queue_uses_every_ability(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spatialnet_edge.sinks.queued.IDLE_S", 0.02)
    told: list[str] = []
    able = Able()
    queued = QueuedSink(able, wait=True, report=lambda kind, detail: told.append(kind))
    queued.write(result(0))
    for _ in range(200):
        if able.flushed:
            break
        queued._stopping.wait(0.02)
    assert able.report is not None
    able.report("event", "")
    assert queued.figures() == {"dropped": 0, "lost": 1, "missed": 2, "turned_away": 3}
    queued.close()
    assert (able.flushed, told, able.sizes) == (True, ["event"], [0])


def test_a_sink_without_abilities_gets_pixels_and_counts_nothing() -> None:
    plain = Plain()
    queued = QueuedSink(plain, wait=True, report=lambda kind, detail: None)
    queued.write(result(0))
    queued.close()
    assert plain.sizes == [result(0).frame.pixels.size]
    assert plain.sizes[0] > 0
    assert queued.figures() == {"dropped": 0}


def test_no_ability_is_found_by_the_name_of_an_attribute() -> None:
    found = [
        f"{file.relative_to(SDK)}:{node.lineno}"
        for file in SDK.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("getattr", "hasattr")
        and isinstance(node.args[1], ast.Constant)
        and ast.unparse(node.args[0]) not in ALLOWED
    ]
    assert found == []
