"""Several streams on one engine, and the pipeline without decoding."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.api import Model
from spatialnet_edge.core.frames import Frame, Skipped, preprocess
from spatialnet_edge.core.hardware_info import cores
from spatialnet_edge.runtime.pipeline import Pipeline

FRAMES_A_STREAM = 200
FRAMES = 400


@dataclass(slots=True)
class InMemory:
    """A source of decoded pictures, repeated."""

    pictures: Sequence[NDArray[np.uint8]]
    length: int | None
    uri: str = "memory"
    fps: float | None = None
    live: bool = False

    def __iter__(self) -> Iterator[Frame | Skipped]:
        for seq in range(self.length or 0):
            yield Frame(self.pictures[seq % len(self.pictures)], seq, self.uri)

    def close(self) -> None:
        pass


def streams(model: Model, counts: Sequence[int]) -> dict[str, dict[str, float]]:
    """Several concurrent streams of 720p frames on one engine: total frames per second, and the slowest stream relative to the
    mean."""
    noise = [*np.random.default_rng(0).integers(0, 256, (8, 720, 1280, model.opened.engine.spec.input.channels), np.uint8)]
    found: dict[str, dict[str, float]] = {}
    for count in counts:

        def run(which: int) -> float:
            pipeline = Pipeline(model.opened.engine, "every", workers=1)
            start = time.perf_counter()
            for _ in pipeline.stream(InMemory(noise, FRAMES_A_STREAM)):
                pass
            return FRAMES_A_STREAM / (time.perf_counter() - start)

        start = time.perf_counter()
        with ThreadPoolExecutor(count) as pool:
            rates = list(pool.map(run, range(count)))
        together = count * FRAMES_A_STREAM / (time.perf_counter() - start)
        found[str(count)] = {
            "frames_per_second": round(together, 2),
            "worst_of_mean": round(min(rates) / float(np.mean(rates)), 3),
        }
    return found


def no_decoding(model: Model, pictures: Iterable[NDArray[np.uint8]], rounds: int) -> dict[str, Any]:
    """The pipeline on in-memory frames of the model's input size, relative to the engine alone on the same cores, alternating.

    For the engine alone, each thread gets its share of the frames in advance, so that threads do not exchange frames.

    Returns:
        Frames per second of the pipeline, the median ratio and its range over the rounds.
    """
    spec, engine = model.bundle.spec.input, model.opened.engine
    inputs = [preprocess(picture, spec) for picture in pictures]
    workers = cores() if engine.reentrant else 1

    def share(first: int) -> None:
        for index in range(first, FRAMES, workers):
            engine.infer(inputs[index % len(inputs)][None])

    def engine_only() -> float:
        start = time.perf_counter()
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(share, range(workers)))
        return FRAMES / (time.perf_counter() - start)

    def pipeline() -> float:
        start = time.perf_counter()
        for _ in model.stream(InMemory(inputs, FRAMES), policy="every"):
            pass
        return FRAMES / (time.perf_counter() - start)

    engine_only()
    pairs = [(pipeline(), engine_only()) for _ in range(rounds)]
    ratios = [ours / bare for ours, bare in pairs]
    return {
        "frames_per_second": round(float(np.median([ours for ours, _ in pairs])), 2),
        "of_engine_only": round(float(np.median(ratios)), 4),
        "range": [round(min(ratios), 4), round(max(ratios), 4)],
    }
