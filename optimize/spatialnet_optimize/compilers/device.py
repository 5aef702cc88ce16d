"""The GPU of this computer, if TensorRT can compile for it."""

from __future__ import annotations

from spatialnet_edge.bundle.manifest import DeviceRecord
from spatialnet_edge.engines.devices.registry import open_device
from spatialnet_optimize.compilers.plan_builder import TENSORRT, load_builder


def device_here() -> DeviceRecord:
    """The GPU of this computer that TensorRT can use.

    Raises:
        EngineUnavailable, MissingExtra: there is none; with the reason.
    """
    load_builder(TENSORRT)
    device = open_device()
    device.close()
    return device.identity
