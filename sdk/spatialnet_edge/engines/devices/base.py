"""What an engine needs of a CUDA device."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from numpy.typing import NDArray

from spatialnet_edge.bundle.manifest import DeviceRecord
from spatialnet_edge.core.errors import EngineError

MemoryKind = Literal["mapped", "pinned", "pageable"]
"""Where the host's side of a buffer lies.

`mapped`: page-locked and seen by the device at an address of its own, so that nothing is copied; for integrated GPUs. `pinned`:
page-locked, copied by DMA beside everything else. `pageable`: ordinary memory; the driver copies it twice. For comparison only.
"""

STREAM_NON_BLOCKING = 1
"""`CU_STREAM_NON_BLOCKING`: work of other libraries on the legacy default stream does not wait for this stream, nor this for it."""


class OutOfMemory(EngineError):
    """The device has no memory left. Trying again may help."""


@dataclass(frozen=True, slots=True, eq=False)
class Buffer:
    """The memory of one tensor on both sides. It belongs to the device, and is freed when the device is closed.

    Attributes:
        host: the host's side. Do not use it after `Device.close`.
        address: of the device's side.
        mapped: both sides are one memory: nothing is copied.
    """

    host: NDArray[Any]
    address: int
    mapped: bool


class Device(Protocol):
    """One CUDA device with one stream. All methods but `current` and `close` are called inside `current`.

    They raise `OutOfMemory`, and `EngineError` for any other failure. After such a failure the context cannot be trusted, and the
    process must end; a failed `capture` alone leaves the device usable.

    Attributes:
        identity: what tells this device from others.
        stream: handle of the one stream that all work runs on (`CUstream`); it does not block on the default stream.
        memory: the kind of memory that `buffer` gives.
    """

    identity: DeviceRecord
    stream: int
    memory: MemoryKind

    def current(self) -> AbstractContextManager[None]:
        """Inside, the device's context is the current one of this thread. Any thread may enter, also several times."""
        ...

    def buffer(self, shape: tuple[int, ...], dtype: Any) -> Buffer:
        """Memory on both sides for one tensor."""
        ...

    def allocate(self, size: int) -> int:
        """The address of `size` bytes on the device, freed when the device is closed."""
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
        """Record what `work` puts on the stream as a CUDA graph.

        Returns:
            Launches the whole graph at once.

        Raises:
            EngineError: the work cannot be captured. The stream is usable afterwards.
        """
        ...

    def free_bytes(self) -> int:
        """Memory of the device that is free now."""
        ...

    def close(self) -> None:
        """Free graphs, buffers and the stream. From any thread; a second call does nothing."""
        ...
