"""The public Python API.

import spatialnet_edge

model = spatialnet_edge.load("builtin:spatialnet-s")
print(model("photo.jpg"))
for result in model.stream("video.mp4", smoothing_s=0.3):
    print(result.seq, result["land_use"])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypedDict, overload

from spatialnet_edge.bundle.reader import Bundle, open_bundle
from spatialnet_edge.bundle.trust import Trust
from spatialnet_edge.core.errors import EngineError, SourceRefused
from spatialnet_edge.core.frames import Frame, Skipped
from spatialnet_edge.core.results import FrameResult
from spatialnet_edge.engines.registry import LoadedEngine, open_engine
from spatialnet_edge.runtime.golden import GoldenTest, GoldenVectors, golden_vectors
from spatialnet_edge.runtime.inputs import SourceLike, open_input
from spatialnet_edge.runtime.options import StreamOptions
from spatialnet_edge.runtime.outputs import Sinks
from spatialnet_edge.runtime.pipeline import Pipeline
from spatialnet_edge.runtime.session import Batching, Session, default_policy, engine_threads
from spatialnet_edge.runtime.stream import Stream
from spatialnet_edge.sources.iterable import ImageLike, frame_of
from spatialnet_edge.sources.pose import PoseAt
from spatialnet_edge.sources.supervised import Report, ignore_event

if TYPE_CHECKING:
    from typing_extensions import Unpack


class StreamArguments(TypedDict, total=False):
    """Keyword arguments with the fields of `StreamOptions`."""

    policy: str | None
    smoothing_s: float
    workers: int | None
    deadline_s: float | None
    drop_late: bool
    wait: bool | None
    silence_s: float
    own_process: bool | None
    show: tuple[str, ...]
    only: tuple[str, ...]
    value_range: tuple[float, float] | None
    gsd: float | None
    fov_deg: float | None
    ground_m: float
    credentials: str


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded model: a verified bundle and an engine that has passed the golden test. It is thread-safe and a context manager.

    Attributes:
        bundle: the verified bundle.
        session: the engine and its open streams.
        golden: the result of the golden test at load.
    """

    bundle: Bundle
    session: Session
    golden: GoldenTest
    _single: Pipeline

    def __repr__(self) -> str:
        spec, engine = self.bundle.spec, self.opened.record
        heads = ", ".join(head.name for head in spec.heads)
        return f"<Model {spec.name} ({self.bundle.short_hash}), {engine.precision} on {engine.backend}: {heads}>"

    @property
    def opened(self) -> LoadedEngine:
        """The variant that runs, and why others were rejected."""
        return self.session.loaded

    @overload
    def __call__(self, image: ImageLike | Frame) -> FrameResult: ...

    @overload
    def __call__(self, image: Sequence[ImageLike | Frame]) -> list[FrameResult]: ...

    def __call__(self, image: ImageLike | Frame | Sequence[ImageLike | Frame]) -> FrameResult | list[FrameResult]:
        """Classify one image or a list of images.

        Args:
            image: uint8 `[H, W, 3]`, RGB (or `[H, W, bands]` for a model of several groups of bands), a Pillow image, a path, a
                `Frame`, or a list of these.

        Raises:
            SourceRefused: not an image, a damaged image, or an array of another dtype or shape. Float arrays are refused,
                because a cast to uint8 would lose their values.
            InvalidOutput: the engine's output is invalid, such as NaN.
        """
        if isinstance(image, list | tuple):
            return [self._classify(each, index) for index, each in enumerate(image)]
        return self._classify(image, 0)

    def _classify(self, image: object, index: int) -> FrameResult:
        frame = frame_of(image, index)
        if isinstance(frame, Skipped):
            raise SourceRefused(frame.detail)
        return self._single.step(frame)

    def stream(
        self,
        source: SourceLike,
        options: StreamOptions | None = None,
        *,
        sinks: Sinks = (),
        pose: PoseAt | None = None,
        report: Report = ignore_event,
        name: str | None = None,
        **changes: Unpack[StreamArguments],
    ) -> Stream:
        """Classify every frame of a source.

        Args:
            source: a path, a camera's number, a URI of `spatialnet_edge.sources`, an open `Source`, or an iterable of images or
                frames, such as a generator.
            options: see `StreamOptions`; single options may be given as keyword arguments instead.
            sinks: URIs of `spatialnet_edge.sinks` or open sinks. Each result is written to them, and they are closed at the
                end.
            pose: function from a capture time (`time.monotonic_ns`) to the pose of that frame.
            report: called with the name and one line of text for each event of the source and the sinks.
            name: display name of the source; None: its URI without user and password.

        Returns:
            An iterator over one result per frame, in frame order. It is also a context manager.

        Raises:
            Refused, UsageError: the source or a sink cannot be opened.
        """
        chosen = replace(options or StreamOptions(), **changes)
        return self.session.open_stream(source, chosen, sinks=sinks, pose=pose, report=report, name=name)

    def require_still_golden(self, error: EngineError) -> None:
        """See `Session.require_still_golden`."""
        self.session.require_still_golden(error)

    @property
    def vectors(self) -> GoldenVectors:
        """The golden frames and outputs of the bundle."""
        return self.session.vectors

    def close(self) -> None:
        """End all streams and close the engine. A second call does nothing."""
        self.session.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def load(
    bundle: str | Path,
    backend: str = "",
    threads: int = 0,
    *,
    trust: Trust | None = None,
    fallback: bool = True,
    inspectable_weights: bool = False,
    batching: Batching | None = None,
) -> Model:
    """Open a bundle, verify it, start the best engine for this computer and run the golden test.

    Args:
        bundle: a `.snb` file, a bundle directory, or `builtin:spatialnet-s`.
        backend: force one, such as `onnxruntime`.
        threads: CPU threads per inference; 0: one per core. 1 is faster for recordings, because several frames run in parallel.
        trust: the trusted keys; None: the trust store of this computer, if there is one.
        fallback: whether another variant of the bundle may replace the preferred one.
        inspectable_weights: keep the weights in memory that can be checksummed; slower (decision 11).
        batching: let frames of several streams share one inference.

    Raises:
        BundleError, EngineUnavailable, GoldenTestFailed: the bundle is refused; the message has the reason.
    """
    opened = open_bundle(bundle, trust)
    vectors = golden_vectors(opened)
    tests: list[GoldenTest] = []
    loaded = open_engine(
        opened, backend, threads, fallback, inspectable_weights, lambda engine: tests.append(vectors.require(engine))
    )
    session = Session(loaded, vectors, batching)
    return Model(opened, session, tests[-1], Pipeline(session.engine, bundle=session.vectors.bundle))


def stream(
    bundle: str | Path,
    source: SourceLike,
    options: StreamOptions | None = None,
    *,
    backend: str = "",
    sinks: Sinks = (),
    pose: PoseAt | None = None,
    **changes: Unpack[StreamArguments],
) -> Stream:
    """Load a bundle and classify every frame of a source; see `load` and `Model.stream`.

    Returns:
        An iterator over one result per frame, in frame order. Closing it closes the model.
    """
    chosen = replace(options or StreamOptions(), **changes)
    opened = open_input(source, chosen, ignore_event)
    try:
        model = load(bundle, backend, engine_threads(chosen.policy or default_policy(opened.live)))
    except BaseException:
        opened.close()
        raise
    results = model.stream(opened, chosen, sinks=sinks, pose=pose)
    results.then(model.session.engine.close)
    return results
