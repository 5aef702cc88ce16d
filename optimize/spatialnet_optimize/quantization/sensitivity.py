"""Layer sensitivity to INT8: quantise each layer alone, then as many of the least sensitive ones as the budget allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.core.spec import ModelSpec
from spatialnet_edge.engines.onnxruntime import OnnxRuntimeBackend
from spatialnet_optimize.evaluation.metrics import Outputs, predict
from spatialnet_optimize.quantization.int8 import int8_static, linear_layers
from spatialnet_optimize.quantization.scheme import Scheme


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Effect of quantising a single layer.

    Attributes:
        change: mean absolute change of all probabilities.
    """

    layer: str
    change: float


def change(spec: ModelSpec, found: Outputs, expected: Outputs) -> float:
    """Mean absolute change over all outputs of all heads."""
    return float(np.mean([np.abs(found[head.name] - expected[head.name]).mean() for head in spec.outputs]))


def answers(content: bytes, spec: ModelSpec, images: NDArray[np.uint8]) -> Outputs:
    engine = OnnxRuntimeBackend(fuse=False).open(content, spec, 1)  # only the effect of rounding
    try:
        return predict(engine, images)
    finally:
        engine.close()


def sensitivities(
    content: bytes, spec: ModelSpec, calibration: NDArray[np.uint8], scheme: Scheme, step: Callable[[str], None]
) -> list[Sensitivity]:
    """The sensitivity of every layer, in increasing order."""
    layers = linear_layers(content)
    expected = answers(content, spec, calibration)
    found: list[Sensitivity] = []
    for index, layer in enumerate(layers):
        step(f"sensitivity: layer {index + 1} of {len(layers)}")
        alone = int8_static(content, calibration, scheme, layers=[layer], method="minmax")
        found.append(Sensitivity(layer, change(spec, answers(alone, spec, calibration), expected)))
    return sorted(found, key=lambda each: each.change)


def most_that_pass(ranked: Sequence[Sensitivity], passes: Callable[[Sequence[str]], bool]) -> list[str]:
    """The largest number of least sensitive layers that passes the gate, by bisection: the loss increases with every layer.

    Args:
        passes: whether the graph with these layers quantised is within the budget.
    """
    low, high = 0, len(ranked)
    while low < high:
        middle = (low + high + 1) // 2
        if passes([each.layer for each in ranked[:middle]]):
            low = middle
        else:
            high = middle - 1
    return [each.layer for each in ranked[:low]]
