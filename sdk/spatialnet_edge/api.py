"""The runtime in five lines.

import spatialnet_edge

for result in spatialnet_edge.stream("builtin:student", "video.mp4"):
    print(result.land_use.label, result.age_ms)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.bundle.reader import Bundle, open_bundle
from spatialnet_edge.bundle.trust import Trust
from spatialnet_edge.core.errors import EngineError, GoldenTestFailed
from spatialnet_edge.core.frames import Frame
from spatialnet_edge.core.hardware_info import cores
from spatialnet_edge.core.results import FrameResult
from spatialnet_edge.engines.registry import LoadedEngine, open_engine
from spatialnet_edge.runtime.frame_stats import FrameStats
from spatialnet_edge.runtime.golden import GoldenTest, GoldenVectors, golden_vectors
from spatialnet_edge.runtime.pipeline import Hooks, Pipeline
from spatialnet_edge.sinks.registry import Sink
from spatialnet_edge.sources.pose import PoseAt, PosedSource
from spatialnet_edge.sources.registry import Source, open_source


@dataclass(frozen=True, slots=True)
class Model:
    """A bundle with a running engine that has passed the golden test. A context manager."""

    bundle: Bundle
    opened: LoadedEngine
    vectors: GoldenVectors
    golden: GoldenTest

    def classify(self, image: NDArray[np.uint8]) -> FrameResult:
        """Classify one image, uint8 `[H, W, 3]`, RGB, or `[H, W, bands]` for a model of several groups of bands.

        Raises:
            SourceRefused: it is another kind of array: floats would be cut to zeros and ones.
        """
        return Pipeline(self.opened.engine).step(Frame(np.asarray(image), 0, "array"))

    def pipeline(
        self,
        policy: str = "every",
        smoothing_s: float = 0.0,
        workers: int = 0,
        deadline_s: float = float("inf"),
        drop_late: bool = False,
    ) -> Pipeline:
        """A pipeline on this engine; `workers` 0 is one a core, or one alone under `latest`. The rest as `Pipeline` has it."""
        default = 1 if policy == "latest" else cores()
        hooks = Hooks(on_suspect_output=self.require_still_golden)
        return Pipeline(self.opened.engine, policy, smoothing_s, workers or default, deadline_s, drop_late, hooks)

    def require_still_golden(self, error: EngineError) -> None:
        """Whether the engine is to blame for strange answers: raise them as they are unless it passes the golden test."""
        try:
            self.vectors.require(self.opened.engine)
        except (GoldenTestFailed, EngineError) as failed:
            raise EngineError(f"{error}; and {failed}") from failed

    def __enter__(self) -> Model:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.opened.engine.close()


def load(
    bundle: str | Path,
    backend: str = "",
    threads: int = 0,
    *,
    trust: Trust | None = None,
    fallback: bool = True,
    inspectable_weights: bool = False,
) -> Model:
    """Open a bundle, verify it, start the best engine for this machine and run the golden test.

    Args:
        bundle: a `.snb` file, a bundle directory, or `builtin:student`.
        backend: force one, such as `onnxruntime`.
        threads: for one inference on a CPU; 0 for one a core.
        trust: who may sign; None for the keys of this computer, if it has any.
        fallback: whether another engine of the bundle may stand in for the preferred one.
        inspectable_weights: lay the weights where they can be seen and checked; slower (decision 0011).

    Raises:
        BundleError, EngineUnavailable, GoldenTestFailed: refused, and why.
    """
    opened_bundle = open_bundle(bundle, trust)
    opened = open_engine(opened_bundle, backend, threads, fallback, inspectable_weights)
    vectors = golden_vectors(opened_bundle)
    return Model(opened_bundle, opened, vectors, vectors.require(opened.engine))


def engine_threads(policy: str) -> int:
    """Threads for one inference: all cores for the freshest answer, one when several frames share the cores."""
    return 0 if policy == "latest" else 1


def default_policy(source: Source) -> str:
    """`latest` for what will not wait, `every` for recordings."""
    return "latest" if source.live else "every"


def stream(
    bundle: str | Path,
    source: str | Path | int,
    *,
    policy: str = "",
    smoothing_s: float = 0.0,
    backend: str = "",
    sinks: Sequence[Sink] = (),
    pose: PoseAt | None = None,
) -> Iterator[FrameResult]:
    """Classify every frame of a source.

    Args:
        bundle: see `load`.
        source: a path, a camera's number, or a URI of `spatialnet_edge.sources`.
        policy: `every`, `latest` or `queue:N`; by default `latest` for live sources and `every` for recordings.
        smoothing_s: half-life of the temporal smoothing, seconds; 0 for none.
        sinks: each result is also written to these; they stay open.
        pose: asked for the pose of each frame, with the moment of its capture (`time.monotonic_ns`).

    Yields:
        One result for each frame, in order.
    """
    opened_source = open_source(source)
    if pose is not None:
        opened_source = PosedSource(opened_source, pose)
    try:
        chosen = policy or default_policy(opened_source)
        with load(bundle, backend, engine_threads(chosen)) as model:
            for result in model.pipeline(chosen, smoothing_s).stream(opened_source):
                for sink in sinks:
                    sink.write(result)
                yield result
    finally:
        opened_source.close()


__all__ = ["FrameStats", "Model", "load", "stream"]
