"""A CUDA device through pycuda (extra `jetson`), which is compiled on the device.

pycuda provides memory, the stream and the context. It has no graphs, so these functions are called in the driver directly
(CUDA Driver API, "Graph Management" and "Stream Management").

The primary context is retained once per process and never released: other libraries use it too, and pycuda leaves a released
primary context current. Memory, streams and graphs are freed inside `current`, because pycuda leaks objects that are freed in
a thread without this context.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import cache, wraps
from typing import Any, Concatenate, TypeVar, final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import ParamSpec

from spatialnet_edge.bundle.manifest import DeviceRecord
from spatialnet_edge.core.errors import EngineError, first_line
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

P = ParamSpec("P")
T = TypeVar("T")

CAPTURE_THREAD_LOCAL = 1
"""`CU_STREAM_CAPTURE_MODE_THREAD_LOCAL`: calls of other threads cannot invalidate the capture."""
CUDA_ERROR_OUT_OF_MEMORY = 2


@cache
def primary() -> Primary:
    """Initialise the driver and retain the primary context, once per process.

    Raises:
        MissingExtra, EngineUnavailable: see `driver_module` and `no_driver`.
    """
    cuda = driver_module("pycuda.driver", "pycuda", "jetson")
    try:
        cuda.init()
        device = cuda.Device(0)
        context = device.retain_primary_context()
    except cuda.Error as error:
        raise no_driver(error) from error
    # Kept until the process ends: pycuda's destructor detaches a primary context in a way that the driver refuses.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(context))
    return Primary(cuda, device, context)


def translated(method: Callable[Concatenate[PycudaDevice, P], T]) -> Callable[Concatenate[PycudaDevice, P], T]:
    """Convert pycuda's errors to `OutOfMemory` and `EngineError`."""

    @wraps(method)
    def call(self: PycudaDevice, *args: P.args, **kwargs: P.kwargs) -> T:
        cuda = primary().cuda
        try:
            return method(self, *args, **kwargs)
        except cuda.MemoryError as error:
            raise OutOfMemory(f"{self.identity.name}: out of memory: {first_line(error)}") from error
        except cuda.Error as error:
            raise EngineError(f"{self.identity.name}: CUDA failed: {first_line(error)}; its context is unusable") from error

    return call


@final
class PycudaDevice:
    """The first CUDA device.

    Args:
        memory: see `open_device`.

    Raises:
        MissingExtra, EngineUnavailable: see `primary`.
    """

    def __init__(self, memory: MemoryKind | None = None) -> None:
        self._cuda, device, self._context = primary()
        integrated = bool(device.get_attribute(self._cuda.device_attribute.INTEGRATED))
        self.memory: MemoryKind = memory or ("mapped" if integrated else "pinned")
        self.identity = DeviceRecord(
            name=str(device.name()),
            board=board_name(),
            compute_capability=".".join(map(str, device.compute_capability())),
            multiprocessors=int(device.get_attribute(self._cuda.device_attribute.MULTIPROCESSOR_COUNT)),
            memory_bytes=int(device.total_memory()),
        )
        self._driver = ctypes.CDLL("libcuda.so.1")
        self._owned: list[Any] = []
        """Allocations of pycuda, freed by their method `free`."""
        self._graphs: list[ctypes.c_void_p] = []
        with self.current():
            self._stream: Any = self._make_stream()
        self.stream = int(self._stream.handle)

    @contextmanager
    def current(self) -> Generator[None, None, None]:
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    @translated
    def buffer(self, shape: tuple[int, ...], dtype: Any) -> Buffer:
        if self.memory == "pageable":
            host: NDArray[Any] = np.zeros(shape, dtype)
            return Buffer(host, self.allocate(host.nbytes), mapped=False)
        mapped = self.memory == "mapped"
        flags = self._cuda.host_alloc_flags.DEVICEMAP if mapped else 0
        host = self._cuda.pagelocked_empty(shape, dtype, mem_flags=flags)
        allocation: Any = host.base
        self._owned.append(allocation)
        address = int(allocation.get_device_pointer()) if mapped else self.allocate(host.nbytes)
        return Buffer(host, address, mapped)

    @translated
    def allocate(self, size: int) -> int:
        self._owned.append(self._cuda.mem_alloc(size))
        return int(self._owned[-1])

    @translated
    def upload(self, buffer: Buffer) -> None:
        if not buffer.mapped:
            self._cuda.memcpy_htod_async(buffer.address, buffer.host, self._stream)

    @translated
    def download(self, buffer: Buffer) -> None:
        if not buffer.mapped:
            self._cuda.memcpy_dtoh_async(buffer.host, buffer.address, self._stream)

    @translated
    def synchronize(self) -> None:
        self._stream.synchronize()

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        stream, graph, executable = ctypes.c_void_p(self.stream), ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuStreamBeginCapture_v2", stream, ctypes.c_int(CAPTURE_THREAD_LOCAL))
        try:
            work()
        except BaseException:
            self._driver.cuStreamEndCapture(
                stream, ctypes.byref(graph)
            )  # end the capture; the error of `work` is the one to report
            if graph:
                self._driver.cuGraphDestroy(graph)
            raise
        self._call("cuStreamEndCapture", stream, ctypes.byref(graph))
        try:
            self._call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, ctypes.c_ulonglong(0))
        finally:
            self._driver.cuGraphDestroy(graph)
        self._graphs.append(executable)
        return lambda: self._call("cuGraphLaunch", executable, stream)

    @translated
    def free_bytes(self) -> int:
        return int(self._cuda.mem_get_info()[0])

    def close(self) -> None:
        if self._stream is None:
            return
        self._context.push()
        try:
            while self._graphs:
                self._driver.cuGraphExecDestroy(self._graphs.pop())
            while self._owned:
                self._owned.pop().free()
        finally:
            self._stream = None  # pycuda destroys the stream here, while its context is current
            self._context.pop()

    @translated
    def _make_stream(self) -> Any:
        return self._cuda.Stream(STREAM_NON_BLOCKING)

    def _call(self, function: str, *arguments: Any) -> None:
        status = getattr(self._driver, function)(*arguments)
        if status == CUDA_ERROR_OUT_OF_MEMORY:
            raise OutOfMemory(f"{self.identity.name}: out of memory: {function} failed")
        if status:
            raise EngineError(f"{self.identity.name}: {function} failed with CUDA error {status}; its context is unusable")
