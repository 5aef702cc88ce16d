"""What every CUDA device of ours keeps to, on any driver; `tests/cuda` asks more of them on its stand-in."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np

from spatialnet_edge.core.errors import EngineError
from spatialnet_edge.engines.devices.base import Device, MemoryKind, OutOfMemory
from spatialnet_edge.engines.devices.registry import open_device

CYCLES = 100
LEFT = 64 << 20
"""Bytes that a hundred cycles may leave: the driver keeps some for itself."""


def require(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(what)


def copies(library: str) -> dict[str, float]:
    """What goes up comes down in each kind of memory; microseconds of a graph of both copies, 1 MB."""
    found: dict[str, float] = {}
    kinds: tuple[MemoryKind, ...] = ("mapped", "pinned", "pageable")
    for kind in kinds:
        device = open_device(library, kind)
        with device.current():
            buffer = device.buffer((1 << 20,), np.uint8)
            launch = device.capture(both_ways(device, buffer)) if kind != "pageable" else both_ways(device, buffer)
            for value in (3, 9):
                buffer.host[...] = value
                launch()
                device.synchronize()
                require(bool((buffer.host == value).all()), f"{kind}: {value} did not come back")
            started = time.perf_counter()
            for _ in range(CYCLES):
                launch()
            device.synchronize()
            found[f"{kind} us"] = round((time.perf_counter() - started) / CYCLES * 1e6, 2)
        device.close()
    return found


def both_ways(device: Device, buffer: object) -> Callable[[], None]:
    def work() -> None:
        device.upload(buffer)  # type: ignore[arg-type]
        device.download(buffer)  # type: ignore[arg-type]

    return work


def failures(library: str) -> None:
    """Work that cannot be captured is an error and the device goes on; too much memory is an error of its own."""
    device = open_device(library, "pinned")
    with device.current():
        buffer = device.buffer((4,), np.uint8)
        try:
            device.capture(device.synchronize)
            raise AssertionError("a synchronisation was captured")
        except EngineError:
            pass
        device.capture(lambda: device.upload(buffer))()
        device.synchronize()
        try:
            device.allocate(1 << 46)
            raise AssertionError("64 TiB were allocated")
        except OutOfMemory:
            pass
    device.close()


def cycles(library: str) -> None:
    """A hundred devices, opened here and closed in another thread, leave nothing."""
    keeper = open_device(library, "pinned")
    with keeper.current():
        before = keeper.free_bytes()
    for _ in range(CYCLES):
        device = open_device(library, "pinned")
        with device.current():
            buffer = device.buffer((1 << 20,), np.uint8)
            device.capture(both_ways(device, buffer))()
            device.synchronize()
        thread = threading.Thread(target=device.close)
        thread.start()
        thread.join()
    with keeper.current():
        left = before - keeper.free_bytes()
    keeper.close()
    require(left <= LEFT, f"{CYCLES} cycles left {left} bytes")
