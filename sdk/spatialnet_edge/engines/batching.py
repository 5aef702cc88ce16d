"""Dynamic batching: frames of several cameras share one inference. The waiting time is bounded."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import TYPE_CHECKING, final

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.core.errors import EngineError
from spatialnet_edge.core.spec import ModelSpec
from spatialnet_edge.engines.inspectable import weights_of

if TYPE_CHECKING:
    from spatialnet_edge.engines.registry import Engine

Outputs = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Request:
    """A waiting batch, and the future for its outputs."""

    batch: NDArray[np.uint8]
    answer: Future[Outputs] = field(default_factory=Future[Outputs])


@final
class BatchingEngine:
    """Wraps an engine and merges concurrent calls; `infer` may be called from many threads.

    Args:
        most: frames in one inference.
        wait_s: how long the first frame of a batch waits for others.
    """

    reentrant = True

    def __init__(self, engine: Engine, most: int, wait_s: float) -> None:
        self.spec: ModelSpec = engine.spec
        self._engine = engine
        self._most = most
        self._wait_s = wait_s
        self._requests: SimpleQueue[Request | None] = SimpleQueue()
        self._closed = False
        self._lock = Lock()
        self._thread = Thread(target=self._work, name="batching", daemon=True)
        self._thread.start()

    def infer(self, batch: NDArray[np.uint8]) -> Outputs:
        """As `Engine.infer`. Raises the error of the inference that this call was part of."""
        request = Request(batch)
        with self._lock:  # a request after the end marker would never be answered
            if self._closed:
                raise EngineError("the engine is closed")
            self._requests.put(request)
        return request.answer.result()

    @property
    def weights(self) -> Sequence[memoryview]:
        """The weights of the engine if they can be inspected; otherwise empty."""
        return weights_of(self._engine)

    def close(self) -> None:
        """Answer the waiting requests, then close the engine. A second call does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._requests.put(None)
        self._thread.join()
        self._engine.close()

    def _work(self) -> None:
        while (first := self._requests.get()) is not None:
            together, end = self._gather(first)
            self._answer(together)
            if end:
                return

    def _gather(self, first: Request) -> tuple[list[Request], bool]:
        """The first request and those that arrive in time; and whether the end marker came."""
        together, frames = [first], len(first.batch)
        until = time.monotonic() + self._wait_s
        while frames < self._most:
            try:
                request = self._requests.get(timeout=max(0.0, until - time.monotonic()))
            except Empty:
                break
            if request is None:
                return together, True
            together.append(request)
            frames += len(request.batch)
        return together, False

    def _answer(self, together: list[Request]) -> None:
        try:
            outputs = self._engine.infer(np.concatenate([request.batch for request in together]))
        except Exception as error:  # any error is passed on to the callers
            for request in together:
                request.answer.set_exception(error)
            return
        start = 0
        for request in together:
            end = start + len(request.batch)
            request.answer.set_result({name: np.array(values[start:end]) for name, values in outputs.items()})
            start = end
