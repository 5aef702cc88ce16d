"""Load the plans of NVIDIA's libraries: TensorRT (part of JetPack) and TensorRT for RTX (extra `rtx`)."""

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
"""Target of TensorRT for RTX plans: the kernels are compiled when the plan is loaded."""


@dataclass(frozen=True, slots=True)
class Library:
    """One of NVIDIA's libraries.

    Attributes:
        module: import name, and name of the backend.
        extra: our extra that installs it.
        user_memory: whether its plans run in memory that we allocate; see `Launching`.
    """

    module: str
    title: str
    extra: str
    user_memory: bool = False


TENSORRT = Library("tensorrt", "TensorRT", "tensorrt")
TENSORRT_RTX = Library("tensorrt_rtx", "TensorRT for RTX", "rtx", user_memory=True)


def load_library(library: Library) -> Any:
    """Import the library's module.

    Raises:
        EngineUnavailable: it is not importable on a Jetson, where it is part of JetPack.
        MissingExtra: it is not installed; an extra installs it.
    """
    try:
        return import_module(library.module)
    except ModuleNotFoundError as error:
        if error.name != library.module:
            raise
        board = board_name() or ""
        if library is TENSORRT and "Jetson" in board:
            raise EngineUnavailable(
                f"TensorRT cannot be imported; on {board} it is part of JetPack (apt install python3-libnvinfer), and "
                "a virtual environment can import it if it was made with: python3 -m venv --system-site-packages"
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
        """The same backend with another way to open the device, for instance with another kind of memory."""
        return PlanBackend(self.library, device)

    @property
    def library_version(self) -> str:
        return str(self._trt.__version__)

    def refuses(self, record: EngineRecord) -> str | None:
        """Why a plan cannot run on this computer: another release of the library, no CUDA device, or another device than it
        was built on; None if it can."""
        title, here = self.library.title, self.library_version
        rebuild = "rebuild with 'spatialnet-edge build'"
        if record.path.endswith(".onnx"):
            return f"{title} has not compiled this graph yet: run 'spatialnet-edge build BUNDLE --target here' on this device"
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
        return None

    def open(self, content: bytes, spec: ModelSpec, threads: int) -> TensorRtEngine:
        """Load a complete plan, built for the GPU only and for this release of the library. See `open_plan`."""
        return self.open_plan(EngineRecord(path="engines/plan", backend=self.name, precision="fp32"), content, None, spec)

    def open_plan(
        self,
        record: EngineRecord,
        content: bytes,
        weights: bytes | None,
        spec: ModelSpec,
        graphs: bool = True,
    ) -> TensorRtEngine:
        """Deserialise a plan and prepare it for inference.

        Args:
            record: how the plan was built.
            content: verified bytes, because a plan contains code.
            weights: the ONNX graph of a plan without weights; None for a complete plan.
            graphs: see `Launching`.

        Raises:
            EngineUnavailable: the library refuses the plan, or the device has too little memory.
            MissingExtra: no CUDA library is installed.
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
            runtime.engine_host_code_allowed = True  # such a plan contains its own runtime, which was verified with the bundle
        if record.dla_core is not None:
            runtime.DLA_core = record.dla_core
        engine = runtime.deserialize_cuda_engine(content)
        if engine is None:
            raise EngineUnavailable(
                f"{self.library.title} {self.library_version} cannot load this plan on {described(device.identity)}; "
                f"rebuild with 'spatialnet-edge build'"
            )
        if weights is not None:
            refit(trt, self.library.title, engine, weights, logger)
        return engine


tensorrt = partial(PlanBackend, TENSORRT)
tensorrt_rtx = partial(PlanBackend, TENSORRT_RTX)


def loads(record: EngineRecord, here: str) -> bool:
    """Whether a release of the library can load a plan: the same release, or a later one if the plan is version-compatible.

    NVIDIA, TensorRT documentation, "Version Compatibility": forward compatible within and across major releases.
    """
    if record.library_version == here:
        return True
    return record.version_compatible and release(record.library_version) <= release(here)


def release(version: str) -> tuple[int, ...]:
    """A version as comparable numbers: `10.3.0.post1` gives (10, 3, 0)."""
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def refit(trt: Any, title: str, engine: Any, weights: bytes, logger: Any) -> None:
    """Load the weights of an ONNX graph into a plan without weights.

    Raises:
        EngineUnavailable: the weights do not match the plan.
    """
    refitter = trt.Refitter(engine, logger)
    source = trt.OnnxParserRefitter(refitter, logger)
    if not source.refit_from_bytes(weights) or not refitter.refit_cuda_engine():
        raise EngineUnavailable(
            f"{title} {trt.__version__}: the graph's weights do not match the stripped plan; rebuild with "
            "'spatialnet-edge build'"
        )
