"""Engines: what turns a batch of pixels into probabilities.

`open_engine` walks the bundle's engines in their order of preference and ends at the portable graph. It never changes from
one to the next silently: what was passed over, and why, stands in `LoadedEngine.rejected`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.bundle.manifest import EngineRecord
from spatialnet_edge.bundle.reader import MODEL, Bundle
from spatialnet_edge.core.errors import EngineUnavailable, MissingExtra, UsageError
from spatialnet_edge.core.plugins import Plugin, known
from spatialnet_edge.core.spec import ModelSpec
from spatialnet_edge.engines.output_validation import CheckedEngine


class Engine(Protocol):
    """One verb and close."""

    spec: ModelSpec
    reentrant: bool
    """Whether several threads may call `infer` at once."""

    def infer(self, batch: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        """Probabilities of every head.

        Args:
            batch: uint8 `[N, H, W, C]`, contiguous, as the spec's input says.

        Returns:
            Head name to float32 `[N, width]`. An engine may give its own buffers, valid until the next call from the same thread
            (from any thread if it is not reentrant). `CheckedEngine`, which every caller uses, gives copies.
        """
        ...

    def close(self) -> None: ...


class Backend(Protocol):
    """Opens one form of a model.

    Attributes:
        takes_graphs: whether it runs the portable graph, so that it can be asked for with any bundle.

    A backend whose plans may come without their weights also has `open_without_weights(content, weights, spec)`; one that can
    show the memory that its engine computes with has `open_inspectable(content, spec, threads)`, whose engine has `weights`.
    """

    name: str
    takes_graphs: bool

    def refuses(self, record: EngineRecord) -> str:
        """Why this machine cannot run that engine; empty when it can."""
        ...

    def open(self, content: bytes, spec: ModelSpec, threads: int) -> Engine: ...


BACKENDS: dict[str, Plugin] = {
    "onnxruntime": Plugin("spatialnet_edge.engines.onnxruntime:OnnxRuntimeBackend", "onnxruntime", ""),
    "onnxruntime_cuda": Plugin("spatialnet_edge.engines.onnxruntime:on_cuda", "onnxruntime", ""),
    "onnxruntime_tensorrt": Plugin("spatialnet_edge.engines.onnxruntime:on_tensorrt", "onnxruntime", ""),
    "openvino": Plugin("spatialnet_edge.engines.openvino:OpenVinoBackend", "openvino", "openvino"),
    "tensorrt": Plugin("spatialnet_edge.engines.tensorrt:tensorrt", "tensorrt", "tensorrt"),
    "tensorrt_rtx": Plugin("spatialnet_edge.engines.tensorrt:tensorrt_rtx", "tensorrt_rtx", "rtx"),
}


@dataclass(frozen=True, slots=True)
class LoadedEngine:
    """An engine that runs here.

    Attributes:
        record: which form of the model it is.
        rejected: for each preferred form that could not be used, why.
    """

    engine: Engine
    record: EngineRecord
    rejected: tuple[str, ...]


FALLBACK = EngineRecord(path=MODEL, backend="onnxruntime", precision="fp32")


def load_backend(name: str) -> Backend:
    """The backend of this name.

    Raises:
        UsageError: no such backend.
        MissingExtra: its library is not installed.
    """
    table = known("backends", BACKENDS)
    if name not in table:
        raise UsageError(f"no backend '{name}'; there are {', '.join(sorted(table))}")
    backend: Backend = table[name].load()()
    return backend


def open_engine(
    bundle: Bundle, backend: str = "", threads: int = 0, fallback: bool = True, inspectable_weights: bool = False
) -> LoadedEngine:
    """Open the most preferred form of the model that runs here.

    Args:
        bundle: whose files were verified; the bytes that are loaded are hashed once more.
        backend: take this backend alone; empty for the bundle's order of preference.
        threads: for one inference on a CPU; 0 for one a core.
        fallback: False refuses as soon as the preferred form cannot run here.
        inspectable_weights: with its weights where they can be seen, if the backend can do that.

    Raises:
        EngineUnavailable: nothing in the bundle runs here, with the reason for each form.
    """
    records = [*bundle.manifest.engines]
    if all(record.path != MODEL for record in records):
        records.append(FALLBACK)
    if backend and all(record.backend != backend for record in records) and load_backend(backend).takes_graphs:
        records.append(msgspec.structs.replace(FALLBACK, backend=backend))
    rejected: list[str] = []
    for record in records:
        if backend and record.backend != backend:
            continue
        if rejected and not fallback:
            break
        try:
            loaded = load_backend(record.backend)
        except MissingExtra as error:
            rejected.append(f"{record.path}: {error}")
            continue
        if reason := loaded.refuses(record):
            rejected.append(f"{record.path}: {reason}")
            continue
        return LoadedEngine(
            CheckedEngine(_open(loaded, bundle, record, threads, inspectable_weights)), record, tuple(rejected)
        )
    if backend and not rejected:
        load_backend(backend)  # says so when there is no such backend at all
        rejected.append(f"no engine for '{backend}'; build one with 'spatialnet-edge build'")
    raise EngineUnavailable(f"{bundle.path}: no engine runs here: {'; '.join(rejected)}")


def _open(backend: Any, bundle: Bundle, record: EngineRecord, threads: int, inspectable_weights: bool) -> Engine:
    content = bundle.read(record.path)
    if record.weights:
        if not hasattr(backend, "open_without_weights"):
            raise EngineUnavailable(f"{record.path}: the backend '{record.backend}' takes no engine without its weights")
        return backend.open_without_weights(content, bundle.read(record.weights), bundle.spec)
    if inspectable_weights and hasattr(backend, "open_inspectable"):
        return backend.open_inspectable(content, bundle.spec, threads)
    return backend.open(content, bundle.spec, threads)
