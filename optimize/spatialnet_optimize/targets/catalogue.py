"""The devices that a bundle can be built for: rows of `targets.toml` and of a user's own file."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import msgspec

from spatialnet_edge.core.errors import EngineUnavailable, MissingExtra, UsageError
from spatialnet_optimize.compilers.device import device_here

HERE = "here"
OLDEST_TENSORRT = (10, 3)
"""Oldest supported release: strongly typed networks need TensorRT 10.3 to 11.4."""


class PowerMode(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Limits of a board's power mode.

    Attributes:
        gpu_mhz: highest clock of the GPU.
        bandwidth: of the memory, 10^9 bytes per second.
        gpu_share: of the GPU's multiprocessors, the share that is switched on.
    """

    gpu_mhz: float
    bandwidth: float
    gpu_share: float = 1.0


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A device: see the comments in `targets.toml`."""

    description: str
    compile: str
    precisions: tuple[str, ...] = ()
    hardware: tuple[str, ...] = ()
    compute_capability: tuple[str, ...] = ()
    memory_gb: float = 0
    bandwidth: float = 0
    tera_ops: dict[str, float] = {}
    dla: int = 0
    jetpack: str = ""
    tensorrt: tuple[str, ...] = ()
    power_modes: dict[str, PowerMode] = {}

    @property
    def on_device(self) -> bool:
        """Whether its engine is compiled on the device itself."""
        return self.compile == "tensorrt"

    @property
    def buildable(self) -> bool:
        """Whether this version can build for it."""
        return bool(self.precisions)


def load_targets(extra: Path | None = None) -> dict[str, Target]:
    """Name to row, in the file's order.

    Args:
        extra: a user's own TOML file; its rows are added or replace ours.

    Raises:
        UsageError: that file is missing or invalid; the message names the key.
    """
    text = files("spatialnet_optimize.targets").joinpath("targets.toml").read_bytes()
    rows = msgspec.toml.decode(text, type=dict[str, Target])
    if extra is not None:
        try:
            rows |= msgspec.toml.decode(extra.read_bytes(), type=dict[str, Target])
        except (OSError, ValueError) as error:
            raise UsageError(f"{extra}: no table of targets: {error}; see targets.toml in the package for the keys") from error
    return rows


def by_power_mode(name: str, row: Target) -> dict[str, Target]:
    """One row per known power mode of a target: "orin-nano MAXN_SUPER", "orin-nano 15W" …; the row itself if none is known.

    Peak rates are proportional to the GPU's clock and to its active multiprocessors.
    """
    if not row.power_modes:
        return {name: row}
    highest = next(iter(row.power_modes.values())).gpu_mhz
    return {
        f"{name} {mode}": msgspec.structs.replace(
            row,
            tera_ops={precision: peak * each.gpu_mhz * each.gpu_share / highest for precision, peak in row.tera_ops.items()},
            bandwidth=each.bandwidth,
        )
        for mode, each in row.power_modes.items()
    }


def find_target(name: str, extra: Path | None = None, precision: str = "", dla: bool = False) -> tuple[str, Target]:
    """The row of this name. `here` is this computer: its GPU if TensorRT is installed, otherwise its CPU.

    Args:
        extra, precision, dla: see `load_targets` and `check_request`.

    Raises:
        UsageError: no such target, or it does not support the request.
        EngineUnavailable: known, but this version cannot build for it.
    """
    targets = load_targets(extra)
    resolved = row_here(targets) if name == HERE else name
    if resolved not in targets:
        raise UsageError(f"no target '{name}'; available: {', '.join([HERE, *targets])}; see 'spatialnet-edge targets'")
    target = targets[resolved]
    check_request(resolved, target, precision, dla)
    if not target.buildable:
        possible = ", ".join(key for key, row in targets.items() if row.buildable)
        if target.tensorrt and version(target.tensorrt[-1]) < OLDEST_TENSORRT:
            raise EngineUnavailable(
                f"target '{name}' ({target.description}) ends at TensorRT {target.tensorrt[-1]} (JetPack "
                f"{target.jetpack}); the oldest supported release is {'.'.join(map(str, OLDEST_TENSORRT))}; build for "
                "cpu, which runs there, or use an Orin, the oldest Jetson with a supported TensorRT"
            )
        raise EngineUnavailable(
            f"target '{name}' ({target.description}) has no precisions to build; available targets: {possible}"
        )
    return resolved, target


def row_here(targets: dict[str, Target]) -> str:
    """The row of this computer: `cpu` if TensorRT cannot compile.

    Of the rows with the GPU's compute capability, the one with the board name of the device tree; for an unknown board, the one
    with the nearest memory size.
    """
    try:
        device = device_here()
    except (EngineUnavailable, MissingExtra):
        return "cpu"
    rows = [name for name, row in targets.items() if row.on_device and device.compute_capability in row.compute_capability]
    board = device.board or ""
    named = [name for name in rows if all(word in board for word in targets[name].description.split()[:3])]
    return min(named or rows, key=lambda name: abs(targets[name].memory_gb - device.memory_bytes / 1e9), default="cpu")


def version(text: str) -> tuple[int, ...]:
    """A version such as `11.4.1` as comparable numbers."""
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def check_request(name: str, target: Target, precision: str = "", dla: bool = False, tensorrt: str = "") -> None:
    """Refuse unsupported requests before any work.

    Args:
        precision: one of `fp32`, `fp16`, `bf16`, `int8`, `fp8`; empty: any.
        dla: whether the deep-learning accelerator is requested.
        tensorrt: the release on the device, if known.

    Raises:
        UsageError: with the reason and an alternative.
    """
    if precision and target.hardware and precision not in target.hardware:
        fastest = next(each for each in ("fp16", "int8", "fp32") if each in target.hardware)
        why = "FP8 needs compute capability 8.9 or later" if precision == "fp8" else f"it has {', '.join(target.hardware)}"
        has = (
            f" and this has {', '.join(target.compute_capability)}" if precision == "fp8" and target.compute_capability else ""
        )
        raise UsageError(f"{precision} on {name} ({target.description}): {why}{has}; use {fastest}")
    if not dla:
        return
    if not target.dla:
        raise UsageError(f"DLA on {name} ({target.description}): it has none; remove --dla")
    release = version(tensorrt)
    if release and (10, 7) < release[:2] < (11, 4):
        raise UsageError(
            f"DLA with TensorRT {tensorrt}: releases after 10.7 and before 11.4.1 do not support it; use 10.3 to "
            "10.7, or remove --dla"
        )
    if release[:2] >= (11, 4) and name != "agx-orin":
        raise UsageError(f"DLA with TensorRT {tensorrt}: 11.4.1 supports it only on AGX Orin, not on {name}; remove --dla")
