"""A CUDA device through NVIDIA's `cuda-bindings` (extra `cuda`), which has wheels for x86-64 and aarch64.

Its functions are those of the CUDA Driver API. Each returns a status, and the values that the C function returns through
pointers.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import cache
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.bundle.manifest import DeviceRecord
from spatialnet_edge.core.errors import EngineError
from spatialnet_edge.engines.devices.base import (
    STREAM_NON_BLOCKING,
    Buffer,
    MemoryKind,
    OutOfMemory,
    Primary,
    driver_module,
    no_driver,
)
from spatialnet_edge.engines.devices.identity import board_name


@cache
def primary() -> Primary:
    """Initialise the driver and retain the primary context, once per process.

    Raises:
        MissingExtra, EngineUnavailable: see `driver_module` and `no_driver`.
    """
    cuda = driver_module("cuda.bindings.driver", "cuda-bindings", "cuda")
    try:
        _checked(cuda, "cuInit", 0)
        device = _checked(cuda, "cuDeviceGet", 0)
        return Primary(cuda, device, _checked(cuda, "cuDevicePrimaryCtxRetain", device))
    except Exception as error:  # cuda-bindings raises its own errors, of no common class, when libcuda.so.1 is missing
        raise no_driver(error) from error


def _checked(cuda: Any, function: str, *arguments: Any) -> Any:
    """Call a driver function and check its status.

    Raises:
        OutOfMemory, EngineError: its status is not `CUDA_SUCCESS`.
    """
    status, *values = getattr(cuda, function)(*arguments)
    if status == cuda.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
        raise OutOfMemory(f"out of memory: {function} failed")
    if status != cuda.CUresult.CUDA_SUCCESS:
        raise EngineError(f"{function} failed: {status.name}; the CUDA context is unusable")
    return values[0] if len(values) == 1 else values


@final
class CudaBindingsDevice:
    """The first CUDA device.

    Args:
        memory: see `open_device`.

    Raises:
        MissingExtra, EngineUnavailable: see `primary`.
    """

    def __init__(self, memory: MemoryKind | None = None) -> None:
        self._cuda, device, self._context = primary()
        attributes = self._cuda.CUdevice_attribute
        self._name = _checked(self._cuda, "cuDeviceGetName", 256, device).split(b"\0")[0].decode()

        def attribute(name: str) -> int:
            number = getattr(attributes, f"CU_DEVICE_ATTRIBUTE_{name}")
            return int(self._call("cuDeviceGetAttribute", number, device))

        self.memory: MemoryKind = memory or ("mapped" if attribute("INTEGRATED") else "pinned")
        self.identity = DeviceRecord(
            name=self._name,
            board=board_name(),
            compute_capability=f"{attribute('COMPUTE_CAPABILITY_MAJOR')}.{attribute('COMPUTE_CAPABILITY_MINOR')}",
            multiprocessors=attribute("MULTIPROCESSOR_COUNT"),
            memory_bytes=int(self._call("cuDeviceTotalMem", device)),
        )
        self._free: list[tuple[str, Any]] = []
        """Every object that this device made: the function that frees it, and its argument."""
        with self.current():
            self._stream: Any = self._call("cuStreamCreate", STREAM_NON_BLOCKING)
        self._free.append(("cuStreamDestroy", self._stream))
        self.stream = int(self._stream)

    @contextmanager
    def current(self) -> Generator[None, None, None]:
        self._call("cuCtxPushCurrent", self._context)
        try:
            yield
        finally:
            self._call("cuCtxPopCurrent")

    def buffer(self, shape: tuple[int, ...], dtype: Any) -> Buffer:
        if self.memory == "pageable":
            host: NDArray[Any] = np.zeros(shape, dtype)
            return Buffer(host, self.allocate(host.nbytes), mapped=False)
        mapped = self.memory == "mapped"
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        flags = self._cuda.CU_MEMHOSTALLOC_DEVICEMAP if mapped else 0
        pointer = int(self._call("cuMemHostAlloc", size, flags))
        self._free.append(("cuMemFreeHost", pointer))
        pinned: Any = (ctypes.c_uint8 * size).from_address(pointer)
        host = np.ndarray(shape, dtype, pinned)
        address = int(self._call("cuMemHostGetDevicePointer", pointer, 0)) if mapped else self.allocate(size)
        return Buffer(host, address, mapped)

    def allocate(self, size: int) -> int:
        pointer = self._call("cuMemAlloc", size)
        self._free.append(("cuMemFree", pointer))
        return int(pointer)

    def upload(self, buffer: Buffer) -> None:
        if not buffer.mapped:
            self._call("cuMemcpyHtoDAsync", buffer.address, buffer.host.ctypes.data, buffer.host.nbytes, self._stream)

    def download(self, buffer: Buffer) -> None:
        if not buffer.mapped:
            self._call("cuMemcpyDtoHAsync", buffer.host.ctypes.data, buffer.address, buffer.host.nbytes, self._stream)

    def synchronize(self) -> None:
        self._call("cuStreamSynchronize", self._stream)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        mode = (
            self._cuda.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        )  # calls of other threads cannot invalidate it
        self._call("cuStreamBeginCapture", self._stream, mode)
        try:
            work()
        except BaseException:
            status, graph = self._cuda.cuStreamEndCapture(
                self._stream
            )  # end the capture; the error of `work` is the one to report
            if status == self._cuda.CUresult.CUDA_SUCCESS:
                self._cuda.cuGraphDestroy(graph)
            raise
        graph = self._call("cuStreamEndCapture", self._stream)
        try:
            executable = self._call("cuGraphInstantiate", graph, 0)
        finally:
            self._cuda.cuGraphDestroy(graph)
        self._free.append(("cuGraphExecDestroy", executable))
        return lambda: self._call("cuGraphLaunch", executable, self._stream)

    def free_bytes(self) -> int:
        return int(self._call("cuMemGetInfo")[0])

    def close(self) -> None:
        if not self._free:
            return
        with self.current():
            while self._free:
                function, argument = self._free.pop()  # the stream was created first and is destroyed last
                self._call(function, argument)

    def _call(self, function: str, *arguments: Any) -> Any:
        """As `_checked`, with the device's name in the error."""
        try:
            return _checked(self._cuda, function, *arguments)
        except EngineError as error:
            raise type(error)(f"{self._name}: {error}") from error
