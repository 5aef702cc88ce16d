"""Latency of engines on this computer, one image at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.engines.registry import Engine


@dataclass(frozen=True, slots=True)
class Latency:
    """Latency of one image in the engine alone, in milliseconds."""

    p50_ms: float
    p99_ms: float


def latencies(
    engines: Sequence[Engine], images: Sequence[NDArray[np.uint8]], rounds: int = 200, warm_up: int = 20
) -> list[Latency]:
    """Time several engines in turn within each round, so that a slow moment of the computer affects all of them."""
    batches = [image[None] for image in images]
    for engine, batch in zip(engines, batches, strict=True):
        for _ in range(warm_up):
            engine.infer(batch)
    times = np.array([list(_one_round(engines, batches)) for _ in range(rounds)])
    return [Latency(*(float(v) * 1e3 for v in np.percentile(times[:, column], (50, 99)))) for column in range(len(engines))]


def _one_round(engines: Sequence[Engine], batches: Sequence[NDArray[np.uint8]]) -> Iterator[float]:
    for engine, batch in zip(engines, batches, strict=True):
        start = time.perf_counter()
        engine.infer(batch)
        yield time.perf_counter() - start
