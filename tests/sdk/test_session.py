"""The session: streams that end cleanly, engine swaps, sources of every kind, and no side effects on the process."""

import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import spatialnet_edge
from conftest import CLIP, SIDE, TINY, clip_frames, lit
from spatialnet_edge.core.errors import EngineError, ReaderGone, SinkError, SourceRefused, UsageError
from spatialnet_edge.core.frames import Frame, Skipped
from spatialnet_edge.core.results import FrameResult
from spatialnet_edge.engines.batching import BatchingEngine
from spatialnet_edge.engines.fake import FakeEngine
from spatialnet_edge.engines.registry import CheckedEngine
from spatialnet_edge.runtime.engine_handle import EngineHandle
from spatialnet_edge.runtime.options import StreamOptions
from spatialnet_edge.sinks.memory import MemorySink

ENDINGS = {
    "unfinished": "results = stream()\nnext(results)",
    "a break": "for result in stream(): break",
    "an exception": "for result in stream(): raise KeyError('a mistake of the user')",
    "sys.exit": "for result in stream(): sys.exit(0)",
    "never begun": "results = stream()",
    "in a thread": "import threading\nready = threading.Event()\n"
    "def work():\n    for result in stream(): ready.set()\n"
    "threading.Thread(target=work, daemon=True).start()\nready.wait()",
}


@pytest.mark.fault(71)
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_stream_that_is_not_finished_never_aborts_the_process(ending: str) -> None:
    """A capture thread inside OpenCV during the shutdown of the interpreter aborted the process with SIGABRT."""
    program = (
        f"import sys, spatialnet_edge\ndef stream(): return spatialnet_edge.stream('builtin:student', {str(CLIP)!r})\n"
        + ENDINGS[ending]
    )
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
        assert done.returncode == (1 if ending == "an exception" else 0), done.stderr
        assert "terminate" not in done.stderr


def test_a_sink_gets_what_was_emitted_before_the_end_of_the_interpreter(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    program = (
        f"import spatialnet_edge\nresults = spatialnet_edge.stream('builtin:student', {str(CLIP)!r}, "
        f"sinks=['jsonl:{file}'])\nfor _ in range(5): next(results)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    assert len(file.read_text().splitlines()) == 5


def test_leaving_the_loop_frees_the_source_and_the_threads_at_once(tiny_path: Path) -> None:
    sink = MemorySink()
    with spatialnet_edge.load(tiny_path) as model:
        for result in model.stream(str(CLIP), sinks=[sink]):
            assert result.seq == 0
            break
        names = {thread.name for thread in threading.enumerate()}
    assert not [name for name in names if name.startswith(("capture", "engine", "MemorySink"))]
    assert sink.closed
    assert [result.seq for result in sink.results] == [0]


def test_frames_that_had_no_result_yet_are_counted_as_stopped(tiny_path: Path) -> None:
    with spatialnet_edge.load(tiny_path) as model, model.stream(str(CLIP)) as results:
        next(results)
        results.close()
        assert results.stats.in_flight == 0
        assert results.stats.emitted == 1
        assert list(results) == []


def arrays(count: int) -> Iterator[np.ndarray]:
    for level in range(count):
        yield lit(30 + level)


def test_a_source_may_be_a_generator_of_arrays(tiny_path: Path) -> None:
    with spatialnet_edge.load(tiny_path) as model:
        results = list(model.stream(arrays(20)))
    assert [round(result.level.value) for result in results] == list(range(30, 50))


def test_a_source_may_be_a_list_of_paths_pictures_arrays_and_frames(tiny_path: Path, tmp_path: Path) -> None:
    grey = lit(80)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    frame = Frame(grey, 4, "mine", pose=spatialnet_edge.Pose(1.0, 2.0, 3.0))
    mixed = [tmp_path / "grey.png", str(tmp_path / "grey.png"), Image.fromarray(grey), grey, frame, tmp_path / "missing.png"]
    with spatialnet_edge.load(tiny_path) as model:
        results = model.stream(mixed)
        answers = list(results)
        assert [round(answer.level.value) for answer in answers] == [80] * 5
        assert answers[-1].frame.pose == frame.pose
        assert results.length == 6
        assert results.stats.skipped == {"decode_error": 1}
        assert "missing.png" in results.stats.details["decode_error"]


def test_an_invalid_item_of_an_iterable_ends_the_stream_with_its_number(tiny_path: Path) -> None:
    with spatialnet_edge.load(tiny_path) as model:
        results = model.stream([np.zeros((8, 8, 3), np.uint8), {"image": 1}])
        assert next(results).seq == 0
        with pytest.raises(SourceRefused, match="image 1 is a dict"):
            next(results)
        with pytest.raises(UsageError, match="a source is a float"):
            model.stream(0.5)  # pyright: ignore[reportArgumentType]


def test_a_deadline_holds_for_a_generator(tiny_path: Path) -> None:
    with spatialnet_edge.load(tiny_path) as model:
        results = model.stream(arrays(30), deadline_s=1e-9, drop_late=True)
        assert list(results) == []
        assert results.stats.skipped == {"late": 30}
        assert all(result.late for result in model.stream(arrays(5), deadline_s=1e-9))


@pytest.mark.parametrize(
    "options", [{"policy": "fastest"}, {"deadline_s": 0.0}, {"smoothing_s": -1.0}, {"workers": 0}, {"silence_s": float("nan")}]
)
def test_impossible_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        StreamOptions(**options)  # pyright: ignore[reportArgumentType]


def test_a_model_classifies_images_in_every_form(tiny_path: Path, tmp_path: Path) -> None:
    grey = lit(200, 40, 50)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    with spatialnet_edge.load(tiny_path) as model:
        one = model(tmp_path / "grey.png")
        assert one["shade"] is one.shade
        assert str(one).endswith("grey.png #0: shade bright 100%, bands red, green, blue, level 200.00 counts")
        assert str(model(lit(2))) == "array #0: no label (dark)"
        several = model([grey, Image.fromarray(grey).convert("L"), str(tmp_path / "grey.png"), Frame(grey, 7, "mine")])
        assert [round(result.level.value) for result in several] == [200] * 4
        assert several[-1].source == "mine"
        with pytest.raises(SourceRefused, match=r"missing\.png"):
            model(tmp_path / "missing.png")
        with pytest.raises(SourceRefused, match="type 'I;16'"):
            model(Image.fromarray(np.zeros((8, 8), np.uint16)))


class Slow:
    """A slow engine that returns its number."""

    reentrant = True
    spec = TINY

    def __init__(self, number: int, delay_s: float = 0.0) -> None:
        self.closed = False
        self._number = number
        self._fake = FakeEngine(TINY, delay_s=delay_s)

    def infer(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        answers = self._fake.infer(batch)
        assert not self.closed, "a frame was in an engine that was closed"
        return answers | {"level": np.full((len(batch), 1), self._number, np.float32)}

    def close(self) -> None:
        self.closed = True


@pytest.mark.fault(70)
def test_a_model_its_bundle_and_a_stream_print_as_one_short_line(tiny_path: Path) -> None:
    with spatialnet_edge.load(tiny_path) as model, model.stream("synthetic:frames=3&size=64x64") as results:
        shown = [repr(model), repr(model.bundle), repr(results)]
        assert len(list(results)) == 3
    assert shown[0].startswith(f"<Model tiny ({model.bundle.short_hash}), fp32 on onnxruntime: shade, ")
    assert (
        shown[1] == f"<Bundle {tiny_path}: tiny, serial {model.bundle.manifest.serial}, {model.bundle.short_hash}, unsigned>"
    )
    assert shown[2].startswith("<Stream synthetic:frames=3&size=64x64: captured ")
    assert repr(results).endswith("captured 3 = emitted 3 + skipped 0>")


def test_a_replaced_engine_is_closed_when_the_last_frame_has_left_it() -> None:
    old, new = Slow(1, delay_s=0.2), Slow(2)
    handle = EngineHandle(old)
    image = np.zeros((1, SIDE, SIDE, 3), np.uint8)
    found: list[float] = []
    thread = threading.Thread(target=lambda: found.append(float(handle.infer(image)["level"][0, 0])))
    thread.start()
    time.sleep(0.05)
    handle.replace(new)
    assert not old.closed
    assert float(handle.infer(image)["level"][0, 0]) == 2
    thread.join()
    assert found == [1]
    assert old.closed
    assert not new.closed
    handle.close()
    handle.close()
    assert new.closed
    with pytest.raises(EngineError, match="closed"):
        handle.infer(image)
    late = Slow(3)
    with pytest.raises(EngineError, match="closed"):
        handle.replace(late)
    assert late.closed


@pytest.mark.fault(75)
def test_a_closed_batching_engine_releases_all_callers() -> None:
    image = np.zeros((1, SIDE, SIDE, 3), np.uint8)
    for _ in range(20):
        shared = BatchingEngine(CheckedEngine(FakeEngine(TINY)), most=4, wait_s=0.0)
        ends: list[str] = []

        def ask(shared: BatchingEngine = shared, ends: list[str] = ends) -> None:
            try:
                while True:
                    shared.infer(image)
            except EngineError as error:
                ends.append(str(error))

        threads = [threading.Thread(target=ask, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.01)
        shared.close()
        for thread in threads:
            thread.join(timeout=5)
        assert ends == ["the engine is closed"] * 4


def test_a_camera_that_hangs_comes_back_in_a_stream_of_the_api(
    tiny_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULTY_STATE", str(tmp_path / "state"))
    events: list[str] = []
    with spatialnet_edge.load(tiny_path) as model:
        results = model.stream(
            "faulty:ok*5,hang|ok*5", policy="queue:9", report=lambda kind, detail: events.append(kind), silence_s=0.5
        )
        assert results.live
        assert len(list(results)) == 10
    assert events == ["camera_open", "camera_hung", "camera_open"]


def test_an_absent_camera_is_waited_for_unless_told_otherwise(
    tiny_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULTY_STATE", str(tmp_path / "state"))
    with spatialnet_edge.load(tiny_path) as model:
        assert len(list(model.stream("faulty:absent|absent|ok*5", policy="queue:9"))) == 5
        (tmp_path / "state").unlink()
        with pytest.raises(SourceRefused, match="no such camera"):
            list(model.stream("faulty:absent|ok*5", wait=False))


class Silent:
    """An in-process source that pauses for a while."""

    uri, length, fps, live = "silent", None, None, False

    def __iter__(self) -> Iterator[Frame | Skipped]:
        yield Frame(clip_frames(1)[0], 0, "silent")
        time.sleep(1.5)
        yield Frame(clip_frames(1)[0], 1, "silent")

    def close(self) -> None: ...


@pytest.mark.fault(74)
def test_a_source_that_hangs_in_this_process_is_named(tiny_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spatialnet_edge.runtime.stall_monitor.STALL_S", 0.4)
    told: list[tuple[str, str]] = []
    with spatialnet_edge.load(tiny_path) as model:
        assert len(list(model.stream(Silent(), report=lambda *event: told.append(event)))) == 2
    assert [kind for kind, _ in told][-2:] == ["source_stalled", "source_resumed"]
    assert told[0][1].startswith("silent: no frame for")


def test_a_stream_restores_the_process_state(tiny_path: Path) -> None:
    threads, filters = cv2.getNumThreads(), list(warnings.filters)
    cv2.setNumThreads(3)
    try:
        with spatialnet_edge.load(tiny_path) as model:
            results = model.stream(str(CLIP), workers=2)
            next(results)
            assert cv2.getNumThreads() == 1
            assert len(list(results)) == 241
            assert cv2.getNumThreads() == 3
            model(clip_frames(1)[0])
    finally:
        cv2.setNumThreads(threads)
    assert warnings.filters == filters
    program = (
        "import warnings, cv2, PIL.Image; before = list(warnings.filters)\n"
        "import spatialnet_edge.core.pixels, spatialnet_edge.sources.stills; assert warnings.filters == before"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


class Failing:
    """A sink that accepts one result, then fails."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.taken = 0

    def write(self, result: FrameResult) -> None:
        self.taken += 1
        if self.taken > 1:
            raise self.error

    def close(self) -> None: ...


def test_a_sink_that_fails_ends_the_stream_with_its_error(tiny_path: Path) -> None:
    with spatialnet_edge.load(tiny_path) as model, pytest.raises(SinkError, match="full"):
        list(model.stream(str(CLIP), sinks={"mine": Failing(SinkError("the disk is full"))}))
    with spatialnet_edge.load(tiny_path) as model, pytest.raises(ReaderGone):
        list(model.stream(str(CLIP), sinks=[Failing(ReaderGone("gone"))]))


def test_sinks_have_names_and_those_that_were_opened_are_closed_when_another_cannot_be(
    tiny_path: Path, tmp_path: Path
) -> None:
    first = MemorySink()
    with spatialnet_edge.load(tiny_path) as model:
        results = model.stream(arrays(3), sinks={"ground": "null:", "here": MemorySink()})
        assert [sink.name for sink in results.sinks] == ["ground", "here"]
        results.close()
        with pytest.raises(UsageError, match="no sink"):
            model.stream(arrays(3), sinks=[first, "carrier:pigeon"])
    assert first.closed


def test_a_closed_pipe_is_not_an_error(tiny_path: Path) -> None:
    """`spatialnet-edge run … --json - | head -1`."""
    command = [sys.executable, "-m", "spatialnet_edge", "run", str(tiny_path), str(CLIP), "--json", "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        assert run.stdout.readline().startswith('{"seq":0')
        run.stdout.close()
        message = run.stderr.read()
        assert run.wait(60) == 0, message
    assert "spatialnet-edge:" not in message
