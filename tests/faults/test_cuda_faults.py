"""What a GPU can do wrong, on a device that is played: the real one is not here. The engine's own code runs unchanged."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from conftest import SIDE, TINY
from spatialnet_edge.bundle.manifest import EngineRecord, ExecutedLayer
from spatialnet_edge.core.errors import EngineError, EngineUnavailable, MissingExtra
from spatialnet_edge.core.frames import Frame, Skipped
from spatialnet_edge.engines.devices import Buffer, OutOfMemory, PycudaDevice
from spatialnet_edge.engines.fake import FakeEngine
from spatialnet_edge.engines.registry import CheckedEngine
from spatialnet_edge.engines.tensorrt import ANY_RTX, TensorRtEngine, refit, refusal
from spatialnet_edge.runtime.pipeline import Pipeline

PLAYED = FakeEngine(TINY)


class PlayedDevice:
    """Memory of both sides is NumPy's; the stream runs at once; `failures` are raised, one at each synchronisation."""

    name, compute_capability, stream = "Orin", "8.7", 7

    def __init__(self, mapped: bool = False, room: int = 10**9) -> None:
        self.mapped, self.room = mapped, room
        self.device_side: dict[int, np.ndarray] = {}
        self.failures: list[Exception] = []
        self.copies = self.launches = self.depth = 0
        self.closed = False

    @contextmanager
    def current(self) -> Iterator[None]:
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1

    def buffer(self, shape: tuple[int, ...], dtype: type) -> Buffer:
        host = np.zeros(shape, dtype)
        if host.nbytes > self.room:
            raise OutOfMemory("Orin: out of memory: cuMemAlloc failed")
        self.room -= host.nbytes
        address = 1000 + len(self.device_side)
        self.device_side[address] = host if self.mapped else np.zeros(shape, dtype)
        return Buffer(host, address, self.mapped, host)

    def upload(self, buffer: Buffer) -> None:
        if not buffer.mapped:
            self.device_side[buffer.address][...] = buffer.host
            self.copies += 1

    def download(self, buffer: Buffer) -> None:
        if not buffer.mapped:
            buffer.host[...] = self.device_side[buffer.address]
            self.copies += 1

    def synchronize(self) -> None:
        assert self.depth, "CUDA is used outside its context"
        if self.failures:
            raise self.failures.pop(0)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        def launch() -> None:
            self.launches += 1
            work()

        return launch

    def free_bytes(self) -> int:
        return self.room

    def close(self) -> None:
        self.closed = True


class PlayedPlan:
    """TensorRT's engine with profiles for these batches, computing what `FakeEngine` computes."""

    device_memory_size_v2 = 123_456

    def __init__(self, device: PlayedDevice, batches: tuple[int, ...] = (1, 4), names: tuple[str, ...] = ()) -> None:
        self.device, self.batches = device, batches
        self.names = names or ("image", "shade", "bands", "level")
        self.num_io_tensors, self.num_optimization_profiles = len(self.names), len(batches)

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_profile_shape(self, name: str, profile: int) -> tuple[tuple[int, ...], ...]:
        return ((self.batches[profile], SIDE, SIDE, 3),) * 3

    def create_engine_inspector(self) -> SimpleNamespace:
        layers = {"Layers": [{"Name": "all", "LayerType": "kgen", "Inputs": [{"Format/Datatype": "Half"}]}]}
        return SimpleNamespace(get_engine_information=lambda format: json.dumps(layers))

    def create_execution_context(self) -> SimpleNamespace:
        addresses: dict[str, int] = {}

        def execute(stream: int) -> bool:
            assert stream == self.device.stream
            if context.profiler is not None:
                context.profiler.report_layer_time("all", 0.25)
            answers = PLAYED.infer(self.device.device_side[addresses["image"]])
            for name, values in answers.items():
                self.device.device_side[addresses[name]][...] = values
            return True

        context = SimpleNamespace(
            profiler=None,
            set_optimization_profile_async=lambda profile, stream: True,
            set_input_shape=lambda name, shape: True,
            set_tensor_address=addresses.__setitem__,
            execute_async_v3=execute,
        )
        return context


def engine_of(device: PlayedDevice, **options) -> TensorRtEngine:
    return TensorRtEngine(PlayedPlan(device, **options), device, TINY)


class Profiler:
    """TensorRT's base class of profilers."""


def test_a_plan_tells_in_what_precision_it_runs_and_for_how_long() -> None:
    trt = SimpleNamespace(IProfiler=Profiler, LayerInformationFormat=SimpleNamespace(JSON=1))
    device = PlayedDevice()
    engine = engine_of(device)
    assert engine.executed(trt, runs=3) == (ExecutedLayer(name="all", precision="fp16", ms=0.25),)
    assert device.launches == 0  # recorded graphs show no layers


@pytest.mark.parametrize("fits", [True, False])
def test_a_stripped_plan_gets_its_weights_from_the_graph(fits: bool) -> None:
    given: list[bytes] = []
    refitter = SimpleNamespace(refit_cuda_engine=lambda: True)
    trt = SimpleNamespace(
        __version__="10.3.0",
        Refitter=lambda engine, logger: refitter,
        OnnxParserRefitter=lambda its, logger: SimpleNamespace(refit_from_bytes=lambda graph: given.append(graph) or fits),
    )
    if fits:
        refit(trt, "TensorRT", None, b"graph", None)
    else:
        with pytest.raises(EngineUnavailable, match="do not fit the stripped plan"):
            refit(trt, "TensorRT", None, b"graph", None)
    assert given == [b"graph"]


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("count", [1, 4, 2, 7])
def test_answers_are_the_networks_for_any_batch(mapped: bool, count: int) -> None:
    device = PlayedDevice(mapped)
    engine = engine_of(device)
    copies = device.copies
    for name, values in engine.infer(images(count)).items():
        assert np.array_equal(values, PLAYED.infer(images(count))[name])
    assert (device.copies > copies) is not mapped  # one memory for both sides: nothing is copied
    assert device.launches == {1: 1, 4: 1, 2: 2, 7: 4}[count]


def test_outputs_are_the_pinned_memory_itself_and_no_caller_gets_to_see_it() -> None:
    device = PlayedDevice()
    engine = engine_of(device)
    first = engine.infer(images(1))["level"]
    before = first.copy()
    assert engine.infer(np.zeros((1, SIDE, SIDE, 3), np.uint8))["level"] is first
    assert not np.array_equal(first, before)

    class Levels:
        uri, length, fps, live = "levels", None, None, False

        def __iter__(self) -> Iterator[Frame | Skipped]:
            for seq in range(30):
                yield Frame(np.full((SIDE, SIDE, 3), 30 + 5 * seq, np.uint8), seq, "levels")

        def close(self) -> None: ...

    results = list(Pipeline(CheckedEngine(engine)).stream(Levels()))
    assert [round(result.level.value) for result in results] == [30 + 5 * seq for seq in range(30)]


@pytest.mark.fault(33)
def test_no_memory_at_load_is_a_refusal_with_bytes_needed_and_free() -> None:
    with pytest.raises(EngineUnavailable, match=r"needs 123456 bytes .* 100 are free"):
        engine_of(PlayedDevice(room=100))


@pytest.mark.fault(33)
def test_no_memory_while_running_is_tried_once_more() -> None:
    device = PlayedDevice()
    engine = engine_of(device)
    device.failures = [OutOfMemory("for a moment")]
    assert np.array_equal(engine.infer(images(1))["level"], PLAYED.infer(images(1))["level"])
    device.failures = [OutOfMemory("again"), OutOfMemory("and again")]
    with pytest.raises(EngineError, match="and again"):
        engine.infer(images(1))


@pytest.mark.fault(34)
def test_any_other_cuda_error_ends_the_run_at_once() -> None:
    device = PlayedDevice()
    engine = engine_of(device)
    device.failures = [EngineError("an illegal memory access was encountered") for _ in range(3)]
    pipeline = Pipeline(engine)
    frames = [Frame(images(1)[0], seq, "camera") for seq in range(10)]

    class Camera:
        uri, length, fps, live = "camera", None, None, False

        def __iter__(self) -> Iterator[Frame | Skipped]:
            yield from frames

        def close(self) -> None: ...

    with pytest.raises(EngineError, match="illegal memory access"):
        list(pipeline.stream(Camera()))
    assert pipeline.ledger.emitted == 0
    assert pipeline.ledger.in_flight == 0
    assert device.failures  # it stopped asking


def test_a_plan_of_another_model_is_refused_by_its_tensors() -> None:
    with pytest.raises(EngineUnavailable, match="has no tensor 'bands'"):
        engine_of(PlayedDevice(), names=("image", "shade", "level"))


@pytest.mark.fault(25)
def test_a_plan_for_another_device_is_refused_before_it_is_loaded() -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    record = EngineRecord(
        path="engines/plan", backend="tensorrt_rtx", precision="fp16", device="Xavier", library_version=trt.__version__
    )

    def refuses(**change: str) -> str:
        return refusal("tensorrt_rtx", "TensorRT for RTX", msgspec.structs.replace(record, **change), PlayedDevice)

    assert refuses() == "plan built for Xavier; here Orin (compute capability 8.7); rebuild with 'spatialnet-edge build'"
    assert refuses(device=ANY_RTX) == refuses(device="Orin") == ""
    assert "0.1; here" in refuses(library_version="0.1")


def test_without_pycuda_or_a_gpu_it_says_so() -> None:
    with pytest.raises((MissingExtra, EngineUnavailable)):
        PycudaDevice()


def test_closing_gives_the_device_back() -> None:
    device = PlayedDevice()
    engine_of(device).close()
    assert device.closed
