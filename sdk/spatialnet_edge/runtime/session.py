"""The session: a replaceable engine, and the streams that use it. Streams are composed only here.

    source (supervised) → frame queue → resize → engine handle → monitors → smoothing → result → each sink's queue

`Model.stream`, `spatialnet-edge run` and `serve` open their streams here and differ only in their options.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock
from typing import final
from weakref import WeakSet

from spatialnet_edge.core.errors import EngineError, GoldenTestFailed
from spatialnet_edge.core.hardware_info import cores
from spatialnet_edge.core.redaction import redacted
from spatialnet_edge.engines.batching import BatchingEngine
from spatialnet_edge.engines.registry import Engine, LoadedEngine
from spatialnet_edge.runtime.engine_handle import EngineHandle
from spatialnet_edge.runtime.golden import GoldenVectors
from spatialnet_edge.runtime.inputs import SourceLike, open_input
from spatialnet_edge.runtime.options import StreamOptions
from spatialnet_edge.runtime.outputs import Sinks, open_outputs
from spatialnet_edge.runtime.pipeline import Hooks, Pipeline
from spatialnet_edge.runtime.selection import read_selection
from spatialnet_edge.runtime.stream import Stream
from spatialnet_edge.runtime.tiling import Scale, Tiling, tiling_for
from spatialnet_edge.sources.pose import PoseAt, PosedSource
from spatialnet_edge.sources.registry import GivesBands
from spatialnet_edge.sources.supervised import Report, SupervisedSource, ignore_event

DEFAULT_OPTIONS = StreamOptions()


@dataclass(frozen=True, slots=True)
class Batching:
    """Options for batching frames of several streams.

    Attributes:
        most: frames in one inference.
        wait_s: seconds that the first frame waits for others.
    """

    most: int
    wait_s: float


@final
class Session:
    """A running model and its streams.

    Args:
        loaded: an engine that passed the golden test.
        vectors: the bundle's golden frames, for a test after suspicious outputs.
        batching: None to infer each frame by itself.

    Attributes:
        engine: the handle for all pipelines and golden tests. It stays the same when the engine is replaced.
        loaded: the variant in use.
        vectors: the bundle's golden frames and outputs.
    """

    def __init__(self, loaded: LoadedEngine, vectors: GoldenVectors, batching: Batching | None = None) -> None:
        self.loaded = loaded
        self._handle = EngineHandle(loaded.engine)
        self.engine: Engine = (
            self._handle if batching is None else BatchingEngine(self._handle, batching.most, batching.wait_s)
        )
        self.vectors = vectors
        self._streams: WeakSet[Stream] = WeakSet()
        self._lock = Lock()

    def open_stream(
        self,
        source: SourceLike,
        options: StreamOptions = DEFAULT_OPTIONS,
        *,
        sinks: Sinks = (),
        pose: PoseAt | None = None,
        hooks: Hooks | None = None,
        report: Report = ignore_event,
        name: str | None = None,
    ) -> Stream:
        """Open a source and its sinks.

        Args:
            sinks: the stream owns and closes them.
            pose: function from a capture time (`time.monotonic_ns`) to the pose of that frame.
            hooks: callbacks of a service; None: run the golden test after suspicious outputs.
            report: called with the name and one line of text for each event of the source and the sinks.
            name: display name of the source; None: its URI without user and password.

        Raises:
            Refused, UsageError: the source or a sink cannot be opened.
        """
        told = without_secrets(report)
        opened = open_input(source, options, told, name)
        device = opened if isinstance(opened, SupervisedSource) else None
        try:
            if isinstance(opened, GivesBands):
                opened.for_groups(self.engine.spec.input.groups)
            if pose is not None:
                opened = PosedSource(opened, pose)
            wait = opened.live if options.wait is None else options.wait
            pipeline = self._pipeline(options, opened.live, hooks)
            queued = open_outputs(sinks, opened.live, wait, told)
        except BaseException:
            opened.close()
            raise
        stream = Stream(opened, device, pipeline, queued, told)
        with self._lock:
            self._streams.add(stream)
        return stream

    def _pipeline(self, options: StreamOptions, live: bool, hooks: Hooks | None) -> Pipeline:
        policy = options.policy or default_policy(live)
        return Pipeline(
            self.engine,
            policy,
            options.smoothing_s,
            options.workers or (1 if policy == "latest" else cores()),
            float("inf") if options.deadline_s is None else options.deadline_s,
            options.drop_late,
            hooks or Hooks(on_suspect_output=self.require_still_golden),
            self.vectors.bundle,
            read_selection(self.engine.spec, options.show, options.only),
            options.value_range,
            self._tiling(options),
        )

    def _tiling(self, options: StreamOptions) -> Tiling | None:
        if options.gsd is None and options.fov_deg is None:
            return None
        return tiling_for(self.engine.spec, Scale(options.gsd, options.fov_deg, options.ground_m))

    def replace_engine(self, loaded: LoadedEngine) -> None:
        """Use another engine from the next frame on. The current one is closed after its last frame."""
        self._handle.replace(loaded.engine)
        self.loaded = loaded

    def require_still_golden(self, error: EngineError) -> None:
        """Run the golden test after suspicious outputs.

        Raises:
            EngineError: the engine fails the golden test.
        """
        try:
            self.vectors.require(self.engine)
        except (GoldenTestFailed, EngineError) as failed:
            raise EngineError(f"{error}; and {failed}") from failed

    def close(self) -> None:
        """End all streams, then close the engine. A second call does nothing."""
        with self._lock:
            streams = list(self._streams)
        for stream in streams:
            stream.stop()
        for stream in streams:
            stream.close()
        self.engine.close()


def default_policy(live: bool) -> str:
    """The default frame policy: `latest` for live sources, `every` for recordings."""
    return "latest" if live else "every"


def engine_threads(policy: str) -> int:
    """Threads per inference: 0 (all cores) for the lowest latency, 1 when several frames run in parallel."""
    return 0 if policy == "latest" else 1


def without_secrets(report: Report) -> Report:
    """Wrap a report function so that users and passwords are removed."""
    return lambda kind, detail: report(kind, redacted(detail))
