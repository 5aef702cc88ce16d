"""Plans from NVIDIA's builders: TensorRT on the device, TensorRT for RTX on any Linux machine. Their Python interfaces are one.

Networks are strongly typed: what precision runs where stands in the graph, and the builder cannot change it silently. That serves
TensorRT 10.3 to 11.4 with one path. A test holds every name that is used here against the real bindings of several releases.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from spatialnet_edge.core.errors import BuildError, EngineUnavailable, MissingExtra
from spatialnet_edge.core.spec import IMAGE_INPUT

Progress = Callable[[str, int, int], None]
"""Told a phase of the build, the step that is done, and how many there are."""


def silent(phase: str, done: int, steps: int) -> None:
    """The `Progress` of who does not watch."""


@dataclass(frozen=True, slots=True)
class Library:
    """One of NVIDIA's builders.

    Attributes:
        program: the command-line program that does the same.
        extra: of ours that brings it; empty where it comes with the device.
        times_kernels: whether building measures kernels on the GPU, which a timing cache then remembers; RTX picks its kernels when
            the device loads the plan, and its builder fails if it is given a cache.
    """

    module: str
    title: str
    program: str
    extra: str = ""
    times_kernels: bool = True


RTX = Library("tensorrt_rtx", "TensorRT for RTX", "tensorrt_rtx", extra="rtx", times_kernels=False)
TENSORRT = Library("tensorrt", "TensorRT", "trtexec")


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """How a plan is built.

    Attributes:
        batches: a profile of fixed shape for each.
        level: of optimisation, 0 to 5; None for the builder's own.
        workspace_mb: the most scratch memory that a kernel may take; 8 GB boards need a limit. None for all there is.
        version_compatible: later releases can load it, at some cost in speed.
        strip_weights: leave the weights out; the device puts them in from the graph (a small uplink).
        dla_core: use this deep-learning accelerator, and the GPU for what it cannot do.
        timing_cache: what an earlier build measured, from `Plan.timing_cache`.
    """

    batches: tuple[int, ...] = (1,)
    level: int | None = None
    workspace_mb: int | None = None
    version_compatible: bool = False
    strip_weights: bool = False
    dla_core: int | None = None
    timing_cache: bytes = b""


AS_USUAL = PlanOptions()


@dataclass(frozen=True, slots=True)
class Plan:
    """A compiled engine.

    Attributes:
        version: of the library, which is the only one that can load it unless it is version-compatible.
        timing_cache: makes the next build of a similar network faster; empty where the builder measures nothing.
        on_dla, layers: how many layers the accelerator takes, of how many.
    """

    content: bytes
    version: str
    timing_cache: bytes
    seconds: float
    on_dla: int
    layers: int


def load_library(library: Library) -> Any:
    """The library's module.

    Raises:
        MissingExtra: it is not installed, and an extra brings it.
        EngineUnavailable: it is not installed, and comes with the device.
    """
    try:
        return import_module(library.module)
    except ModuleNotFoundError as error:
        if error.name != library.module:
            raise
        if library.extra:
            raise MissingExtra(library.module, library.extra) from error
        raise EngineUnavailable(
            f"{library.title} is not installed; on a Jetson it comes with JetPack (apt package python3-libnvinfer) and is seen "
            f"in a virtual environment made with --system-site-packages"
        ) from error


def build_plan(
    library: Library,
    content: bytes,
    shape: tuple[int, int, int],
    options: PlanOptions = AS_USUAL,
    progress: Progress = silent,
) -> Plan:
    """Parse a graph and build a plan.

    Args:
        shape: height, width and bands of the input.

    Raises:
        BuildError: the parser or the builder refuses; the message names the node.
    """
    trt = load_library(library)
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
    cache = config.create_timing_cache(options.timing_cache) if library.times_kernels else None
    if cache is not None:
        config.set_timing_cache(cache, False)
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


def configure(trt: Any, config: Any, options: PlanOptions) -> None:
    """Set the options on a builder's configuration."""
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # so that the plan can be asked what it runs in
    config.clear_flag(trt.BuilderFlag.TF32)  # FP32 means FP32: it is the reference that all other forms are held against
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


def trtexec(library: Library, shape: tuple[int, int, int], options: PlanOptions = AS_USUAL, graph: str = "model.onnx") -> str:
    """The command of NVIDIA's own program that builds the same plan, for who wants to check ours. First batch alone."""
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
    """Tells `progress` of every step of the builder."""

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
