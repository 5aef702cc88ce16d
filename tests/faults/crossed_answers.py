"""Four cameras on one engine, golden frames and engine swaps in between: counts answers that reached another camera.

    python tests/faults/crossed_answers.py ANSWERS

Every engine has one set of output buffers, like a TensorRT plan, and overwrites them when it is closed. Each camera has its
own grey levels, and the tiny engine returns the level. So results of another camera, of a golden frame or of a closed engine
are detected.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event, Thread

import numpy as np

from conftest import TINY, lit
from spatialnet_edge.core.frames import Frame, Skipped
from spatialnet_edge.engines.fake import FakeEngine
from spatialnet_edge.engines.registry import FALLBACK, CheckedEngine, LoadedEngine
from spatialnet_edge.runtime.golden import GoldenVectors
from spatialnet_edge.runtime.session import Batching, Session

LEVELS = (40, 90, 140, 200)
STEPS = 20
GOLDEN_LEVEL = 250
SWAP_EVERY_S = 0.02


class OneSetOfBuffers:
    """Every call writes into the same output arrays and releases the GIL while it computes. Closing overwrites the arrays."""

    reentrant = False

    def __init__(self) -> None:
        self.spec = TINY
        self._fake = FakeEngine(TINY)
        self._outputs: dict[int, dict[str, np.ndarray]] = {}
        self._closed = False

    def infer(self, batch: np.ndarray) -> Mapping[str, np.ndarray]:
        count = len(batch)
        buffers = self._outputs.setdefault(count, {h.name: np.zeros((count, h.width), np.float32) for h in TINY.heads})
        time.sleep(0.0001)
        for name, values in self._fake.infer(batch).items():
            buffers[name][...] = values
        if self._closed:
            raise AssertionError("a frame was in an engine that was closed")
        return buffers

    def close(self) -> None:
        self._closed = True
        for buffers in self._outputs.values():
            for values in buffers.values():
                values.fill(np.nan)


class Camera:
    """Frames whose mean brightness is `level` plus the frame's number modulo `STEPS`."""

    length, fps, live = None, None, False

    def __init__(self, level: int, frames: int) -> None:
        self.uri, self._level, self._frames = f"camera {level}", level, frames

    def __iter__(self) -> Iterator[Frame | Skipped]:
        pictures = [lit(self._level + step) for step in range(STEPS)]
        for seq in range(self._frames):
            yield Frame(pictures[seq % STEPS], seq, self.uri)

    def close(self) -> None: ...


@dataclass(frozen=True)
class Count:
    """Number of results, of crossed results, and of other events."""

    answers: int
    crossed: int
    golden_tests: int
    swaps: int


def loaded() -> LoadedEngine:
    return LoadedEngine(CheckedEngine(OneSetOfBuffers()), FALLBACK, ())


def count_crossed(answers: int, batching: Batching | None = None) -> Count:
    """Run four cameras until each has given a quarter of `answers`.

    Raises:
        AssertionError, SpatialNetError: an engine was closed with a frame in it, or a golden test failed.
    """
    golden = np.stack([lit(GOLDEN_LEVEL)] * 2)
    vectors = GoldenVectors(Path("golden"), TINY, golden, FakeEngine(TINY).infer(golden), 1e-3)
    session = Session(loaded(), vectors, batching)
    finished, crossed, emitted = Event(), dict.fromkeys(LEVELS, 0), dict.fromkeys(LEVELS, 0)
    failures: list[BaseException] = []
    golden_tests = swaps = 0

    def classify(level: int) -> None:
        try:
            for result in session.open_stream(Camera(level, answers // len(LEVELS))):
                emitted[level] += 1
                crossed[level] += round(result.level.value) != level + result.seq % STEPS
        except BaseException as error:
            failures.append(error)

    def ask_golden_frames() -> None:
        nonlocal golden_tests
        try:
            while not finished.is_set():
                session.vectors.require(session.engine)
                golden_tests += 1
        except BaseException as error:
            failures.append(error)

    cameras = [Thread(target=classify, args=(level,)) for level in LEVELS]
    asking = Thread(target=ask_golden_frames)
    for thread in (*cameras, asking):
        thread.start()
    while any(camera.is_alive() for camera in cameras):
        session.replace_engine(loaded())
        swaps += 1
        time.sleep(SWAP_EVERY_S)
    finished.set()
    asking.join()
    session.close()
    if failures:
        raise failures[0]
    return Count(sum(emitted.values()), sum(crossed.values()), golden_tests, swaps)


if __name__ == "__main__":
    sys.setswitchinterval(1e-5)
    started = time.monotonic()
    found = count_crossed(int(sys.argv[1]))
    print(json.dumps(asdict(found) | {"seconds": round(time.monotonic() - started, 1)}))
