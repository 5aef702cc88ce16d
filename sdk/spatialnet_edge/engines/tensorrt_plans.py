"""Opens the plans of NVIDIA's libraries: TensorRT, as JetPack brings it, and TensorRT for RTX, of the extra `rtx`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any, final

from spatialnet_edge.bundle.manifest import EngineRecord
from spatialnet_edge.core.errors import EngineUnavailable, MissingExtra
from spatialnet_edge.core.spec import ModelSpec
from spatialnet_edge.engines.devices.base import Device
from spatialnet_edge.engines.devices.identity import board_name, described, same_model
from spatialnet_edge.engines.devices.registry import OpenDevice, open_device
from spatialnet_edge.engines.tensorrt import Launching, TensorRtEngine

ANY_RTX = "any RTX GPU"
"""What the builder of TensorRT for RTX writes for: it makes the kernels where the plan is loaded."""


@dataclass(frozen=True, slots=True)
class Library:
    """One of NVIDIA's libraries.

    Attributes:
        module: import name, and name of the backend.
        extra: of ours that brings it.
        user_memory: whether its plans are built to run in memory of ours; see `Launching`.
    """

    module: str
    title: str
    extra: str
    user_memory: bool = False


TENSORRT = Library("tensorrt", "TensorRT", "tensorrt")
TENSORRT_RTX = Library("tensorrt_rtx", "TensorRT for RTX", "rtx", user_memory=True)


def load_library(library: Library) -> Any:
    """The library's module.

    Raises:
        EngineUnavailable: it is not visible on a Jetson, where it comes with JetPack.
        MissingExtra: it is not installed; an extra brings it.
    """
    try:
        return import_module(library.module)
    except ModuleNotFoundError as error:
        if error.name != library.module:
            raise
        board = board_name() or ""
        if library is TENSORRT and "Jetson" in board:
            raise EngineUnavailable(
                f"TensorRT is not visible here; on {board} it comes with JetPack (apt install python3-libnvinfer) and is seen in a "
                f"virtual environment that was made with: python3 -m venv --system-site-packages"
            ) from error
        raise MissingExtra(library.module, library.extra) from error


@final
class PlanBackend:
    """Opens the plans of one library.

    Raises:
        EngineUnavailable, MissingExtra: see `load_library`.
    """

    takes_graphs = False

    def __init__(self, library: Library, device: OpenDevice = open_device) -> None:
        self.name = library.module
        self.library = library
        self._trt: Any = load_library(library)
        self._open_device = device

    def with_device(self, device: OpenDevice) -> PlanBackend:
        """The same backend, which opens the device otherwise: with another kind of memory, say."""
        return PlanBackend(self.library, device)

    @property
    def library_version(self) -> str:
        return str(self._trt.__version__)

    def refuses(self, record: EngineRecord) -> str:
        """Why a plan cannot run here: another release of the library, no CUDA device, or another one than it was built on."""
        title, here = self.library.title, self.library_version
        rebuild = "rebuild with 'spatialnet-edge build'"
        if record.path.endswith(".onnx"):
            return f"a graph that waits to be compiled by {title}: run 'spatialnet-edge build BUNDLE --target here' on this device"
        if not loads(record, here):
            return f"plan built with {title} {record.library_version}; here {here}; {rebuild}"
        try:
            device = self._open_device()
        except (EngineUnavailable, MissingExtra) as error:
            return str(error)
        found = device.identity
        device.close()
        if record.built_on is not None:
            if not same_model(record.built_on, found):
                return f"plan built on {described(record.built_on)}; here {described(found)}; {rebuild}"
        elif record.device not in ("", ANY_RTX, found.name):
            return f"plan built for {record.device}; here {described(found)}; {rebuild}"
        return ""

    def open(self, content: bytes, spec: ModelSpec, threads: int) -> TensorRtEngine:
        """Load a whole plan that was built for the GPU alone and for this release of the library. See `open_plan`."""
        return self.open_plan(EngineRecord(path="engines/plan", backend=self.name, precision="fp32"), content, None, spec)

    def open_plan(
        self,
        record: EngineRecord,
        content: bytes,
        weights: bytes | None,
        spec: ModelSpec,
        graphs: bool = True,
    ) -> TensorRtEngine:
        """Deserialise a plan and make it ready to run.

        Args:
            record: how the plan was built.
            content: whose bytes were verified, since a plan is code.
            weights: the ONNX graph that a stripped plan was built from; None for a whole plan.
            graphs: see `Launching`.

        Raises:
            EngineUnavailable: this library does not take the plan, or the device has no memory for it.
            MissingExtra: no library for CUDA is installed.
        """
        device = self._open_device()
        try:
            with device.current():
                engine = self._deserialise(record, content, weights, device)
            launching = Launching(graphs, user_memory=self.library.user_memory)
            return TensorRtEngine(self._trt, engine, device, spec, launching)
        except BaseException:
            device.close()
            raise

    def _deserialise(self, record: EngineRecord, content: bytes, weights: bytes | None, device: Device) -> Any:
        trt = self._trt
        logger = trt.Logger(trt.Logger.ERROR)
        runtime = trt.Runtime(logger)
        if record.version_compatible:
            runtime.engine_host_code_allowed = True  # such a plan holds its own runtime, verified with the rest of the bundle
        if record.dla_core is not None:
            runtime.DLA_core = record.dla_core
        engine = runtime.deserialize_cuda_engine(content)
        if engine is None:
            raise EngineUnavailable(
                f"{self.library.title} {self.library_version} does not take this plan on {described(device.identity)}; "
                f"rebuild with 'spatialnet-edge build'"
            )
        if weights is not None:
            refit(trt, self.library.title, engine, weights, logger)
        return engine


tensorrt = partial(PlanBackend, TENSORRT)
tensorrt_rtx = partial(PlanBackend, TENSORRT_RTX)


def loads(record: EngineRecord, here: str) -> bool:
    """Whether a release of the library loads a plan: its own release, and if the plan is version-compatible a later one too.

    NVIDIA, TensorRT documentation, "Version Compatibility": forward compatible within and across major releases.
    """
    if record.library_version == here:
        return True
    return record.version_compatible and release(record.library_version) <= release(here)


def release(version: str) -> tuple[int, ...]:
    """`10.3.0.post1` as numbers that compare: (10, 3, 0)."""
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def refit(trt: Any, title: str, engine: Any, weights: bytes, logger: Any) -> None:
    """Put the weights of an ONNX graph into a stripped plan.

    Raises:
        EngineUnavailable: they are not those that the plan wants.
    """
    refitter = trt.Refitter(engine, logger)
    source = trt.OnnxParserRefitter(refitter, logger)
    if not source.refit_from_bytes(weights) or not refitter.refit_cuda_engine():
        raise EngineUnavailable(
            f"{title} {trt.__version__}: the graph's weights do not fit the stripped plan; rebuild with 'spatialnet-edge build'"
        )
