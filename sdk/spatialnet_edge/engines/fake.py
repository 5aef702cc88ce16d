"""Engines for testing a payload without a model, and with engine failures. They are part of the product."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import final

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.core.spec import KNOWN, ModelSpec, Multiclass, Regression

Answer = Callable[[NDArray[np.uint8]], Mapping[str, NDArray[np.float32]]]


@final
class FakeEngine:
    """Returns the result of `answer` after `delay_s`; by default it depends on the batch's mean brightness.

    Args:
        answer: function from a batch to outputs; may raise.
    """

    reentrant = True

    def __init__(self, spec: ModelSpec, answer: Answer | None = None, delay_s: float = 0.0) -> None:
        self.spec = spec
        self.closed = False
        self._answer = answer or self._by_brightness
        self._delay_s = delay_s

    def infer(self, batch: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        if self._delay_s:
            time.sleep(self._delay_s)
        return self._answer(batch)

    def close(self) -> None:
        self.closed = True

    def _by_brightness(self, batch: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        bright = (batch.mean(axis=(1, 2, 3)) / 255).astype(np.float32)
        outputs: dict[str, NDArray[np.float32]] = {}
        for head in self.spec.heads:
            if isinstance(head, Regression):
                outputs[head.name] = (head.low + bright * (head.high - head.low))[:, None].astype(np.float32)
                continue
            values = np.repeat(bright[:, None], head.width, axis=1)
            if isinstance(head, Multiclass):
                chosen = np.minimum((bright * head.width).astype(int), head.width - 1)
                values = np.full((len(batch), head.width), 0.1 / (head.width - 1), np.float32)
                values[np.arange(len(batch)), chosen] = 0.9
            outputs[head.name] = values.astype(np.float32)
        if self.spec.known is not None:
            outputs[KNOWN] = np.ones((len(batch), 1), np.float32)
        return outputs
