"""`TensorRtEngine` and the loading of plans, with a simulated TensorRT on the stand-in of the driver."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import msgspec
import numpy as np
import pytest
import tensorrt
from standin_fixtures import ILLEGAL_ADDRESS, OUT_OF_MEMORY, Driver

from conftest import SIDE, TINY, tiny_graph
from spatialnet_edge.bundle.manifest import EngineRecord
from spatialnet_edge.core.errors import EngineError, EngineUnavailable
from spatialnet_edge.core.frames import Frame, Skipped
from spatialnet_edge.engines.devices.registry import open_device
from spatialnet_edge.engines.output_validation import CheckedEngine
from spatialnet_edge.engines.registry import load_backend
from spatialnet_edge.engines.tensorrt import TensorRtEngine
from spatialnet_edge.engines.tensorrt_plans import TENSORRT, Library, PlanBackend
from spatialnet_edge.runtime.pipeline import Pipeline
from spatialnet_optimize.compilers.plan_builder import TENSORRT as BUILDER
from spatialnet_optimize.compilers.plan_builder import PlanBuilder, PlanLibrary, PlanOptions

SHAPE = TINY.input.shape
RECORD = EngineRecord(path="engines/tensorrt.fp32.plan", backend="tensorrt", precision="fp32", library_version="10.3.0")


def images(count: int, level: int | None = None) -> np.ndarray:
    if level is not None:  # stripes of this mean: a flat picture would get no label
        stripes = level + np.where(np.arange(SIDE) % 2, 30, -30)
        return np.broadcast_to(stripes.clip(0, 255).astype(np.uint8)[:, None], (count, SIDE, SIDE, 3)).copy()
    return np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)


REFERENCE = load_backend("onnxruntime").open(tiny_graph(), TINY, 1)


def plan(**options) -> bytes:
    return PlanBuilder(BUILDER, PlanOptions(**{"batches": (1, 4)} | options)).compile(tiny_graph(), SHAPE).content


def open_tiny(content: bytes | None = None, **options) -> TensorRtEngine:
    return PlanBackend(TENSORRT).open_plan(RECORD, content or plan(), None, TINY, **options)


@pytest.mark.parametrize("integrated", ["0", "1"])
@pytest.mark.parametrize("count", [1, 4, 2, 7])
def test_answers_are_the_networks_for_any_batch(integrated: str, count: int, driver: Driver, monkeypatch) -> None:
    monkeypatch.setenv("STANDIN_INTEGRATED", integrated)
    engine = open_tiny()
    before = driver.counts().launches
    for name, values in engine.infer(images(count)).items():
        assert np.allclose(values, REFERENCE.infer(images(count))[name], atol=1e-6)
    assert driver.counts().launches - before == {1: 1, 4: 1, 2: 2, 7: 4}[count]
    assert engine.not_captured is None
    engine.close()


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_hundred_engines_opened_and_closed_leave_nothing(elsewhere: bool, driver: Driver) -> None:
    content = plan()
    for _ in range(100):
        engine = open_tiny(content)
        engine.infer(images(1))
        if elsewhere:
            thread = threading.Thread(target=engine.close)
            thread.start()
            thread.join()
        else:
            engine.close()
        assert driver.counts()[1:8] == (0,) * 7


@pytest.mark.parametrize(("function", "times"), [("cuMemHostAlloc", 2), ("cuMemAlloc_v2", 2)])
def test_no_memory_at_load_is_a_refusal_with_bytes_needed_and_free(function, times, driver: Driver, discrete) -> None:
    driver.fail(function, OUT_OF_MEMORY, times)
    with pytest.raises(EngineUnavailable, match=rf"out of memory.*needs {tensorrt.ACTIVATIONS} bytes .* \d+ are free"):
        open_tiny()


def test_no_memory_while_running_is_tried_once_more(driver: Driver) -> None:
    engine = open_tiny()
    driver.fail("cuGraphLaunch", OUT_OF_MEMORY, 1)
    assert np.allclose(engine.infer(images(1))["level"], REFERENCE.infer(images(1))["level"])
    driver.fail("cuGraphLaunch", OUT_OF_MEMORY, 2)
    with pytest.raises(EngineError, match="out of memory"):
        engine.infer(images(1))
    engine.close()


def test_any_other_cuda_error_ends_the_run_at_once(driver: Driver) -> None:
    engine = open_tiny()
    driver.fail("cuStreamSynchronize", ILLEGAL_ADDRESS, 3)
    with pytest.raises(EngineError, match="is unusable"):
        engine.infer(images(1))
    driver.fail("", 0, 0)
    engine.close()


def test_work_that_cannot_be_captured_is_launched_layer_by_layer_and_says_why(driver: Driver) -> None:
    driver.fail("cuStreamEndCapture", 901, 2)
    engine = open_tiny()
    assert "cuStreamEndCapture" in str(engine.not_captured)
    before = driver.counts().launches
    assert np.allclose(engine.infer(images(4))["level"], REFERENCE.infer(images(4))["level"])
    assert driver.counts().launches == before
    engine.close()


def test_without_graphs_nothing_is_captured(driver: Driver) -> None:
    engine = open_tiny(graphs=False)
    assert driver.counts().executables == 0
    assert np.allclose(engine.infer(images(1))["level"], REFERENCE.infer(images(1))["level"])
    engine.close()


def test_a_plan_reports_its_executed_precision_and_times(driver: Driver) -> None:
    engine = open_tiny()
    layers = engine.executed(runs=3)
    assert [(layer.name, layer.ms) for layer in layers] == [("all", 0.25)]
    engine.close()


def test_a_failing_start_closes_the_device(driver: Driver) -> None:
    driver.fail("cuStreamSynchronize", ILLEGAL_ADDRESS, 1)
    with pytest.raises(EngineUnavailable, match="does not run on Orin"):
        open_tiny()
    spec = msgspec.structs.replace(TINY, heads=(msgspec.structs.replace(TINY.heads[0], name="other"),))
    with pytest.raises(EngineUnavailable, match="has no tensor 'other'; it has bands, image, level, shade"):
        PlanBackend(TENSORRT).open_plan(RECORD, plan(), None, spec)


def test_a_version_compatible_plan_is_opened_by_a_later_release(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt, "__version__", "10.3.0")
    record = msgspec.structs.replace(RECORD, version_compatible=True)
    content = plan(version_compatible=True)
    monkeypatch.setattr(tensorrt, "__version__", "10.16.1")
    backend = PlanBackend(TENSORRT)
    assert backend.refuses(record) is None
    backend.open_plan(record, content, None, TINY).close()
    assert "built with TensorRT 10.3.0; here 10.16.1" in backend.refuses(RECORD)
    with pytest.raises(EngineUnavailable, match=r"10\.16\.1 cannot load this plan on Orin"):
        backend.open_plan(RECORD, content, None, TINY)  # its own runtime may run only if the record allows it
    monkeypatch.setattr(tensorrt, "__version__", "10.1.0")
    assert "here 10.1.0" in backend.refuses(record)


def test_a_stripped_plan_takes_its_weights_from_the_graph() -> None:
    stripped = PlanBuilder(BUILDER, PlanOptions((1,))).without_weights(tiny_graph(), SHAPE)
    backend = PlanBackend(TENSORRT)
    engine = backend.open_plan(RECORD, stripped, tiny_graph(), TINY)
    assert np.allclose(engine.infer(images(1))["level"], REFERENCE.infer(images(1))["level"])
    engine.close()
    with pytest.raises(EngineUnavailable, match="do not match the stripped plan"):
        backend.open_plan(RECORD, stripped, b"another graph", TINY)


def test_a_plan_for_an_accelerator_is_opened_on_its_core() -> None:
    content = plan(dla_core=0)
    PlanBackend(TENSORRT).open_plan(msgspec.structs.replace(RECORD, dla_core=0), content, None, TINY).close()
    with pytest.raises(EngineUnavailable):
        open_tiny(content)


def test_a_plan_that_requires_user_memory_gets_it(driver: Driver) -> None:
    library = Library("tensorrt", "TensorRT for RTX", "rtx", user_memory=True)
    content = PlanBuilder(PlanLibrary(library, "tensorrt_rtx"), PlanOptions((1, 4))).compile(tiny_graph(), SHAPE).content
    engine = PlanBackend(library).open_plan(RECORD, content, None, TINY)
    assert engine.not_captured is None
    assert np.allclose(engine.infer(images(4))["level"], REFERENCE.infer(images(4))["level"])
    engine.close()
    with pytest.raises(EngineUnavailable):  # as if it were a plan that allocates for itself
        open_tiny(content)


def test_a_plan_for_another_device_is_refused_before_it_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    device = open_device()
    here = device.identity
    device.close()
    backend = PlanBackend(TENSORRT)

    def refuses(**change: object) -> str | None:
        built_on = msgspec.structs.replace(here, **change)
        return backend.refuses(msgspec.structs.replace(RECORD, device="Orin", built_on=built_on))

    assert refuses() is None
    assert refuses(memory_bytes=int(here.memory_bytes * 1.05)) is None
    assert "built on Orin (compute capability 8.7, 8 multiprocessors, 59.6 GiB)" in refuses(memory_bytes=64_000_000_000)
    assert "16 multiprocessors" in refuses(multiprocessors=16)
    assert "Orin NX" in refuses(board="NVIDIA Jetson Orin NX")
    assert refuses(name="Xavier") is not None
    assert "built for Xavier" in backend.refuses(msgspec.structs.replace(RECORD, device="Xavier"))
    assert backend.refuses(msgspec.structs.replace(RECORD, device="Orin")) is None  # of an older bundle
    assert "has not compiled this graph yet" in backend.refuses(msgspec.structs.replace(RECORD, path="graphs/fp16.onnx"))


class Levels:
    """A camera that shows one level of grey."""

    uri, length, fps, live = "levels", None, None, False

    def __init__(self, level: int, frames: int) -> None:
        self.level, self.frames = level, frames

    def __iter__(self) -> Iterator[Frame | Skipped]:
        for seq in range(self.frames):
            yield Frame(images(1, self.level)[0], seq, "levels")

    def close(self) -> None: ...


def test_four_cameras_on_one_engine_get_their_own_answers() -> None:
    engine = CheckedEngine(open_tiny())
    answers: dict[int, set[int]] = {}

    def camera(level: int) -> None:
        answers[level] = {round(result.level.value) for result in Pipeline(engine).stream(Levels(level, 200))}

    threads = [threading.Thread(target=camera, args=(level,)) for level in (40, 90, 140, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {level: {level} for level in (40, 90, 140, 200)}
    engine.close()


def test_outputs_are_pinned_memory_and_callers_get_copies() -> None:
    engine = open_tiny()
    first = engine.infer(images(1))["level"]
    before = first.copy()
    assert engine.infer(images(1, 0))["level"] is first
    assert not np.array_equal(first, before)
    results = [result.level.value for result in Pipeline(CheckedEngine(engine)).stream(Levels(90, 3))]
    assert results == pytest.approx([90] * 3)
    engine.close()
