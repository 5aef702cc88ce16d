"""The little of CUDA that an engine needs: memory on both sides, one stream, and graphs.

pycuda carries memory and streams (it compiles on the device and belongs to the extra `jetson`). It has no graphs, so those four
calls go to the driver itself (CUDA Driver API, "Graph Management"; `cuStreamBeginCapture_v2` and what follows).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol, final

from numpy.typing import NDArray

from spatialnet_edge.core.errors import EngineError, EngineUnavailable, MissingExtra, first_line

CAPTURE_THREAD_LOCAL = 1
"""CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: what other threads do cannot spoil the capture."""


@dataclass(frozen=True, slots=True, eq=False)
class Buffer:
    """Memory of both sides for one tensor.

    Attributes:
        host: page-locked, so that copies run beside everything else.
        address: of the device's side.
        mapped: both sides are one memory (an integrated GPU): nothing is copied.
    """

    host: NDArray[Any]
    address: int
    mapped: bool
    keep: Any


class OutOfMemory(EngineError):
    """The device has no room. Trying again may help."""


class Device(Protocol):
    """One CUDA device, as an engine sees it."""

    name: str
    compute_capability: str
    stream: int
    """Handle of the one stream that everything runs on."""

    def current(self) -> Any:
        """A context manager: the device belongs to this thread inside."""
        ...

    def buffer(self, shape: tuple[int, ...], dtype: Any) -> Buffer: ...

    def upload(self, buffer: Buffer) -> None:
        """Host to device, asynchronously; nothing for mapped memory."""
        ...

    def download(self, buffer: Buffer) -> None: ...

    def synchronize(self) -> None: ...

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record what `work` puts on the stream; what comes back launches all of it at once."""
        ...

    def free_bytes(self) -> int: ...

    def close(self) -> None: ...


@final
class PycudaDevice:
    """The first device, through pycuda.

    Raises:
        MissingExtra: pycuda is not installed.
        EngineUnavailable: there is no CUDA device, or its driver does not start.
    """

    def __init__(self) -> None:
        try:
            cuda: Any = import_module("pycuda.driver")
        except ModuleNotFoundError as error:
            raise MissingExtra("pycuda", "jetson") from error
        except ImportError as error:  # its driver library is missing
            raise EngineUnavailable(f"CUDA does not start here: {first_line(error)}; is NVIDIA's driver installed?") from error
        try:
            cuda.init()
            device = cuda.Device(0)
        except cuda.Error as error:
            raise EngineUnavailable(f"no CUDA device: {first_line(error)}; is NVIDIA's driver loaded?") from error
        self._cuda = cuda
        self.name = str(device.name())
        self.compute_capability = ".".join(map(str, device.compute_capability()))
        self._integrated = bool(device.get_attribute(cuda.device_attribute.INTEGRATED))
        # The primary context is the one that other libraries in this process use too; it is kept, and never reset.
        self._context = device.retain_primary_context()
        with self.current():
            self._stream = cuda.Stream()
        self.stream = int(self._stream.handle)
        self._driver = ctypes.CDLL("libcuda.so.1")

    @contextmanager
    def current(self) -> Generator[None, None, None]:
        self._context.push()
        try:
            yield
        except self._cuda.MemoryError as error:
            raise OutOfMemory(f"{self.name}: out of memory: {first_line(error)}") from error
        except self._cuda.Error as error:
            raise EngineError(
                f"{self.name}: CUDA failed: {first_line(error)}; its context cannot be trusted any more"
            ) from error
        finally:
            self._context.pop()

    def buffer(self, shape: tuple[int, ...], dtype: Any) -> Buffer:
        flags = self._cuda.host_alloc_flags.DEVICEMAP if self._integrated else 0
        host = self._cuda.pagelocked_empty(shape, dtype, mem_flags=flags)
        if self._integrated:
            return Buffer(host, int(host.base.get_device_pointer()), mapped=True, keep=host)
        device = self._cuda.mem_alloc(host.nbytes)
        return Buffer(host, int(device), mapped=False, keep=device)

    def upload(self, buffer: Buffer) -> None:
        if not buffer.mapped:
            self._cuda.memcpy_htod_async(buffer.address, buffer.host, self._stream)

    def download(self, buffer: Buffer) -> None:
        if not buffer.mapped:
            self._cuda.memcpy_dtoh_async(buffer.host, buffer.address, self._stream)

    def synchronize(self) -> None:
        self._stream.synchronize()

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        stream, graph, executable = ctypes.c_void_p(self.stream), ctypes.c_void_p(), ctypes.c_void_p()
        self._check("cuStreamBeginCapture_v2", stream, ctypes.c_int(CAPTURE_THREAD_LOCAL))
        try:
            work()
        finally:
            self._check("cuStreamEndCapture", stream, ctypes.byref(graph))
        self._check("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, ctypes.c_ulonglong(0))
        return lambda: self._check("cuGraphLaunch", executable, stream)

    def free_bytes(self) -> int:
        return int(self._cuda.mem_get_info()[0])

    def close(self) -> None:
        self._context.detach()

    def _check(self, function: str, *arguments: Any) -> None:
        status = getattr(self._driver, function)(*arguments)
        if status:
            raise EngineError(f"{self.name}: {function} failed with CUDA error {status}")
