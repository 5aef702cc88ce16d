"""TensorRT's Python interface over a PyTorch network, as far as `TensorRtEngine` uses it.

It puts PyTorch's kernels on our stream, and reads and writes the addresses that it is given. So the engine's memory, stream and
CUDA graphs run on a real driver where TensorRT is not installed. In a rehearsal the network runs on the CPU when the stand-in
of the driver synchronises the stream.
"""

from __future__ import annotations

import ctypes
import enum
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from spatialnet_edge.core.spec import IMAGE_INPUT, ModelSpec

BYTES = {torch.uint8: "|u1", torch.float32: "<f4"}


class ExecutionContextAllocationStrategy(enum.IntEnum):
    STATIC = 0
    USER_MANAGED = 2


class TorchPlan:
    """A network as a deserialised engine, with one profile for each batch size.

    Args:
        graph: takes uint8 `[N, H, W, bands]` and gives one tensor for each of the spec's outputs.
        batches: at least one.
    """

    device_memory_size_v2 = 0

    def __init__(self, graph: nn.Module, spec: ModelSpec, batches: tuple[int, ...], on_gpu: bool) -> None:
        self.graph = graph.eval().requires_grad_(False).to("cuda" if on_gpu else "cpu")
        self.spec, self.batches, self.on_gpu = spec, batches, on_gpu
        self.names = [IMAGE_INPUT, *(output.name for output in spec.outputs)]
        self.num_io_tensors, self.num_optimization_profiles = len(self.names), len(batches)

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_profile_shape(self, name: str, profile: int) -> tuple[tuple[int, ...], ...]:
        return ((self.batches[profile], *self.spec.input.shape),) * 3

    def create_execution_context(self, strategy: ExecutionContextAllocationStrategy) -> TorchContext:
        return TorchContext(self)


class TorchContext:
    """Runs the network for one batch size."""

    def __init__(self, plan: TorchPlan) -> None:
        self.plan = plan
        self.addresses: dict[str, int] = {}
        self.batch = 1
        self.kernel: Any = None

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        self.batch = self.plan.batches[profile]
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        return shape == (self.batch, *self.plan.spec.input.shape)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        if self.plan.on_gpu:
            with torch.inference_mode(), torch.cuda.stream(torch.cuda.ExternalStream(stream)):
                self.run(tensor_on_gpu)
            return True
        driver = ctypes.CDLL("libcuda.so.1")
        driver.standin_launch.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long]
        self.kernel = self.kernel or ctypes.CFUNCTYPE(None, ctypes.c_long)(lambda argument: self.run(tensor_on_cpu))
        return driver.standin_launch(stream, ctypes.cast(self.kernel, ctypes.c_void_p), 0) == 0

    def run(self, tensor_at: Callable[[int, tuple[int, ...], torch.dtype], Tensor]) -> None:
        spec = self.plan.spec
        image = tensor_at(self.addresses[IMAGE_INPUT], (self.batch, *spec.input.shape), torch.uint8)
        for output, values in zip(spec.outputs, self.plan.graph(image), strict=True):
            tensor_at(self.addresses[output.name], (self.batch, output.width), torch.float32).copy_(values)


class Array:
    """Device memory as other libraries see it (CUDA Array Interface, version 3)."""

    def __init__(self, address: int, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        self.__cuda_array_interface__ = {"shape": shape, "typestr": BYTES[dtype], "data": (address, False), "version": 3}


def tensor_on_gpu(address: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.as_tensor(Array(address, shape, dtype), device="cuda")


def tensor_on_cpu(address: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    count = torch.Size(shape).numel() * dtype.itemsize
    return torch.frombuffer((ctypes.c_uint8 * count).from_address(address), dtype=dtype).reshape(shape)
