"""Conformance tests for every `Device`, with either library."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from standin_fixtures import CUDA_LIBRARY, ILLEGAL_ADDRESS, OUT_OF_MEMORY, Driver

from spatialnet_edge.core.errors import EngineError
from spatialnet_edge.engines.devices.base import Device, MemoryKind, OutOfMemory
from spatialnet_edge.engines.devices.registry import open_device

KINDS: tuple[MemoryKind, ...] = ("mapped", "pinned", "pageable")


def test_the_device_reports_its_identity(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(device).__module__.rpartition(".")[2].replace("_", "-") == CUDA_LIBRARY
    found = device.identity
    assert (found.name, found.compute_capability, found.multiprocessors) == ("Orin", "8.7", 8)
    assert found.memory_bytes == 8 << 30
    assert device.memory == "mapped"
    monkeypatch.setenv("STANDIN_INTEGRATED", "0")
    discrete = open_device()
    assert discrete.memory == "pinned"
    discrete.close()


@pytest.mark.parametrize("kind", KINDS)
def test_uploads_and_downloads_complete_at_synchronisation(kind: MemoryKind) -> None:
    device = open_device(memory=kind)
    with device.current():
        buffer = device.buffer((2, 3), np.float32)
        assert buffer.host.shape == (2, 3)
        assert buffer.mapped is (kind == "mapped")
        buffer.host[...] = 7
        device.upload(buffer)
        device.synchronize()
        buffer.host[...] = 0
        device.download(buffer)
        expected = 0 if kind == "mapped" else 7  # one memory: nothing is copied
        assert (buffer.host == 0).all()
        device.synchronize()
        assert (buffer.host == expected).all()
    device.close()


def test_the_stream_does_not_block_on_the_default_stream(device: Device, driver: Driver) -> None:
    assert driver.counts().streams == 1
    assert driver.counts().blocking_streams == 0


@pytest.mark.parametrize("kind", ["pinned", "mapped"])
def test_a_captured_graph_launches_the_work_again(kind: MemoryKind, driver: Driver) -> None:
    device = open_device(memory=kind)
    with device.current():
        buffer = device.buffer((4,), np.uint8)
        launch = device.capture(lambda: (device.upload(buffer), device.download(buffer)))
        before = driver.counts().launches
        for value in (3, 9):
            buffer.host[...] = value
            launch()
            device.synchronize()
            assert (buffer.host == value).all()
        assert driver.counts().launches == before + 2
        assert driver.counts().graphs == 0  # the executable graph has everything it needs
    device.close()


def test_work_that_cannot_be_captured_is_an_error_and_the_stream_goes_on(device: Device) -> None:
    with device.current():
        buffer = device.buffer((4,), np.uint8)
        with pytest.raises(EngineError):
            device.capture(device.synchronize)
        with pytest.raises(ZeroDivisionError):
            device.capture(lambda: 1 / 0)
        device.capture(lambda: device.upload(buffer))()
        device.synchronize()


@pytest.mark.parametrize("function", ["cuStreamEndCapture", "cuGraphInstantiateWithFlags", "cuStreamBeginCapture_v2"])
def test_a_capture_that_the_driver_fails_leaves_nothing(function: str, device: Device, driver: Driver) -> None:
    with device.current():
        driver.fail(function, 901, 1)
        with pytest.raises(EngineError):
            device.capture(lambda: None)
        assert driver.counts().graphs == driver.counts().executables == 0
        device.synchronize()


@pytest.mark.parametrize("function", ["cuMemHostAlloc", "cuMemAlloc_v2"])
def test_out_of_memory_is_a_separate_error(function: str, driver: Driver) -> None:
    device = open_device(memory="pinned")
    driver.fail(function, OUT_OF_MEMORY, 2)  # pycuda collects garbage and tries once more
    with pytest.raises(OutOfMemory, match="Orin"), device.current():
        device.buffer((4,), np.uint8)
    with pytest.raises(OutOfMemory), device.current():
        device.allocate(64 << 30)
    with device.current():
        assert 0 < device.free_bytes() <= 8 << 30
    device.close()


def test_any_other_error_is_an_engine_error(device: Device, driver: Driver) -> None:
    driver.fail("cuStreamSynchronize", ILLEGAL_ADDRESS, 1)
    with pytest.raises(EngineError) as raised, device.current():
        device.synchronize()
    assert not isinstance(raised.value, OutOfMemory)
    assert "is unusable" in str(raised.value)


def test_any_thread_may_use_and_close_a_device(device: Device, driver: Driver) -> None:
    found: list[int] = []

    def use() -> None:
        with device.current(), device.current():
            buffer = device.buffer((1,), np.uint8)
            device.upload(buffer)
            device.synchronize()
            found.append(driver.counts().allocations)
        device.close()
        assert driver.counts().depth == 0

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert found == [1]
    assert driver.counts().allocations == driver.counts().streams == 0
    device.close()  # once more


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_hundred_devices_opened_and_closed_leave_nothing(elsewhere: bool, driver: Driver) -> None:
    for _ in range(100):
        device = open_device(memory="pinned")
        with device.current():
            buffer = device.buffer((64, 64, 3), np.uint8)
            device.capture(lambda buffer=buffer, device=device: device.upload(buffer))()
            device.synchronize()
        if elsewhere:
            thread = threading.Thread(target=device.close)
            thread.start()
            thread.join()
        else:
            device.close()
    assert driver.counts()[:8] == (1, 0, 0, 0, 0, 0, 0, 0)
