"""Frames through the engine: order, policies, conservation, failure, and the five-line API."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import spatialnet_edge
from conftest import CLIP, SIDE, TINY, lit
from spatialnet_edge.core.errors import EngineError, InvalidOutput, SourceLost, SourceRefused
from spatialnet_edge.core.frames import Frame, Skipped
from spatialnet_edge.engines.fake import FakeEngine
from spatialnet_edge.engines.registry import CheckedEngine
from spatialnet_edge.runtime.pipeline import Pipeline
from spatialnet_edge.sinks.memory import MemorySink
from spatialnet_edge.sources.registry import open_source


class ListSource:
    """Frames and skips from a list, then an optional failure."""

    length = None
    fps = None

    def __init__(self, items: list[Frame | Skipped], failure: Exception | None = None, pause_s: float = 0.0) -> None:
        self.uri = "list"
        self.live = pause_s > 0
        self._items, self._failure, self._pause_s = items, failure, pause_s

    def __iter__(self) -> Iterator[Frame | Skipped]:
        for item in self._items:
            time.sleep(self._pause_s)
            yield replace(item, captured_ns=time.monotonic_ns()) if isinstance(item, Frame) else item
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        pass


def frames(count: int) -> list[Frame | Skipped]:
    return [Frame(np.full((SIDE, SIDE, 3), seq % 256, np.uint8), seq, "list") for seq in range(count)]


def fake(delay_s: float = 0.0, answer=None) -> CheckedEngine:
    return CheckedEngine(FakeEngine(TINY, answer, delay_s))


def conserved(pipeline: Pipeline) -> bool:
    ledger = pipeline.ledger
    return ledger.in_flight == 0 and ledger.captured == ledger.emitted + sum(ledger.skipped.values())


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_every_frame_comes_out_in_order(workers: int) -> None:
    def jittery(batch: np.ndarray) -> dict[str, np.ndarray]:
        time.sleep(float(batch[0, 0, 0, 0] % 7) / 1000)
        return dict(FakeEngine(TINY).infer(batch))

    pipeline = Pipeline(fake(answer=jittery), "every", workers=workers)
    memory = MemorySink()
    ledger = pipeline.run(ListSource(frames(60)), [memory])
    assert [result.seq for result in memory.results] == list(range(60))
    assert (ledger.captured, ledger.emitted, ledger.skipped) == (60, 60, {})
    assert conserved(pipeline)


def test_skipped_frames_are_counted_by_reason() -> None:
    items = frames(6)
    items[1:3] = [Skipped(1, "decode_error", ""), Skipped(2, "empty", "")]
    pipeline = Pipeline(fake())
    list(pipeline.stream(ListSource(items)))
    assert pipeline.ledger.skipped == {"decode_error": 1, "empty": 1}
    assert pipeline.ledger.captured == 6
    assert conserved(pipeline)


@pytest.mark.fault(11)
def test_latest_drops_the_old_and_keeps_up() -> None:
    pipeline = Pipeline(fake(delay_s=0.02), "latest")
    results = list(pipeline.stream(ListSource(frames(100), pause_s=0.002)))
    assert pipeline.ledger.skipped["overrun"] > 40
    assert conserved(pipeline)
    assert results[-1].seq == 99
    assert np.median([result.age_ms for result in results]) < 100  # every frame waits for at most one other


def test_queue_keeps_at_most_n_waiting() -> None:
    pipeline = Pipeline(fake(delay_s=0.01), "queue:3")
    results = list(pipeline.stream(ListSource(frames(100), pause_s=0.0005)))
    assert pipeline.ledger.skipped["overrun"] > 50
    assert [result.seq for result in results] == sorted(result.seq for result in results)
    assert conserved(pipeline)


def test_stopping_early_accounts_for_every_frame_and_ends_the_capture() -> None:
    pipeline = Pipeline(fake(), workers=2)
    stream = pipeline.stream(ListSource(frames(500)))
    for _ in range(5):
        next(stream)
    stream.close()
    assert pipeline.ledger.emitted == 5
    assert conserved(pipeline)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("capture", "engine"))]


def test_a_source_that_is_lost_is_reported_after_its_frames() -> None:
    pipeline = Pipeline(fake())
    results = []
    with pytest.raises(SourceLost, match="unplugged"):
        results.extend(result for result in keep(pipeline.stream(ListSource(frames(7), SourceLost("unplugged"))), results))
    assert len(results) == 7
    assert conserved(pipeline)


def keep(stream: Iterator, results: list) -> Iterator:
    for result in stream:
        results.append(result)
    yield from ()


def invalid_at(*bad: int):
    def answer(batch: np.ndarray) -> dict[str, np.ndarray]:
        outputs = dict(FakeEngine(TINY).infer(batch))
        if int(batch[0, 0, 0, 0]) in bad:
            outputs["shade"] = np.full((1, 2), np.nan, np.float32)
        return outputs

    return answer


@pytest.mark.fault(31)
def test_one_invalid_answer_is_skipped_and_counted() -> None:
    pipeline = Pipeline(fake(answer=invalid_at(3, 5, 6)))
    results = list(pipeline.stream(ListSource(frames(10))))
    assert [result.seq for result in results] == [0, 1, 2, 4, 7, 8, 9]
    assert pipeline.ledger.skipped == {"invalid_output": 3}
    assert conserved(pipeline)


@pytest.mark.fault(31)
def test_three_invalid_answers_in_a_row_end_the_run() -> None:
    pipeline = Pipeline(fake(answer=invalid_at(3, 4, 5)))
    with pytest.raises(EngineError, match="3 invalid outputs in a row"):
        list(pipeline.stream(ListSource(frames(10))))
    assert pipeline.ledger.emitted == 3
    assert conserved(pipeline)


def test_a_failing_engine_ends_the_run_with_balanced_statistics() -> None:
    def fail(batch: np.ndarray) -> dict[str, np.ndarray]:
        if batch[0, 0, 0, 0] == 4:
            raise EngineError("the GPU is on fire")
        return dict(FakeEngine(TINY).infer(batch))

    pipeline = Pipeline(fake(answer=fail), workers=2)
    with pytest.raises(EngineError, match="on fire"):
        list(pipeline.stream(ListSource(frames(50))))
    assert pipeline.ledger.emitted == 4
    assert conserved(pipeline)


def test_step_is_one_frame_by_itself() -> None:
    result = Pipeline(fake()).step(Frame(lit(230, 98, 76), 5, "x"))
    assert result.shade.label == "bright"
    with pytest.raises(InvalidOutput):
        Pipeline(fake(answer=invalid_at(228))).step(Frame(lit(230, 98, 76), 5, "x"))


@pytest.mark.parametrize(("level", "reason"), [(0, "dark"), (255, "saturated"), (100, "featureless")])
def test_a_frame_without_a_picture_has_no_label_but_a_reason(level: int, reason: str) -> None:
    result = Pipeline(fake()).step(Frame(np.full((50, 50, 3), level, np.uint8), 0, "x"))
    assert (result.quality, result.reason) == ((reason,), reason)
    assert (result.shade.label, result.bands.present, result.level.value) == (None, None, None)


def test_a_frame_without_a_label_does_not_reach_the_average_and_is_counted() -> None:
    black = np.zeros((SIDE, SIDE, 3), np.uint8)
    lights: list[Frame | Skipped] = [
        Frame(black if seq % 2 else lit(230), seq, "x", media_time_s=seq / 10) for seq in range(20)
    ]
    pipeline = Pipeline(fake(), smoothing_s=1.0)
    results = list(pipeline.stream(ListSource(lights)))
    assert [result.shade.label for result in results] == ["bright", None] * 10
    assert all(result.shade.probabilities[1] == pytest.approx(0.9) for result in results[::2])
    assert pipeline.ledger.unlabelled == {"dark": 10}
    assert pipeline.ledger.unlabelled_share == pytest.approx(0.5, abs=0.03)
    assert pipeline.ledger.to_dict()["unlabelled"] == {"dark": 10}


def test_smoothing_follows_the_recordings_own_time() -> None:
    flicker: list[Frame | Skipped] = [Frame(lit(230 if seq % 2 else 25), seq, "x", media_time_s=seq / 10) for seq in range(40)]
    smoothed = [r.shade.probabilities[1] for r in Pipeline(fake(), smoothing_s=1.0).stream(ListSource(flicker))]
    plain = [r.shade.probabilities[1] for r in Pipeline(fake()).stream(ListSource(flicker))]
    assert np.ptp(plain[-10:]) > 0.7
    assert np.ptp(smoothed[-10:]) < 0.1


def test_the_five_line_api_on_real_video(tiny_path: Path) -> None:
    labels = []
    for result in spatialnet_edge.stream(tiny_path, str(CLIP)):
        labels.append(result.shade.label)
        assert result.age_ms > 0
    assert len(labels) == 242


@pytest.mark.parametrize(
    "image",
    [
        np.full((8, 8, 3), 0.9),
        np.full((8, 8, 3), 0.9, np.float32),
        np.full((8, 8, 3), 9000, np.uint16),
        np.zeros((8, 8), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
        [[1, 2], [3, 4]],
    ],
)
def test_other_dtypes_than_uint8_are_refused(tiny_path: Path, image: object) -> None:
    """A float image in 0 to 1 would be cast to black and classified."""
    with (
        spatialnet_edge.load(tiny_path) as model,
        pytest.raises(SourceRefused, match=r"expected uint8 \[height, width, bands\]"),
    ):
        model(image)  # type: ignore[arg-type]


def test_classify_takes_one_array(tiny_path: Path) -> None:
    with spatialnet_edge.load(tiny_path) as model:
        assert model(lit(230, 480, 640)).shade.label == "bright"


def test_memory_stays_flat_and_no_thread_is_left(tiny_path: Path) -> None:
    import resource

    with spatialnet_edge.load(tiny_path, threads=1) as model:

        def pass_over(count: int) -> int:
            for _ in model.stream(open_source(f"synthetic:frames={count}&size=64x64")):
                pass
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

        pass_over(1500)
        before, after = pass_over(1500), pass_over(6000)
    assert after - before < 8_000  # kilobytes
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("capture", "engine", "sink"))]
