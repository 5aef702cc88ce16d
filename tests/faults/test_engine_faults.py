"""Engines with wrong outputs, hangs or crashes: they never give a label, and never block the service."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from conftest import SIDE, TINY, tiny_graph, write_tiny_bundle
from spatialnet_edge.api import load
from spatialnet_edge.bundle.manifest import EngineRecord
from spatialnet_edge.bundle.reader import Bundle, open_bundle
from spatialnet_edge.bundle.writer import file_records, write_bundle
from spatialnet_edge.core.errors import EngineError, EngineUnavailable, RunError
from spatialnet_edge.core.frames import Frame, Skipped
from spatialnet_edge.engines.batching import BatchingEngine
from spatialnet_edge.engines.fake import FakeEngine
from spatialnet_edge.engines.registry import CheckedEngine, Engine, load_backend, open_engine
from spatialnet_edge.runtime.engine_handle import EngineHandle
from spatialnet_edge.runtime.golden import golden_vectors
from spatialnet_edge.runtime.output_monitor import MAX_CONSTANT
from spatialnet_edge.runtime.pipeline import Hooks, Pipeline
from spatialnet_edge.service.config import LimitsSection
from spatialnet_edge.service.integrity_monitor import IntegrityMonitor
from spatialnet_edge.service.throttle import Conditions, Throttle, conditions
from spatialnet_edge.service.watchdog import notify


class Frames:
    """Different frames, `count` of them."""

    uri, length, fps, live = "frames", None, None, False

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Iterator[Frame | Skipped]:
        noise = np.random.default_rng(0)
        for seq in range(self.count):
            yield Frame(noise.integers(60, 200, (SIDE, SIDE, 3), np.uint8), seq, "frames")

    def close(self) -> None: ...


class WeightsInMemory:
    """The tiny model with accessible weights in memory, so that bits can be flipped."""

    reentrant = True
    spec = TINY

    def __init__(self) -> None:
        self._engine = load_backend("onnxruntime").open(tiny_graph(), TINY, 1)
        self.gain = np.ones(1, np.float32)

    def infer(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        answers = self._engine.infer(np.clip(batch * self.gain, 0, 255).astype(np.uint8))
        return {name: np.array(values) for name, values in answers.items()}

    def flip(self, bit: int) -> None:
        self.gain.view(np.uint32)[0] ^= np.uint32(1 << bit)

    def close(self) -> None: ...


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny.snb")


def sentinel_of(
    bundle: Bundle, engine: Engine, reload: Callable[[], Engine], period_s: float = 0.0
) -> tuple[IntegrityMonitor, list[str]]:
    handle, events = EngineHandle(CheckedEngine(engine)), list[str]()
    return IntegrityMonitor(
        golden_vectors(bundle), handle, period_s, lambda: handle.replace(reload()), lambda kind, detail: events.append(kind)
    ), events


def whole_round(integrity: IntegrityMonitor) -> None:
    for _ in range(8):
        integrity.watch()


@pytest.mark.fault(30)
@pytest.mark.parametrize("bit", [22, 24, 30])
def test_a_bit_flipped_in_memory_is_found_and_the_engine_reloaded_once(bundle: Bundle, bit: int) -> None:
    engine, fresh = WeightsInMemory(), WeightsInMemory()
    integrity, events = sentinel_of(bundle, engine, lambda: CheckedEngine(fresh))
    for _ in range(16):
        integrity.watch()
    assert (integrity.rounds, events) == (2, [])
    engine.flip(bit)
    whole_round(integrity)
    assert events == ["golden_failed", "unverified", "engine_reloaded"]
    fresh.flip(bit)
    with pytest.raises(EngineError, match="does not run it correctly"):
        whole_round(integrity)


@pytest.mark.fault(30)
def test_checksums_find_a_flip_before_the_golden_frames_do() -> None:
    student = open_bundle("builtin:student")
    frames, _ = student.golden()

    def held() -> Engine:
        return open_engine(student, inspectable_weights=True).engine

    engine = EngineHandle(held())
    memory = engine.weights
    assert sum(map(len, memory)) > 7_000_000
    plain = open_engine(student).engine.infer(frames)
    before = {name: np.array(values) for name, values in engine.infer(frames).items()}
    assert all(np.allclose(values, plain[name], atol=1e-5) for name, values in before.items())
    events: list[str] = []
    integrity = IntegrityMonitor(
        golden_vectors(student),
        engine,
        3600,
        lambda: engine.replace(held()),
        lambda kind, detail: events.append(kind),
        scrub_s=0.001,
    )
    for _ in range(3):
        time.sleep(0.002)
        integrity.watch()
    assert events == []
    largest = max(memory, key=len)
    largest[len(largest) // 2 & ~3 | 2] ^= 0x40  # the first bit of a mantissa: the engine reads this memory
    assert any(not np.array_equal(values, before[name]) for name, values in engine.infer(frames).items())
    time.sleep(0.002)
    integrity.watch()
    assert events == ["weights_changed", "unverified", "engine_reloaded"]
    time.sleep(0.002)
    integrity.watch()
    assert len(events) == 3
    engine.close()


@pytest.mark.fault(30)
def test_a_reload_that_does_not_help_ends_the_process(bundle: Bundle) -> None:
    broken = WeightsInMemory()
    broken.flip(24)
    integrity, _ = sentinel_of(bundle, broken, lambda: CheckedEngine(broken))
    with pytest.raises(EngineError, match="after reloading"):
        whole_round(integrity)


@pytest.mark.fault(30)
def test_results_since_the_last_complete_round_are_unverified(bundle: Bundle) -> None:
    engine = WeightsInMemory()
    told: list[str] = []
    handle = EngineHandle(CheckedEngine(engine))
    integrity = IntegrityMonitor(
        golden_vectors(bundle),
        handle,
        0.0,
        lambda: handle.replace(CheckedEngine(WeightsInMemory())),
        lambda kind, detail: told.append(detail),
    )
    whole_round(integrity)
    verified = integrity.verified_ns
    engine.flip(24)
    emitted = time.monotonic_ns()
    whole_round(integrity)
    assert verified < emitted
    assert f"since monotonic {verified} ns" in told[1]


@pytest.mark.fault(30)
def test_golden_tests_need_no_disk(tmp_path: Path) -> None:
    """The card may not be readable when an engine's outputs become suspicious."""
    with load(write_tiny_bundle(tmp_path / "tiny.snb").path) as model:
        (tmp_path / "tiny.snb").unlink()
        model.require_still_golden(EngineError("three odd answers"))


@pytest.mark.fault(31)
@pytest.mark.parametrize("wrong", [np.nan, np.inf, 7.0])
def test_three_invalid_outputs_start_the_golden_test_and_a_reload(bundle: Bundle, wrong: float) -> None:
    good = WeightsInMemory()

    def spoilt(batch: np.ndarray) -> dict[str, np.ndarray]:
        return good.infer(batch) | {"shade": np.full((len(batch), 2), wrong, np.float32)}

    integrity, events = sentinel_of(bundle, FakeEngine(TINY, spoilt), lambda: CheckedEngine(good))
    pipeline = Pipeline(integrity.engine, hooks=Hooks(on_suspect_output=integrity.on_suspect_output))
    results = list(pipeline.stream(Frames(20)))
    assert events == ["golden_failed", "unverified", "engine_reloaded"]
    assert results
    assert all(0 <= result.shade.confidence <= 1 for result in results)
    assert 3 <= pipeline.ledger.skipped["invalid_output"] <= 6
    assert pipeline.ledger.in_flight == 0


@pytest.mark.fault(31)
def test_constant_outputs_are_suspicious() -> None:
    constant = {
        "shade": np.array([[0.3, 0.7]], np.float32),
        "bands": np.full((1, 3), 0.5, np.float32),
        "level": np.array([[9]], np.float32),
    }
    pipeline = Pipeline(CheckedEngine(FakeEngine(TINY, lambda batch: constant)))
    emitted = []
    with pytest.raises(EngineError, match="bit for bit"):
        emitted.extend(iter(pipeline.stream(Frames(100))))
    assert pipeline.ledger.emitted == MAX_CONSTANT
    assert pipeline.ledger.in_flight == 0


@pytest.mark.fault(31)
def test_a_working_engine_is_kept_after_suspicious_outputs(bundle: Bundle) -> None:
    integrity, events = sentinel_of(bundle, WeightsInMemory(), WeightsInMemory)
    integrity.on_suspect_output(EngineError("three invalid answers"))
    assert events == ["doubt"]


@pytest.mark.fault(31)
def test_suspicious_outputs_are_tested_without_the_disk(tmp_path: Path) -> None:
    """The disk may be full, worn out, or hold another bundle; this is independent of the engine."""
    bundle = write_tiny_bundle(tmp_path / "tiny.snb")
    integrity, events = sentinel_of(bundle, WeightsInMemory(), WeightsInMemory)
    bundle.path.unlink()
    integrity.on_suspect_output(EngineError("three invalid answers"))
    assert events == ["doubt"]


@pytest.mark.fault(31)
def test_a_uniform_scene_is_emitted_once_the_golden_test_has_passed(bundle: Bundle) -> None:
    """Open sea: different frames, identical outputs, and a working engine."""
    same = WeightsInMemory().infer(np.full((1, SIDE, SIDE, 3), 40, np.uint8))
    integrity, events = sentinel_of(bundle, WeightsInMemory(), WeightsInMemory)
    pipeline = Pipeline(
        CheckedEngine(FakeEngine(TINY, lambda batch: same)), hooks=Hooks(on_suspect_output=integrity.on_suspect_output)
    )
    assert len(list(pipeline.stream(Frames(100)))) == 100
    assert events == ["doubt"]


HANGS = """
import sys, time, numpy as np
from conftest import TINY
from spatialnet_edge.engines.registry import CheckedEngine
from spatialnet_edge.engines.fake import FakeEngine
from spatialnet_edge.bundle.manifest import EngineRecord
from spatialnet_edge.runtime.pipeline import Hooks, Pipeline
from spatialnet_edge.service.watchdog import Watchdog, notify
from spatialnet_edge.sources.registry import open_source

calls = 0
def answer(batch):
    global calls
    calls += 1
    if calls > 30:
        time.sleep(3600)
    return engine._by_brightness(batch)

engine = FakeEngine(TINY, answer)
watchdog = Watchdog(["lane"], hang_s=1.5)
pipeline = Pipeline(CheckedEngine(engine), "latest", hooks=Hooks(tick=lambda: watchdog.beat("lane")))
for result in pipeline.stream(open_source("synthetic:frames=10000&size=64x48&fps=30")):
    pass
"""


@pytest.mark.fault(32)
def test_an_engine_that_hangs_starves_the_watchdog_and_ends_the_process(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    beats: list[float] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(address)
        server.settimeout(0.2)
        started = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-c", HANGS], env=os.environ | {"NOTIFY_SOCKET": address, "PYTHONPATH": "tests"},
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        while process.poll() is None and time.monotonic() - started < 30:
            try:
                assert server.recv(100) == b"WATCHDOG=1"
                beats.append(time.monotonic())
            except TimeoutError:
                pass
    _, errors = process.communicate()
    assert process.returncode == 1
    assert "Timeout (0:00:01.500000)!" in errors
    assert "answer" in errors  # where it hung
    assert len(beats) >= 2
    assert time.monotonic() - beats[-1] > 1.0


def test_without_systemd_nobody_is_notified(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert notify("READY=1") is False


@pytest.mark.fault(25)
def test_another_library_version_falls_back_or_refuses_as_the_operator_chose(tiny_path: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    plain = open_bundle(tiny_path)
    plan = EngineRecord(path="engines/plan", backend="tensorrt_rtx", precision="fp16", library_version="0.1", portable=False)
    files = {record.path: plain.read(record.path) for record in plain.manifest.files} | {"engines/plan": b"plan"}
    manifest = msgspec.structs.replace(plain.manifest, files=file_records(files), engines=(plan,))
    bundle = write_bundle(tmp_path / "plan.snb", manifest, files)
    opened = open_engine(bundle)
    assert opened.record.backend == "onnxruntime"
    assert "0.1" in opened.rejected[0]
    with pytest.raises(EngineUnavailable, match=r"TensorRT for RTX 0\.1"):
        open_engine(bundle, fallback=False)


@pytest.mark.fault(36)
def test_a_hot_computer_classifies_fewer_frames_until_it_is_cool() -> None:
    celsius = 95.0
    events: list[str] = []
    throttle = Throttle(
        LimitsSection(hot_c=90, cool_c=80, slow_hz=5),
        lambda kind, detail: events.append(kind),
        lambda: Conditions(celsius, None),
    )
    frame = Frame(np.zeros((SIDE, SIDE, 3), np.uint8), 0, "camera")
    throttle.watch()
    assert throttle.slowed
    admitted = 0
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        admitted += throttle.admit(frame) == ""
        time.sleep(0.01)
    assert 4 <= admitted <= 6
    for celsius, slowed in ((85.0, True), (79.0, False), (85.0, False)):
        throttle._looked = 0.0
        throttle.watch()
        assert throttle.slowed is slowed, celsius
    assert events == ["hot", "hot_over"]
    assert all(throttle.admit(frame) == "" for _ in range(10))


@pytest.mark.fault(36)
def test_temperature_and_battery_are_read_from_the_kernel(tmp_path: Path) -> None:
    zones = {
        "thermal/thermal_zone0/temp": "45000\n",
        "thermal/thermal_zone1/temp": "61500\n",
        "thermal/thermal_zone2/temp": "?",
    }
    for name, text in (zones | {"power_supply/BAT0/capacity": "71\n"}).items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    assert conditions(tmp_path) == Conditions(61.5, 71.0)
    assert conditions(tmp_path / "nothing") == Conditions(None, None)


def test_a_low_battery_slows_too_and_in_the_pipeline_the_rest_is_degraded() -> None:
    throttle = Throttle(LimitsSection(low_battery=20, slow_hz=1), lambda kind, detail: None, lambda: Conditions(None, 10.0))
    throttle.watch()
    pipeline = Pipeline(CheckedEngine(FakeEngine(TINY)), hooks=Hooks(admit=throttle.admit))
    assert len(list(pipeline.stream(Frames(50)))) == 1
    assert pipeline.ledger.skipped == {"degraded": 49}


@pytest.mark.fault(36)
def test_a_pipeline_that_skips_every_frame_resets_the_watchdog() -> None:
    """With one frame per minute at low power, the watchdog must not expire between two frames."""
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        ticks += 1

    pipeline = Pipeline(CheckedEngine(FakeEngine(TINY)), hooks=Hooks(tick, admit=lambda frame: "degraded"))
    assert list(pipeline.stream(Frames(50))) == []
    assert pipeline.ledger.skipped == {"degraded": 50}
    assert ticks >= 50


@pytest.mark.parametrize(("drop", "emitted"), [(False, 5), (True, 0)])
def test_late_frames_are_marked_or_dropped_as_chosen(drop: bool, emitted: int) -> None:
    pipeline = Pipeline(CheckedEngine(FakeEngine(TINY, delay_s=0.03)), deadline_s=0.01, drop_late=drop)
    results = list(pipeline.stream(Frames(5)))
    assert len(results) == emitted
    assert all(result.late for result in results)
    assert pipeline.ledger.skipped == ({"late": 5} if drop else {})


def test_frames_in_time_are_not_late() -> None:
    pipeline = Pipeline(CheckedEngine(FakeEngine(TINY)), deadline_s=5, drop_late=True)
    assert [result.late for result in pipeline.stream(Frames(5))] == [False] * 5


def test_streams_share_batches_and_get_their_own_results() -> None:
    sizes: list[int] = []

    def answer(batch: np.ndarray) -> dict[str, np.ndarray]:
        sizes.append(len(batch))
        time.sleep(0.01)
        return plain._by_brightness(batch)

    plain = FakeEngine(TINY)
    shared = BatchingEngine(CheckedEngine(FakeEngine(TINY, answer)), most=4, wait_s=0.05)
    found: dict[int, list[float]] = {}

    def stream(level: int) -> None:
        image = np.full((1, SIDE, SIDE, 3), level, np.uint8)
        found[level] = [float(shared.infer(image)["level"][0, 0]) for _ in range(20)]

    threads = [threading.Thread(target=stream, args=(level,)) for level in (10, 60, 110, 160)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shared.close()
    assert {level: set(map(round, values)) for level, values in found.items()} == {n: {n} for n in (10, 60, 110, 160)}
    assert max(sizes) == 4
    assert sum(sizes) == 80
    with pytest.raises(EngineError, match="closed"):
        shared.infer(np.zeros((1, SIDE, SIDE, 3), np.uint8))


def test_a_single_frame_waits_at_most_the_limit() -> None:
    shared = BatchingEngine(CheckedEngine(FakeEngine(TINY)), most=8, wait_s=0.05)
    started = time.monotonic()
    shared.infer(np.zeros((1, SIDE, SIDE, 3), np.uint8))
    assert 0.04 < time.monotonic() - started < 0.5
    shared.close()


def test_an_error_in_a_batch_is_raised_for_all_its_callers() -> None:
    def fail(batch: np.ndarray) -> dict[str, np.ndarray]:
        raise EngineError("out of order")

    shared = BatchingEngine(FakeEngine(TINY, fail), most=2, wait_s=0.0)
    with pytest.raises(RunError, match="out of order"):
        shared.infer(np.zeros((1, SIDE, SIDE, 3), np.uint8))
    shared.close()
