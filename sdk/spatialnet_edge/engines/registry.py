"""The engine registry: the `Engine` protocol, the backends, and the choice of an engine.

`open_engine` tries the bundle's variants in their order of preference, the portable graph last. The reasons for rejected
variants are kept in `LoadedEngine.rejected`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import msgspec
import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.bundle.manifest import EngineRecord
from spatialnet_edge.bundle.onnx_structure import refuse_unsafe_graph
from spatialnet_edge.bundle.reader import MODEL, Bundle
from spatialnet_edge.core.errors import EngineUnavailable, MissingExtra, SpatialNetError, UsageError, first_line
from spatialnet_edge.core.plugins import Plugin, known
from spatialnet_edge.core.spec import ModelSpec
from spatialnet_edge.engines.output_validation import CheckedEngine


class Engine(Protocol):
    """Runs one model: `infer` and `close`. An engine with accessible weights is also `Inspectable`."""

    spec: ModelSpec

    @property
    def reentrant(self) -> bool:
        """Whether several threads may call `infer` at once. It may be a class attribute."""
        ...

    def infer(self, batch: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        """Probabilities of every head.

        Args:
            batch: uint8 `[N, H, W, C]`, contiguous, with the spec's input shape.

        Returns:
            Head name to float32 `[N, width]`. An engine may return its own buffers, valid until the next call from the same
                thread (from any thread if it is not reentrant). `CheckedEngine`, which every caller uses, returns copies.
        """
        ...

    def close(self) -> None: ...


class Backend(Protocol):
    """Opens one variant of a model.

    Attributes:
        takes_graphs: whether it runs the portable graph, so that it can be selected for any bundle.

    Optional abilities of a backend are declared in `OpensPlans` and `OpensInspectable`.
    """

    name: str
    takes_graphs: bool

    def refuses(self, record: EngineRecord) -> str | None:
        """Why this computer cannot run that engine; None if it can."""
        ...

    def open(self, content: bytes, spec: ModelSpec, threads: int) -> Engine: ...


@runtime_checkable
class OpensPlans(Protocol):
    """A backend of compiled plans. How a plan is opened depends on how it was built."""

    def open_plan(self, record: EngineRecord, content: bytes, weights: bytes | None, spec: ModelSpec) -> Engine:
        """Open a plan. `weights` is an ONNX graph for a plan without weights, otherwise None."""
        ...


@runtime_checkable
class OpensInspectable(Protocol):
    """A backend that can give access to the weights of its engine."""

    def open_inspectable(self, content: bytes, spec: ModelSpec, threads: int) -> Engine:
        """As `Backend.open`; the engine is `Inspectable`."""
        ...


BACKENDS: dict[str, Plugin] = {
    "onnxruntime": Plugin("spatialnet_edge.engines.onnxruntime:OnnxRuntimeBackend", "onnxruntime", ""),
    "onnxruntime_cuda": Plugin("spatialnet_edge.engines.onnxruntime:on_cuda", "onnxruntime", ""),
    "onnxruntime_tensorrt": Plugin("spatialnet_edge.engines.onnxruntime:on_tensorrt", "onnxruntime", ""),
    "openvino": Plugin("spatialnet_edge.engines.openvino:OpenVinoBackend", "openvino", "openvino"),
    "tensorrt": Plugin("spatialnet_edge.engines.tensorrt_plans:tensorrt", "tensorrt", "tensorrt"),
    "tensorrt_rtx": Plugin("spatialnet_edge.engines.tensorrt_plans:tensorrt_rtx", "tensorrt_rtx", "rtx"),
}


@dataclass(frozen=True, slots=True)
class LoadedEngine:
    """An engine that runs on this computer.

    Attributes:
        record: the variant of the model.
        rejected: one reason for each preferred variant that could not be used.
    """

    engine: Engine
    record: EngineRecord
    rejected: tuple[str, ...]


Accept = Callable[[Engine], object]
"""Validates an opened engine; raises to reject it."""


def accept_all(engine: Engine) -> None:
    """Accept every engine."""


FALLBACK = EngineRecord(path=MODEL, backend="onnxruntime", precision="fp32")


def load_backend(name: str) -> Backend:
    """The backend of this name.

    Raises:
        UsageError: no such backend.
        MissingExtra: its library is not installed.
    """
    table = known("backends", BACKENDS)
    if name not in table:
        raise UsageError(f"no backend '{name}'; available: {', '.join(sorted(table))}")
    backend: Backend = table[name].load()()
    return backend


def open_engine(
    bundle: Bundle,
    backend: str = "",
    threads: int = 0,
    fallback: bool = True,
    inspectable_weights: bool = False,
    accept: Accept = accept_all,
) -> LoadedEngine:
    """Open the most preferred variant of the model that works on this computer.

    If a variant fails (its library is missing, it does not deserialise, memory is short, its outputs are wrong), the next one
    is tried, and the reason is kept in `LoadedEngine.rejected`.

    Args:
        bundle: a verified bundle; the loaded bytes are hashed again.
        backend: use only this backend; empty: the bundle's order of preference.
        threads: per inference on a CPU; 0: one per core.
        fallback: False: raise as soon as the preferred variant fails.
        inspectable_weights: with accessible weights, if the backend supports it.
        accept: called with each opened engine; raises to reject it, as the golden test does.

    Raises:
        UsageError: no such backend.
        BundleError: a file of the bundle was changed since it was opened.
        EngineUnavailable: no variant works on this computer, with the reason for each. If there was only one variant, its own
            error is raised.
    """
    if backend and backend not in known("backends", BACKENDS):
        load_backend(backend)  # raises UsageError with the available backends
    rejected: list[str] = []
    failure: Exception | None = None
    for record in _candidates(bundle, backend):
        if rejected and not fallback:
            break
        contents = [
            bundle.read(path) for path in (record.path, record.weights) if path
        ]  # a changed file must not lead to a fallback
        try:
            engine = _open(bundle.spec, record, contents, threads, inspectable_weights)
            try:
                accept(engine)
            except BaseException:
                engine.close()
                raise
        except Exception as error:  # a library may raise anything; the next variant is tried in any case
            rejected.append(f"{record.path}: {described(error)}")
            failure = error
            continue
        return LoadedEngine(engine, record, tuple(rejected))
    if isinstance(failure, SpatialNetError) and len(rejected) == 1 and not isinstance(failure, EngineUnavailable):
        raise failure
    if not rejected:
        rejected.append(f"no engine for '{backend}'; build one with 'spatialnet-edge build'")
    raise EngineUnavailable(f"{bundle.path}: no engine runs on this computer: {'; '.join(rejected)}") from failure


def _candidates(bundle: Bundle, backend: str) -> Sequence[EngineRecord]:
    """The variants to try, the preferred one first, the portable graph on ONNX Runtime last."""
    records = [*bundle.manifest.engines]
    if not any(record.path == MODEL and record.backend == FALLBACK.backend for record in records):
        records.append(FALLBACK)
    if not backend:
        return records
    chosen = [record for record in records if record.backend == backend]
    if not chosen and backend_takes_graphs(backend):
        chosen.append(msgspec.structs.replace(FALLBACK, backend=backend))
    return chosen


def backend_takes_graphs(name: str) -> bool:
    """Whether a backend runs the portable graph. True if its library is missing, so that the missing library is reported."""
    try:
        return load_backend(name).takes_graphs
    except (MissingExtra, EngineUnavailable):
        return True


def _open(
    spec: ModelSpec, record: EngineRecord, contents: Sequence[bytes], threads: int, inspectable_weights: bool
) -> CheckedEngine:
    """Open one variant of the model.

    Args:
        contents: the variant's file, followed by the file of its weights if they are separate.
    """
    try:
        backend = load_backend(record.backend)
    except UsageError as error:  # the bundle names it, not the user
        raise EngineUnavailable(str(error)) from error
    if reason := backend.refuses(record):
        raise EngineUnavailable(reason)
    if backend.takes_graphs:  # of any library, also of plug-ins
        refuse_unsafe_graph(contents[0])
    if isinstance(backend, OpensPlans):
        return CheckedEngine(backend.open_plan(record, contents[0], contents[1] if record.weights else None, spec))
    if record.weights:
        raise EngineUnavailable(f"the backend '{record.backend}' cannot open an engine without weights")
    if inspectable_weights and isinstance(backend, OpensInspectable):
        return CheckedEngine(backend.open_inspectable(contents[0], spec, threads))
    return CheckedEngine(backend.open(contents[0], spec, threads))


def described(error: Exception) -> str:
    """An error in one line. For another library's error, the type is added, because its text alone may not be clear."""
    return str(error) if isinstance(error, SpatialNetError) else f"{type(error).__name__}: {first_line(error)}"
