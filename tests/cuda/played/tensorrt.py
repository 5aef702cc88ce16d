"""A stand-in for TensorRT's Python module, for tests without a GPU: a plan is an ONNX graph, which ONNX Runtime runs.

It uses the stand-in of libcuda as TensorRT uses the driver: it needs a current context, enqueues its work on the stream, and
reads and writes the given addresses. Build options are stored in the plan and checked when it is loaded.
"""

from __future__ import annotations

import ctypes
import enum
import json
import os

import numpy as np
import onnxruntime

__version__ = os.environ.get("PLAYED_TENSORRT", "10.3.0")
driver = ctypes.CDLL("libcuda.so.1")
Kernel = ctypes.CFUNCTYPE(None, ctypes.c_long)
driver.standin_launch.argtypes = [ctypes.c_void_p, Kernel, ctypes.c_long]
ACTIVATIONS = 4096
"""Bytes that an execution context needs."""


def require_context() -> None:
    status = driver.cuCtxGetDevice(ctypes.byref(ctypes.c_int()))
    assert status == 0, f"TensorRT is called without a usable CUDA context ({status})"


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 1


class BuilderFlag(enum.IntEnum):
    TF32 = 1
    VERSION_COMPATIBLE = 2
    STRIP_PLAN = 3
    GPU_FALLBACK = 4
    REQUIRE_USER_ALLOCATION = 5


class ExecutionContextAllocationStrategy(enum.IntEnum):
    STATIC = 0
    USER_MANAGED = 2


class ProfilingVerbosity(enum.IntEnum):
    DETAILED = 2


class MemoryPoolType(enum.IntEnum):
    WORKSPACE = 0


class DeviceType(enum.IntEnum):
    DLA = 1


class LayerInformationFormat(enum.IntEnum):
    JSON = 1


class ILogger:
    INTERNAL_ERROR, ERROR = 0, 1


class Logger(ILogger):
    def __init__(self, severity: int) -> None: ...


class IProgressMonitor: ...


class IProfiler: ...


class TimingCache:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> bytes:
        return self.content + b"measured;"


class Config:
    DLA_core: int | None = None

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.flags: set[BuilderFlag] = set()

    def create_timing_cache(self, content: bytes) -> TimingCache:
        return TimingCache(content)

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        return not cache.content or cache.content.startswith(b"measured;")

    def add_optimization_profile(self, profile: Profile) -> None:
        self.batches.append(profile.shape[0])

    def set_flag(self, flag: BuilderFlag) -> None:
        self.flags.add(flag)

    def clear_flag(self, flag: BuilderFlag) -> None:
        self.flags.discard(flag)

    def set_memory_pool_limit(self, pool: MemoryPoolType, size: int) -> None: ...

    def can_run_on_DLA(self, layer: object) -> bool:
        return False


class Profile:
    def set_shape(self, name: str, least: tuple[int, ...], usual: tuple[int, ...], most: tuple[int, ...]) -> None:
        self.shape = usual


class Network:
    content = b""
    num_layers = 1

    def get_layer(self, index: int) -> object:
        return index


class OnnxParser:
    def __init__(self, network: Network, logger: ILogger) -> None:
        self.network = network

    def parse(self, content: bytes) -> bool:
        self.network.content = content
        return True


class Builder:
    def __init__(self, logger: ILogger) -> None:
        self.logger = logger

    def create_network(self, flags: int) -> Network:
        return Network()

    def create_builder_config(self) -> Config:
        return Config()

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, network: Network, config: Config) -> bytes | None:
        try:
            onnxruntime.InferenceSession(network.content, providers=["CPUExecutionProvider"])
        except Exception as error:
            self.logger.log(ILogger.ERROR, str(error)[:100])
            return None
        stripped = BuilderFlag.STRIP_PLAN in config.flags
        options = {
            "version": __version__,
            "batches": config.batches,
            "version_compatible": BuilderFlag.VERSION_COMPATIBLE in config.flags,
            "stripped": stripped,
            "dla": config.DLA_core,
            "user_memory": BuilderFlag.REQUIRE_USER_ALLOCATION in config.flags,
        }
        return json.dumps(options).encode() + b"\n" + (b"" if stripped else network.content)


class Runtime:
    engine_host_code_allowed = False
    DLA_core: int | None = None

    def __init__(self, logger: ILogger) -> None: ...

    def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
        require_context()
        head, _, content = bytes(plan).partition(b"\n")
        options = json.loads(head)
        if options["version_compatible"] and not self.engine_host_code_allowed:
            return None
        if options["version"] != __version__ and not options["version_compatible"]:
            return None
        return None if options["dla"] != self.DLA_core else Engine(options, content)


class Engine:
    device_memory_size_v2 = ACTIVATIONS

    def __init__(self, options: dict, content: bytes) -> None:
        self.batches = options["batches"]
        self.user_memory = options["user_memory"]
        self.num_optimization_profiles = len(self.batches)
        self.half = b"FLOAT16" in content or b"fp16" in content
        self.session: onnxruntime.InferenceSession | None = None
        if content:
            self.load(content)

    def load(self, content: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self.names = [value.name for value in (*self.session.get_inputs(), *self.session.get_outputs())]
        self.num_io_tensors = len(self.names)

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_profile_shape(self, name: str, profile: int) -> tuple[tuple[int, ...], ...]:
        return ((self.batches[profile], *self.session.get_inputs()[0].shape[1:]),) * 3

    def create_execution_context(self, strategy: ExecutionContextAllocationStrategy) -> Context | None:
        require_context()
        if self.user_memory and strategy is not ExecutionContextAllocationStrategy.USER_MANAGED:
            return None
        return Context(self)

    def create_engine_inspector(self) -> Inspector:
        return Inspector()


class Inspector:
    def get_engine_information(self, format: LayerInformationFormat) -> str:
        """One layer with every type: this stand-in does not know the precisions of a plan."""
        types = [{"Format/Datatype": kind} for kind in ("Half", "Int8", "Float")]
        return json.dumps({"Layers": [{"Name": "all", "LayerType": "kgen", "Inputs": types}]})


class Context:
    profiler: IProfiler | None = None

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.addresses: dict[str, int] = {}
        self.memory: int | None = None
        self.kernel = Kernel(self.run)

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        require_context()
        return True

    def set_device_memory(self, memory: int, size: int) -> None:
        assert size >= ACTIVATIONS
        self.memory = memory

    def is_stream_capturable(self, stream: int) -> bool:
        return self.memory is not None

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = shape
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def run(self, argument: int) -> None:
        """The kernel: reads the image from device memory and writes the outputs there."""
        name, *outputs = self.engine.names
        size = int(np.prod(self.shape))
        image = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(self.addresses[name])).reshape(self.shape)
        for output, values in zip(outputs, self.engine.session.run(None, {name: image}), strict=True):
            if output in self.addresses:
                ctypes.memmove(self.addresses[output], np.ascontiguousarray(values).ctypes.data, values.nbytes)

    def execute_async_v3(self, stream: int) -> bool:
        if self.engine.user_memory and self.memory is None:
            return False
        if driver.standin_launch(stream, self.kernel, 0):
            return False
        if self.profiler is not None:
            self.profiler.report_layer_time("all", 0.25)
        return True


class Refitter:
    def __init__(self, engine: Engine, logger: ILogger) -> None:
        self.engine = engine

    def refit_cuda_engine(self) -> bool:
        return self.engine.session is not None


class OnnxParserRefitter:
    def __init__(self, refitter: Refitter, logger: ILogger) -> None:
        self.refitter = refitter

    def refit_from_bytes(self, graph: bytes) -> bool:
        try:
            self.refitter.engine.load(graph)
        except Exception:
            return False
        return True
