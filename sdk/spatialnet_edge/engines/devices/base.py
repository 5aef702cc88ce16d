"""The interface of a CUDA device for an engine."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, NamedTuple, Protocol

from numpy.typing import NDArray

from spatialnet_edge.bundle.manifest import DeviceRecord
from spatialnet_edge.core.errors import EngineError, EngineUnavailable, MissingExtra, first_line

MemoryKind = Literal["mapped", "pinned", "pageable"]
"""Kind of host memory of a buffer.

`mapped`: page-locked and mapped into the device's address space, so that nothing is copied; for integrated GPUs. `pinned`:
page-locked, copied by DMA in parallel with other work. `pageable`: ordinary memory; the driver copies it twice; for comparison
only.
"""

STREAM_NON_BLOCKING = 1
"""`CU_STREAM_NON_BLOCKING`: this stream and the legacy default stream of other libraries do not wait for each other."""


class Primary(NamedTuple):
    """What a process shares of the first device. It is retained once and never released, because other libraries use it too.

    Attributes:
        cuda: the library's module of driver functions.
        device: the first device, as the library represents it.
        context: that device's primary context.
    """

    cuda: Any
    device: Any
    context: Any


class OutOfMemory(EngineError):
    """The device has no free memory. A retry may succeed."""


@dataclass(frozen=True, slots=True, eq=False)
class Buffer:
    """The memory of one tensor on host and device. The device owns it and frees it when it is closed.

    Attributes:
        host: the host array. Do not use it after `Device.close`.
        address: on the device.
        mapped: host and device share one memory: nothing is copied.
    """

    host: NDArray[Any]
    address: int
    mapped: bool


def driver_module(module: str, distribution: str, extra: str) -> Any:
    """Import a library that drives CUDA.

    Raises:
        MissingExtra: it is not installed.
        EngineUnavailable: it is installed and does not load, as when the driver's library is missing.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtra(distribution, extra) from error
    except ImportError as error:
        raise no_driver(error) from error


def no_driver(error: Exception) -> EngineUnavailable:
    """The error of a CUDA driver that is not there, does not start, or has no device."""
    return EngineUnavailable(f"CUDA does not start: {first_line(error)}; is NVIDIA's driver installed and loaded?")


class Device(Protocol):
    """One CUDA device with one stream. All methods but `current` and `close` are called inside `current`.

    They raise `OutOfMemory`, and `EngineError` for any other failure. After an `EngineError` the context is unusable, and the
    process must end. Only after a failed `capture` is the device still usable.

    Attributes:
        identity: distinguishes this device from others.
        stream: handle of the one stream that all work runs on (`CUstream`); it does not block on the default stream.
        memory: the kind of memory that `buffer` gives.
    """

    identity: DeviceRecord
    stream: int
    memory: MemoryKind

    def current(self) -> AbstractContextManager[None]:
        """Make the device's context current in this thread. Any thread may enter, also repeatedly."""
        ...

    def buffer(self, shape: tuple[int, ...], dtype: Any) -> Buffer:
        """Allocate host and device memory for one tensor."""
        ...

    def allocate(self, size: int) -> int:
        """Allocate `size` bytes on the device and return the address. They are freed when the device is closed."""
        ...

    def upload(self, buffer: Buffer) -> None:
        """Copy from host to device, on the stream. Mapped memory needs no copy."""
        ...

    def download(self, buffer: Buffer) -> None:
        """Copy from device to host, on the stream. Mapped memory needs no copy."""
        ...

    def synchronize(self) -> None:
        """Wait for the stream."""
        ...

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record the work that `work` enqueues on the stream as a CUDA graph.

        Returns:
            A function that launches the graph.

        Raises:
            EngineError: the work cannot be captured. The stream is usable afterwards.
        """
        ...

    def free_bytes(self) -> int:
        """Free memory of the device, in bytes."""
        ...

    def close(self) -> None:
        """Free graphs, buffers and the stream. May be called from any thread; a second call does nothing."""
        ...
