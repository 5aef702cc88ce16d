"""The libraries that can drive a CUDA device, the preferred one first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module

from spatialnet_edge.core.errors import MissingExtra
from spatialnet_edge.engines.devices.base import Device, MemoryKind

OpenDevice = Callable[[], Device]

DEVICES: Mapping[str, str] = {
    "pycuda": "spatialnet_edge.engines.devices.pycuda:PycudaDevice",
    "cuda-bindings": "spatialnet_edge.engines.devices.cuda_bindings:CudaBindingsDevice",
}
"""Distribution to class. pycuda is compiled on the device; cuda-bindings has wheels."""


def open_device(library: str | None = None, memory: MemoryKind | None = None) -> Device:
    """Open the first CUDA device.

    Args:
        library: a key of `DEVICES`; None: the first one that is installed.
        memory: kind of its buffers; None: mapped memory on an integrated GPU, pinned memory on others.

    Raises:
        MissingExtra: none of the libraries is installed.
        EngineUnavailable: there is no CUDA device, or its driver does not start.
    """
    if library is not None:
        return _class(library)(memory)
    for name in DEVICES:
        try:
            return _class(name)(memory)
        except MissingExtra:
            continue
    raise MissingExtra("cuda-bindings", "cuda")


def _class(library: str) -> Callable[[MemoryKind | None], Device]:
    module, attribute = DEVICES[library].split(":")
    return getattr(import_module(module), attribute)
