"""Run a TensorRT plan, of TensorRT or of TensorRT for RTX; both have the same Python interface.

Expensive work is done once at load: memory on both sides, one execution context per batch size, and a CUDA
graph of copy, compute, copy. A frame then needs one copy into pinned memory, one launch and one wait.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.bundle.manifest import ExecutedLayer
from spatialnet_edge.core.errors import EngineError, EngineUnavailable
from spatialnet_edge.core.spec import IMAGE_INPUT, ModelSpec
from spatialnet_edge.engines.devices.base import Buffer, Device, OutOfMemory
from spatialnet_edge.engines.tensorrt_inspector import inspect, inspector_json, layer_clock, timed


@dataclass(frozen=True, slots=True)
class Launching:
    """How a plan is launched on the stream.

    Attributes:
        graphs: record CUDA graphs; False: launch layer by layer.
        user_memory: allocate the activation memory of each execution context ourselves, because the plan was built with
            `REQUIRE_USER_ALLOCATION`. TensorRT for RTX requires it for graph capture.
    """

    graphs: bool = True
    user_memory: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class BatchSlot:
    """Buffers and launcher for one batch size.

    Attributes:
        launch: enqueues copy, compute, copy on the stream.
        not_captured: why no CUDA graph was recorded although requested; None if it was.
    """

    context: Any
    image: Buffer
    outputs: Mapping[str, Buffer]
    launch: Callable[[], None]
    not_captured: str | None = None


@final
class TensorRtEngine:
    """One plan on one device. The engine owns the device and closes it.

    Work that cannot be captured as a CUDA graph is launched layer by layer: slower, with the same results. `not_captured` has
    the reason.

    Args:
        trt: the library's module.
        engine: TensorRT's deserialised engine, with a fixed-shape profile per batch size.

    Raises:
        EngineUnavailable: too little device memory, with the bytes needed and free; the plan's tensors are not the spec's; or
            its first run fails.
    """

    reentrant = False  # one set of buffers

    def __init__(self, trt: Any, engine: Any, device: Device, spec: ModelSpec, launching: Launching = Launching()) -> None:
        self.spec = spec
        self._trt: Any = trt
        self._engine: Any = engine
        self._device = device
        self._launching = launching
        names = {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)}
        if expected := {IMAGE_INPUT, *(output.name for output in spec.outputs)} - names:
            raise EngineUnavailable(f"the plan has no tensor '{min(expected)}'; it has {', '.join(sorted(names))}")
        self._slots: dict[int, BatchSlot] = {}
        try:
            with device.current():
                for profile in range(engine.num_optimization_profiles):
                    batch = int(engine.get_tensor_profile_shape(IMAGE_INPUT, profile)[1][0])
                    self._slots[batch] = self._make_slot(profile, batch, launching.graphs)
        except OutOfMemory as error:
            with device.current():
                free = device.free_bytes()
            raise EngineUnavailable(
                f"{error}; the plan needs {engine.device_memory_size_v2} bytes for its activations and {free} are free; "
                f"stop other users of the GPU or build with a smaller batch"
            ) from error
        except EngineError as error:
            raise EngineUnavailable(f"the plan does not run on {device.identity.name}: {error}") from error

    @property
    def not_captured(self) -> str | None:
        """Why the engine launches layer by layer although CUDA graphs were requested; None if it uses graphs."""
        return next((slot.not_captured for slot in self._slots.values() if slot.not_captured), None)

    @property
    def batches(self) -> tuple[int, ...]:
        """The batch size of each of the plan's profiles, in the plan's order."""
        return tuple(self._slots)

    def infer(self, batch: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        """As `Engine.infer`. The returned arrays are the pinned memory itself: valid until the next call.

        Raises:
            EngineError: CUDA failed. Its context is unusable, and the process must end.
        """
        count = len(batch)
        if count not in self._slots:
            return self._in_parts(batch)
        try:
            return self._run(self._slots[count], batch)
        except OutOfMemory:
            return self._run(self._slots[count], batch)  # retry once: another process may have used the memory

    def executed(self, runs: int = 20) -> tuple[ExecutedLayer, ...]:
        """The plan's layers as executed at the first batch size: the precision and time of each."""
        clock = layer_clock(self._trt)
        with self._device.current():
            slot = self._make_slot(0, next(iter(self._slots)), graphs=False)  # a recorded graph reports no layers
            slot.context.profiler = clock
            for _ in range(runs):
                slot.launch()
                self._device.synchronize()
            return timed(inspect(self._trt, self._engine), clock.times)

    def inspector_json(self) -> str:
        """The raw output of the library's engine inspector."""
        with self._device.current():
            return inspector_json(self._trt, self._engine)

    def close(self) -> None:
        with self._device.current():  # TensorRT frees its memory where its context is current
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
        """Split a batch without a profile into the largest batches that have one."""
        sizes = sorted(self._slots, reverse=True)
        parts: list[Mapping[str, NDArray[np.float32]]] = []
        start = 0
        while start < len(batch):
            size = next((size for size in sizes if size <= len(batch) - start), None)
            if size is None:
                raise EngineError(f"a batch of {len(batch)} cannot be split into the plan's batches {sorted(self._slots)}")
            answers = self._run(self._slots[size], batch[start : start + size])
            parts.append({name: np.array(values) for name, values in answers.items()})
            start += size
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _make_slot(self, profile: int, batch: int, graphs: bool) -> BatchSlot:
        context, device = self._make_context(profile), self._device
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
        work()  # the first run allocates and, on RTX, compiles: neither may be captured
        device.synchronize()
        if not graphs:
            return BatchSlot(context, image, outputs, work)
        try:
            if self._launching.user_memory and not context.is_stream_capturable(device.stream):
                raise EngineError("according to the library, this plan's work cannot be captured")
            return BatchSlot(context, image, outputs, device.capture(work))
        except OutOfMemory:
            raise
        except EngineError as error:
            return BatchSlot(context, image, outputs, work, not_captured=str(error))

    def _make_context(self, profile: int) -> Any:
        """Make an execution context with this profile, and with our own memory if the plan requires it."""
        strategies = self._trt.ExecutionContextAllocationStrategy
        strategy = strategies.USER_MANAGED if self._launching.user_memory else strategies.STATIC
        context = self._engine.create_execution_context(strategy)
        if context is None:
            raise OutOfMemory("no execution context")
        if self._launching.user_memory:
            size = int(self._engine.device_memory_size_v2)
            context.set_device_memory(self._device.allocate(max(size, 1)), size)
        if not context.set_optimization_profile_async(profile, self._device.stream):
            raise EngineUnavailable(f"the plan's profile {profile} cannot be used")
        return context
