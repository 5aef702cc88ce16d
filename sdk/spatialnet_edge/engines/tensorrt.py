"""TensorRT plans, Jetson's and those of TensorRT for RTX: their Python interfaces are one.

Everything that costs is done once, when the plan is loaded: memory on both sides, one execution context for each batch size, and a
recorded graph of copy, compute, copy. A frame is then one copy into pinned memory, one launch, one wait.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.bundle.manifest import EngineRecord, ExecutedLayer
from spatialnet_edge.core.errors import EngineError, EngineUnavailable, MissingExtra
from spatialnet_edge.core.spec import IMAGE_INPUT, ModelSpec
from spatialnet_edge.engines.devices import Buffer, Device, OutOfMemory, PycudaDevice
from spatialnet_edge.engines.tensorrt_inspector import inspect, layer_clock, timed

ANY_RTX = "any RTX GPU"
"""What the builder of TensorRT for RTX writes for: it makes the kernels where the plan is loaded."""


@dataclass(frozen=True, slots=True, eq=False)
class BatchSlot:
    """What one batch size needs: its context, its buffers, and the recorded work."""

    context: Any
    image: Buffer
    outputs: Mapping[str, Buffer]
    launch: Callable[[], None]


@final
class TensorRtEngine:
    """One plan on one device.

    Args:
        engine: TensorRT's deserialised engine, with a profile of fixed shape for each batch size.
        graphs: record CUDA graphs; False launches layer by layer.

    Raises:
        EngineUnavailable: the device has not enough memory, with what is needed and free; or the plan's tensors are not the spec's.
    """

    reentrant = False  # one set of buffers

    def __init__(self, engine: Any, device: Device, spec: ModelSpec, graphs: bool = True) -> None:
        self.spec = spec
        self._engine: Any = engine
        self._device = device
        names = {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)}
        if expected := {IMAGE_INPUT, *(output.name for output in spec.outputs)} - names:
            raise EngineUnavailable(f"the plan has no tensor '{min(expected)}'; it has {', '.join(sorted(names))}")
        self._slots: dict[int, BatchSlot] = {}
        with device.current():
            try:
                for profile in range(engine.num_optimization_profiles):
                    batch = int(engine.get_tensor_profile_shape(IMAGE_INPUT, profile)[1][0])
                    self._slots[batch] = self._make_slot(profile, batch, graphs)
            except OutOfMemory as error:
                raise EngineUnavailable(
                    f"{error}; the plan needs {engine.device_memory_size_v2} bytes for its activations and {device.free_bytes()} "
                    f"are free; stop other users of the GPU or build with a smaller batch"
                ) from error

    def infer(self, batch: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        """As `Engine.infer`. What comes back is the pinned memory itself: valid until the next call.

        Raises:
            EngineError: CUDA failed; its context cannot be trusted, and the process must end.
        """
        count = len(batch)
        if count not in self._slots:
            return self._in_parts(batch)
        try:
            return self._run(self._slots[count], batch)
        except OutOfMemory:
            return self._run(self._slots[count], batch)  # once more: another process may have been in the way

    def executed(self, trt: Any, runs: int = 20) -> tuple[ExecutedLayer, ...]:
        """The plan's layers as this device runs them at the first batch size: the precision of each, and its time.

        Args:
            trt: the library's module.
        """
        clock = layer_clock(trt)
        with self._device.current():
            slot = self._make_slot(0, next(iter(self._slots)), graphs=False)  # a recorded graph shows no layers
            slot.context.profiler = clock
            for _ in range(runs):
                slot.launch()
                self._device.synchronize()
            return timed(inspect(trt, self._engine), clock.times)

    def close(self) -> None:
        self._slots.clear()
        self._engine = None
        self._device.close()

    def _run(self, slot: BatchSlot, batch: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        with self._device.current():
            slot.image.host[...] = batch
            slot.launch()
            self._device.synchronize()
        return {name: buffer.host for name, buffer in slot.outputs.items()}

    def _in_parts(self, batch: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        """A batch that there is no profile for: the largest that fit, one after the other."""
        sizes = sorted(self._slots, reverse=True)
        parts: list[Mapping[str, NDArray[np.float32]]] = []
        start = 0
        while start < len(batch):
            size = next((size for size in sizes if size <= len(batch) - start), None)
            if size is None:
                raise EngineError(f"a batch of {len(batch)} cannot be made of the plan's batches {sorted(self._slots)}")
            answers = self._run(self._slots[size], batch[start : start + size])
            parts.append({name: np.array(values) for name, values in answers.items()})
            start += size
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _make_slot(self, profile: int, batch: int, graphs: bool) -> BatchSlot:
        context = self._engine.create_execution_context()
        if context is None:
            raise OutOfMemory("no execution context")
        device = self._device
        if not context.set_optimization_profile_async(profile, device.stream):
            raise EngineUnavailable(f"the plan's profile {profile} cannot be used")
        image = device.buffer((batch, *self.spec.input.shape), np.uint8)
        context.set_input_shape(IMAGE_INPUT, tuple(image.host.shape))
        outputs = {each.name: device.buffer((batch, each.width), np.float32) for each in self.spec.outputs}
        for name, buffer in {IMAGE_INPUT: image, **outputs}.items():
            context.set_tensor_address(name, buffer.address)

        def work() -> None:
            device.upload(image)
            if not context.execute_async_v3(device.stream):
                raise EngineError("TensorRT could not put the network on the stream")
            for buffer in outputs.values():
                device.download(buffer)

        image.host[...] = 0
        work()  # the first run allocates and, on RTX, compiles: neither may be recorded
        device.synchronize()
        return BatchSlot(context, image, outputs, device.capture(work) if graphs else work)


@final
class PlanBackend:
    """Opens the plans of one of NVIDIA's libraries.

    Args:
        module: import name of the library, and name of the backend.
        title: what people call it.
        extra: of ours that brings it.

    Raises:
        MissingExtra: it is not installed.
    """

    takes_graphs = False

    def __init__(self, module: str, title: str, extra: str) -> None:
        require(module, extra)
        self.name = self.module = module
        self.title = title

    def refuses(self, record: EngineRecord) -> str:
        return refusal(self.module, self.title, record)

    def open(self, content: bytes, spec: ModelSpec, threads: int) -> TensorRtEngine:
        """Load a plan; see `TensorRtEngine`."""
        return open_plan(self.module, self.title, content, spec)

    def open_without_weights(self, content: bytes, weights: bytes, spec: ModelSpec) -> TensorRtEngine:
        """Load a plan that was stripped, and put the weights of a graph into it."""
        return open_plan(self.module, self.title, content, spec, weights)


def tensorrt() -> PlanBackend:
    """TensorRT, as JetPack brings it."""
    return PlanBackend("tensorrt", "TensorRT", "tensorrt")


def tensorrt_rtx() -> PlanBackend:
    """TensorRT for RTX, of the extra `rtx`."""
    return PlanBackend("tensorrt_rtx", "TensorRT for RTX", "rtx")


def require(module: str, extra: str) -> None:
    """Raise `MissingExtra` unless the library itself is installed; on a Jetson, JetPack brings it."""
    try:
        import_module(module)
    except ModuleNotFoundError as error:
        if error.name == module:
            raise MissingExtra(module, extra) from error
        raise


def refusal(module: str, title: str, record: EngineRecord, open_device: Callable[[], Device] = PycudaDevice) -> str:
    """Why a plan cannot run here: another release of the library, no CUDA device, or another one than it was built for."""
    here = str(import_module(module).__version__)
    if record.path.endswith(".onnx"):
        return f"a graph that waits to be compiled by {title}: run 'spatialnet-edge build BUNDLE --target here' on this device"
    if record.library_version != here:
        return f"plan built with {title} {record.library_version}; here {here}; rebuild with 'spatialnet-edge build'"
    try:
        device = open_device()
    except (EngineUnavailable, MissingExtra) as error:
        return str(error)
    found = f"{device.name} (compute capability {device.compute_capability})"
    device.close()
    if record.device not in ("", ANY_RTX, device.name):
        return f"plan built for {record.device}; here {found}; rebuild with 'spatialnet-edge build'"
    return ""


def open_plan(module: str, title: str, content: bytes, spec: ModelSpec, weights: bytes = b"") -> TensorRtEngine:
    """Deserialise a plan whose bytes were verified (a plan is code) and make it ready to run.

    Args:
        weights: the ONNX graph that a stripped plan was built from; empty for a whole one.

    Raises:
        EngineUnavailable: this library does not take the plan, or the device has no room for it.
    """
    trt: Any = import_module(module)
    device = PycudaDevice()
    logger = trt.Logger(trt.Logger.ERROR)
    runtime = trt.Runtime(logger)
    with device.current():
        engine = runtime.deserialize_cuda_engine(content)
    if engine is None:
        raise EngineUnavailable(
            f"{title} {trt.__version__} does not take this plan on {device.name} (compute capability {device.compute_capability}); "
            f"rebuild with 'spatialnet-edge build'"
        )
    if weights:
        with device.current():
            refit(trt, title, engine, weights, logger)
    return TensorRtEngine(engine, device, spec)


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
