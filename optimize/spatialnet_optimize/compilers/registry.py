"""The table of compilers by target."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from spatialnet_edge.bundle.manifest import DeviceRecord
from spatialnet_edge.engines.tensorrt_plans import PlanBackend
from spatialnet_optimize.cache_dir import cache_root
from spatialnet_optimize.compilers.base import Compiler
from spatialnet_optimize.compilers.device import device_here
from spatialnet_optimize.compilers.onnxruntime import OnnxRuntimeCompiler
from spatialnet_optimize.compilers.plan_builder import (
    RTX,
    TENSORRT,
    PlanBuilder,
    PlanLibrary,
    PlanOptions,
    Progress,
    load_builder,
)
from spatialnet_optimize.compilers.tensorrt import DeviceRunner, TensorRtCompiler, workspace
from spatialnet_optimize.compilers.tensorrt_host import TensorRtHost
from spatialnet_optimize.compilers.tensorrt_rtx import TensorRtRtxCompiler


@dataclass(frozen=True, slots=True)
class CompilerSettings:
    """Settings for making a compiler.

    Attributes:
        on_device: whether this computer is the target.
        memory_gb: of the target.
        progress: called with the progress of NVIDIA's builder.
    """

    on_device: bool
    memory_gb: float
    options: PlanOptions
    progress: Progress


def onnxruntime(settings: CompilerSettings) -> Compiler:
    return OnnxRuntimeCompiler()


def tensorrt(settings: CompilerSettings) -> Compiler:
    """The compiler on the device itself; elsewhere the preparing one."""
    if not settings.on_device:
        return TensorRtHost()
    device = device_here()
    options = workspace(settings.options, settings.memory_gb)
    builder = PlanBuilder(TENSORRT, options, settings.progress, timing_cache(TENSORRT, device))
    return TensorRtCompiler(builder, device, DeviceRunner(PlanBackend(TENSORRT.runtime)))


def tensorrt_rtx(settings: CompilerSettings) -> Compiler:
    return TensorRtRtxCompiler(PlanBuilder(RTX, settings.options, settings.progress))


COMPILERS: Mapping[str, Callable[[CompilerSettings], Compiler]] = {
    "onnxruntime": onnxruntime,
    "tensorrt": tensorrt,
    "tensorrt_rtx": tensorrt_rtx,
}
"""Compilers by the value of `compile` in a target's row."""


def make_compiler(name: str, settings: CompilerSettings) -> Compiler:
    """Make the compiler of a target and check the options.

    Raises:
        UsageError: see `Compiler.check`.
        EngineUnavailable, MissingExtra: its library is not installed.
    """
    compiler = COMPILERS[name](settings)
    compiler.check(settings.options)
    return compiler


def timing_cache(library: PlanLibrary, device: DeviceRecord) -> Path:
    """The timing-cache file of a device and release; it is not valid for others."""
    version = str(load_builder(library).__version__)
    parts = (library.module, version, device.compute_capability, device.name, device.board or "", str(device.multiprocessors))
    name = "-".join(part for part in parts if part)
    return cache_root() / "timings" / f"{''.join(c if c.isalnum() or c in '.-' else '_' for c in name)}.cache"
