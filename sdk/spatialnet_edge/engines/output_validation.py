"""Output validation: every input and output tensor is checked against the spec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from threading import Lock
from typing import TYPE_CHECKING, final

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.core.errors import EngineError, InvalidOutput, UsageError
from spatialnet_edge.core.spec import ModelSpec, Multiclass, Output, Regression
from spatialnet_edge.engines.inspectable import weights_of

if TYPE_CHECKING:
    from spatialnet_edge.engines.registry import Engine

TOLERANCE = 1e-3
SUM_TOLERANCE = 1e-2
"""Tolerance for the sum of probabilities. FP16 engines round each one; 21 of them stay well within this."""


@final
class CheckedEngine:
    """Wraps any engine, validates its outputs and copies them. After `close` the engine is not called again.

    Several pipelines and the golden test may share one engine. Outputs are copied before any other caller can enter a
    non-reentrant engine, so that no caller receives the results of another camera.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.spec: ModelSpec = engine.spec
        self.reentrant: bool = engine.reentrant
        self._alone = nullcontext() if engine.reentrant else Lock()
        self._closed = False

    def infer(self, batch: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        """As `Engine.infer`, but the arrays belong to the caller: no later call changes them.

        Raises:
            UsageError: the batch does not match the spec.
            EngineError: the engine failed, or is closed.
            InvalidOutput: a NaN, a wrong shape or type, probabilities outside 0 to 1 or that do not sum to 1.
        """
        if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[1:] != self.spec.input.shape:
            raise UsageError(
                f"the batch is {batch.dtype} {batch.shape}; the model takes uint8 (N, "
                f"{', '.join(map(str, self.spec.input.shape))})"
            )
        with self._alone:  # a self-test may run while a frame is in the engine
            if self._closed:
                raise EngineError("the engine is closed; classify inside the 'with' block of the model, or load it again")
            outputs = {name: np.array(values) for name, values in self._engine.infer(batch).items()}
        for head in self.spec.outputs:
            if head.name not in outputs:
                raise InvalidOutput(f"the engine gave no output '{head.name}'")
            check_output(head, outputs[head.name], len(batch))
        return outputs

    @property
    def weights(self) -> Sequence[memoryview]:
        """The weights of the engine if they can be inspected; otherwise empty."""
        return weights_of(self._engine)

    def close(self) -> None:
        with self._alone:
            if not self._closed:
                self._closed = True
                self._engine.close()


def check_output(head: Output, values: NDArray[np.float32], batch: int) -> None:
    """Raise `InvalidOutput` unless `values` is a valid output of `head` for `batch` frames."""
    if values.shape != (batch, head.width) or values.dtype != np.float32:
        raise InvalidOutput(f"'{head.name}' is {values.dtype} {values.shape}; expected float32 {(batch, head.width)}")
    # Each comparison also fails for NaN.
    if isinstance(head, Multiclass):
        sums = values.sum(axis=1)
        worst = sums[np.abs(sums - 1).argmax()]
        if not (values.min() >= -TOLERANCE and abs(worst - 1) <= SUM_TOLERANCE):
            raise InvalidOutput(
                f"the probabilities of '{head.name}' range from {values.min()} to {values.max()}, sum to {worst:.3f}"
            )
        return
    low, high = (head.low, head.high) if isinstance(head, Regression) else (0.0, 1.0)
    if not (values.min() >= low - TOLERANCE and values.max() <= high + TOLERANCE):
        raise InvalidOutput(f"'{head.name}' has values from {values.min()} to {values.max()}; expected {low} to {high}")
