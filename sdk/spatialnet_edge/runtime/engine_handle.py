"""A replaceable engine that all streams of a session share.

A pipeline holds the handle, not the engine, so that a running pipeline is never modified. A replaced engine is
closed after its last batch.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import final

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.core.errors import EngineError
from spatialnet_edge.core.spec import ModelSpec
from spatialnet_edge.engines.inspectable import weights_of
from spatialnet_edge.engines.registry import Engine


@final
class EngineHandle:
    """An `Engine` that passes every batch to the current engine.

    Args:
        engine: a `CheckedEngine`: its outputs belong to the caller.
    """

    def __init__(self, engine: Engine) -> None:
        self.spec: ModelSpec = engine.spec
        self._engine: Engine = engine
        self._lock = Lock()
        self._users: dict[Engine, int] = {engine: 0}
        self._closed = False

    @property
    def reentrant(self) -> bool:
        return self._engine.reentrant

    @property
    def weights(self) -> Sequence[memoryview]:
        """The weights of the current engine if they can be inspected; otherwise empty."""
        return weights_of(self._engine)

    def infer(self, batch: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        """As `Engine.infer`, on the engine that is current when the call begins.

        Raises:
            EngineError: the engine failed, or the handle is closed.
        """
        with self._leased() as engine:
            return engine.infer(batch)

    def replace(self, engine: Engine) -> None:
        """Use another engine for all later batches; close the current one after its last batch.

        Raises:
            EngineError: the handle is closed; the new engine is closed too.
        """
        with self._lock:
            retired = self._engine
            if self._closed:
                retired = engine
            else:
                self._engine = engine
            self._users.setdefault(engine, 0)
        self._close_unused(retired)
        if retired is engine:
            raise EngineError("the engine was closed while another one was opened to replace it")

    def close(self) -> None:
        """Accept no more batches. The engine is closed after its last batch. A second call does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._close_unused(self._engine)

    @contextmanager
    def _leased(self) -> Generator[Engine, None, None]:
        with self._lock:
            if self._closed:
                raise EngineError("the engine is closed; classify inside the 'with' block of the model, or load it again")
            engine = self._engine
            self._users[engine] += 1
        try:
            yield engine
        finally:
            with self._lock:
                self._users[engine] -= 1
                retired = self._users[engine] == 0 and (self._closed or engine is not self._engine)
            if retired:
                self._close_unused(engine)

    def _close_unused(self, engine: Engine) -> None:
        with self._lock:
            if self._users.get(engine) != 0:  # still in use, or closed by another thread
                return
            del self._users[engine]
        engine.close()
