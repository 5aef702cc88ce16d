"""Build plans with NVIDIA's builders: TensorRT on the device, TensorRT for RTX on any Linux computer. Their Python interface
is the same.

Networks are strongly typed: the graph sets the precision of each layer, and the builder cannot change it silently. This works
for TensorRT 10.3 to 11.4. A test checks every name that is used here against the real bindings of several releases.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spatialnet_edge.core.atomic_io import write_durably
from spatialnet_edge.core.errors import BuildError
from spatialnet_edge.core.spec import IMAGE_INPUT
from spatialnet_edge.engines import tensorrt_plans
from spatialnet_edge.engines.tensorrt_plans import Library

Progress = Callable[[str, int, int], None]
"""Called with a phase of the build, the number of completed steps, and their total."""


def silent(phase: str, done: int, steps: int) -> None:
    """A `Progress` that does nothing."""


@dataclass(frozen=True, slots=True)
class PlanLibrary:
    """One of NVIDIA's builders.

    Attributes:
        runtime: its runtime library.
        program: the equivalent command-line program.
        times_kernels: whether the builder times kernels on the GPU and uses a timing cache. RTX chooses its kernels when the
            device loads the plan, and its builder fails if it gets a cache.
    """

    runtime: Library
    program: str
    times_kernels: bool = True

    @property
    def module(self) -> str:
        return self.runtime.module

    @property
    def title(self) -> str:
        return self.runtime.title


RTX = PlanLibrary(tensorrt_plans.TENSORRT_RTX, "tensorrt_rtx", times_kernels=False)
TENSORRT = PlanLibrary(tensorrt_plans.TENSORRT, "trtexec")

PLAN_OPTIONS = "options of NVIDIA's builders (batches, level, workspace, version-compatible, stripped, DLA)"


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """Options for building a plan.

    Attributes:
        batches: one fixed-shape profile per batch size.
        level: optimisation level, 0 to 5; None: the builder's default.
        workspace_mb: limit of scratch memory per kernel; needed on 8 GB boards. None: no limit.
        version_compatible: later releases can load the plan; slower.
        strip_weights: build without weights; the device loads them from the graph (small upload).
        dla_core: use this deep-learning accelerator, and the GPU for unsupported layers.
        timing_cache: timings of an earlier build, from `Plan.timing_cache`.
    """

    batches: tuple[int, ...] = (1,)
    level: int | None = None
    workspace_mb: int | None = None
    version_compatible: bool = False
    strip_weights: bool = False
    dla_core: int | None = None
    timing_cache: bytes = b""


DEFAULT = PlanOptions()


@dataclass(frozen=True, slots=True)
class Plan:
    """A compiled engine.

    Attributes:
        version: of the library; only this one can load the plan unless it is version-compatible.
        timing_cache: speeds up the next build of a similar network; empty if the builder does not time kernels.
        on_dla, layers: number of layers on the accelerator, and of all layers.
    """

    content: bytes
    version: str
    timing_cache: bytes
    seconds: float
    on_dla: int
    layers: int


def load_builder(library: PlanLibrary) -> Any:
    """Import the library's module; raises as `tensorrt_plans.load_library`."""
    return tensorrt_plans.load_library(library.runtime)


@dataclass(frozen=True, slots=True)
class PlanBuilder:
    """Builds the plans of several graphs with the same library and options.

    Attributes:
        progress: called with the builder's progress.
        timings: a file for the timing cache of this device; None: no cache.
    """

    library: PlanLibrary
    options: PlanOptions = DEFAULT
    progress: Progress = silent
    timings: Path | None = None

    def compile(self, content: bytes, shape: tuple[int, int, int]) -> Plan:
        """Build a plan; as `build_plan`."""
        plan = self._build(content, shape, strip_weights=False)
        if self.timings is not None and plan.timing_cache:
            with suppress(OSError):  # only the next build takes longer
                self.timings.parent.mkdir(parents=True, exist_ok=True)
                write_durably(self.timings, plan.timing_cache)
        return plan

    def without_weights(self, content: bytes, shape: tuple[int, int, int]) -> bytes:
        """The same plan without weights, which the device loads from the graph."""
        return self._build(content, shape, strip_weights=True).content

    def _build(self, content: bytes, shape: tuple[int, int, int], strip_weights: bool) -> Plan:
        """Build with the timing cache: kernels are timed once, and the choice is the same with and without weights."""
        known = self.timings.read_bytes() if self.timings is not None and self.timings.is_file() else b""
        options = replace(self.options, timing_cache=known, strip_weights=strip_weights)
        return build_plan(self.library, content, shape, options, self.progress)


def build_plan(
    library: PlanLibrary,
    content: bytes,
    shape: tuple[int, int, int],
    options: PlanOptions = DEFAULT,
    progress: Progress = silent,
) -> Plan:
    """Parse a graph and build a plan.

    Args:
        shape: height, width and bands of the input.

    Raises:
        BuildError: the parser or the builder refuses; the message names the node.
    """
    trt = load_builder(library)
    started = time.monotonic()
    logger = last_error_logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(content):
        first = parser.get_error(0)
        raise BuildError(
            f"{library.title} {trt.__version__} refuses the graph at node {first.node()} '{first.node_name()}' "
            f"({first.node_operator()}): {first.desc()}"
        )
    config = builder.create_builder_config()
    config.progress_monitor = progress_monitor(trt, progress)
    configure(trt, config, options)
    if library.runtime.user_memory:
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)  # otherwise its work may not be capturable as a CUDA graph
    cache = attach_timing_cache(config, options.timing_cache) if library.times_kernels else None
    for batch in options.batches:
        profile = builder.create_optimization_profile()
        fixed = (batch, *shape)
        profile.set_shape(IMAGE_INPUT, fixed, fixed, fixed)
        config.add_optimization_profile(profile)
    count = network.num_layers
    on_dla = 0
    if options.dla_core is not None:
        on_dla = sum(bool(config.can_run_on_DLA(network.get_layer(index))) for index in range(count))
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BuildError(f"{library.title} {trt.__version__} could not build the network: {logger.last or 'no reason given'}")
    measured = b"" if cache is None else bytes(cache.serialize())
    return Plan(bytes(plan), str(trt.__version__), measured, time.monotonic() - started, on_dla, count)


def attach_timing_cache(config: Any, known: bytes) -> Any:
    """Give the timing cache to the builder; an empty one if it rejects the cache (another device or release, a damaged
    file)."""
    cache = config.create_timing_cache(known)
    if cache is not None and config.set_timing_cache(cache, False):
        return cache
    cache = config.create_timing_cache(b"")
    config.set_timing_cache(cache, False)
    return cache


def configure(trt: Any, config: Any, options: PlanOptions) -> None:
    """Set the options on a builder's configuration."""
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # so that the inspector reports the executed precision
    config.clear_flag(trt.BuilderFlag.TF32)  # no TF32: FP32 is the reference of all other variants
    if options.level is not None:
        config.builder_optimization_level = options.level
    if options.workspace_mb is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mb << 20)
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.strip_weights:
        config.set_flag(trt.BuilderFlag.STRIP_PLAN)
    if options.dla_core is not None:
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = options.dla_core
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)


def trtexec(
    library: PlanLibrary, shape: tuple[int, int, int], options: PlanOptions = DEFAULT, graph: str = "model.onnx"
) -> str:
    """The command of NVIDIA's program that builds the same plan, for comparison. Only for the first batch size."""
    fixed = "x".join(map(str, (options.batches[0], *shape)))
    words = [
        library.program,
        f"--onnx={graph}",
        "--stronglyTyped",
        f"--shapes={IMAGE_INPUT}:{fixed}",
        "--saveEngine=model.plan",
    ]
    if options.level is not None:
        words.append(f"--builderOptimizationLevel={options.level}")
    if options.workspace_mb is not None:
        words.append(f"--memPoolSize=workspace:{options.workspace_mb}")
    if options.version_compatible:
        words.append("--versionCompatible")
    if options.strip_weights:
        words.append("--stripWeights")
    if options.dla_core is not None:
        words += [f"--useDLACore={options.dla_core}", "--allowGPUFallback"]
    return " ".join(words)


def progress_monitor(trt: Any, progress: Progress) -> Any:
    """Reports every step of the builder to `progress`."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.steps[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            progress(phase_name, step + 1, self.steps.get(phase_name, 0))
            return True

        def phase_finish(self, phase_name: str) -> None:
            self.steps.pop(phase_name, None)

    return Monitor()


def last_error_logger(trt: Any) -> Any:
    """Keeps the last error instead of printing everything."""

    class LastError(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last = ""

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.last = message

    return LastError()
