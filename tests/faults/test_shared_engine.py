"""Several cameras and a golden test share one engine: each caller gets only its own results."""

import sys
import time
from collections.abc import Iterator, Mapping
from threading import Event, Thread, get_ident

import numpy as np
import pytest
from crossed_answers import count_crossed

from conftest import SIDE, TINY, lit
from spatialnet_edge.core.frames import Frame, Skipped
from spatialnet_edge.engines.fake import FakeEngine
from spatialnet_edge.engines.registry import CheckedEngine
from spatialnet_edge.runtime.pipeline import Pipeline
from spatialnet_edge.runtime.session import Batching

FRAMES = 250
LEVELS = (40, 90, 140, 200)
STEPS = 20


class OneSetOfBuffers:
    """An engine like a TensorRT plan: every call writes into the same output arrays and releases the GIL while it computes."""

    reentrant = False

    def __init__(self) -> None:
        self.spec = TINY
        self._fake = FakeEngine(TINY)
        self._outputs: dict[str, np.ndarray] = {head.name: np.zeros((1, head.width), np.float32) for head in TINY.heads}

    def infer(self, batch: np.ndarray) -> Mapping[str, np.ndarray]:
        time.sleep(0.0002)
        for name, values in self._fake.infer(batch).items():
            self._outputs[name][...] = values
        return self._outputs

    def close(self) -> None: ...


class ReentrantBuffers(OneSetOfBuffers):
    """A reentrant engine that returns the same arrays to a thread at every call."""

    reentrant = True

    def __init__(self) -> None:
        super().__init__()
        self._by_thread: dict[int, dict[str, np.ndarray]] = {}

    def infer(self, batch: np.ndarray) -> Mapping[str, np.ndarray]:
        outputs = self._by_thread.setdefault(get_ident(), {name: np.zeros_like(v) for name, v in self._outputs.items()})
        time.sleep(0.0002)
        for name, values in self._fake.infer(batch).items():
            outputs[name][...] = values
        return outputs


class Camera:
    length, fps, live = None, None, False

    def __init__(self, level: int) -> None:
        self.level, self.uri = level, f"camera {level}"

    def __iter__(self) -> Iterator[Frame | Skipped]:
        for seq in range(FRAMES):
            yield Frame(lit(self.level + seq % STEPS), seq, self.uri)

    def close(self) -> None: ...


@pytest.fixture(autouse=True)
def switch_threads_often() -> Iterator[None]:
    """Shorten the interpreter's switch interval of 5 ms, so that a rare race happens in every run."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("policy", ["every", "queue:4"])
@pytest.mark.parametrize("kind", [OneSetOfBuffers, ReentrantBuffers])
def test_no_camera_gets_the_answer_of_another_or_of_a_golden_frame(kind: type[OneSetOfBuffers], policy: str) -> None:
    engine = CheckedEngine(kind())
    crossed: dict[int, int] = {}
    golden_image = np.full((1, SIDE, SIDE, 3), 250, np.uint8)
    golden_answers: list[float] = []
    finished = Event()

    def classify(level: int) -> None:
        results = list(Pipeline(engine, policy, workers=2).stream(Camera(level)))
        wrong = sum(round(result.level.value) != level + result.seq % STEPS for result in results)
        crossed[level] = wrong if results else -1

    def ask_golden_frames() -> None:
        while not finished.is_set():
            golden_answers.append(round(float(engine.infer(golden_image)["level"][0, 0])))

    golden = Thread(target=ask_golden_frames)
    cameras = [Thread(target=classify, args=(level,)) for level in LEVELS]
    for thread in (golden, *cameras):
        thread.start()
    for thread in cameras:
        thread.join()
    finished.set()
    golden.join()
    assert crossed == dict.fromkeys(LEVELS, 0)
    assert set(golden_answers) == {250}


def test_what_the_engine_gave_stays_as_it_was_when_it_is_asked_again() -> None:
    engine = CheckedEngine(OneSetOfBuffers())
    first = engine.infer(np.full((1, SIDE, SIDE, 3), 30, np.uint8))
    kept = {name: values.copy() for name, values in first.items()}
    engine.infer(np.full((1, SIDE, SIDE, 3), 220, np.uint8))
    assert all(np.array_equal(first[name], kept[name]) for name in kept)


@pytest.mark.fault(70)
@pytest.mark.parametrize("batching", [None, Batching(4, 0.001)])
def test_no_answer_crosses_while_engines_are_swapped(batching: Batching | None) -> None:
    found = count_crossed(2000, batching)
    assert (found.answers, found.crossed) == (2000, 0)
    assert found.swaps > 3
    assert found.golden_tests > 3
