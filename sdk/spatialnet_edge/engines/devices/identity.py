"""Compare a device with the device that a plan was built on.

TensorRT chooses kernels by timing them, so a plan is valid for one GPU model (NVIDIA, TensorRT documentation, "Engine Plan
Portability"). The name is not enough: the driver calls every Jetson of one generation "Orin". So the board's name in the
device tree, the memory and the number of multiprocessors are compared.
"""

from __future__ import annotations

from pathlib import Path

from spatialnet_edge.bundle.manifest import DeviceRecord

BOARD = Path("/proc/device-tree/model")
"""The board's name on a Jetson: "NVIDIA Jetson Orin Nano Developer Kit"."""

SAME_MEMORY = 0.15
"""Relative tolerance for memory. Boards of one model differ by the memory that their firmware reserves; models of one name
differ by half or more."""


def board_name(path: Path = BOARD) -> str | None:
    """The board's name from the device tree; None if there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").rstrip("\0\n") or None
    except OSError:
        return None


def described(device: DeviceRecord) -> str:
    """A device in one line: "Orin (NVIDIA Jetson Orin Nano Developer Kit, compute capability 8.7, 8 multiprocessors, 7.4
    GiB)"."""
    parts = [
        *([device.board] if device.board else []),
        f"compute capability {device.compute_capability}",
        f"{device.multiprocessors} multiprocessors",
        f"{device.memory_bytes / 2**30:.1f} GiB",
    ]
    return f"{device.name} ({', '.join(parts)})"


def same_model(built_on: DeviceRecord, here: DeviceRecord) -> bool:
    """Whether two devices are of the same model.

    The number of multiprocessors is compared only if no board name is known: the power modes of a Jetson AGX Orin switch some
    of them off, and its plans run in every mode.
    """
    if (built_on.name, built_on.compute_capability) != (here.name, here.compute_capability):
        return False
    if abs(built_on.memory_bytes - here.memory_bytes) > SAME_MEMORY * max(built_on.memory_bytes, here.memory_bytes):
        return False
    if built_on.board is None and here.board is None:
        return built_on.multiprocessors == here.multiprocessors
    return built_on.board == here.board
