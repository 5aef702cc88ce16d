"""Frames that the model knows least, kept within a number and a byte budget."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from service_fixtures import result
from spatialnet_edge.bundle.reader import open_bundle
from spatialnet_edge.cli.run_options import Selection
from spatialnet_edge.core.errors import UsageError
from spatialnet_edge.core.frames import Frame
from spatialnet_edge.core.pixels import decode_rgb
from spatialnet_edge.core.results import FrameResult
from spatialnet_edge.core.spec import ModelSpec
from spatialnet_edge.runtime.drift_monitor import LEAST_FRAMES, DriftMonitor
from spatialnet_edge.runtime.frame_stats import FrameStats
from spatialnet_edge.sinks.registry import open_sink
from spatialnet_edge.sinks.unknown_frames import NAME, UnknownFramesSink, knownness, parse_unknown


def seen(seq: int, known: float | None, seconds: float | None = None, source: str = "camera") -> FrameResult:
    """A result of a frame of 40×60 pixels, ten seconds after the one before."""
    picture = np.random.default_rng(seq).integers(0, 255, (40, 60, 3)).astype(np.uint8)
    frame = Frame(picture, seq, source, captured_unix=1e9 + (10 * seq if seconds is None else seconds))
    return replace(result(seq), frame=frame, known=known, reason=None if known is None or known > 0.5 else "unknown")


def kept(folder: Path) -> list[int]:
    """Numbers of the frames in a folder, each with a readable picture and record."""
    found: list[int] = []
    for path in sorted(folder.glob("*.jpg")):
        matched = NAME.match(path.name)
        assert matched is not None
        assert decode_rgb(path.read_bytes()).shape == (40, 60, 3)
        assert json.loads(path.with_suffix(".json").read_text())["seq"] == int(matched[2])
        found.append(int(matched[2]))
    assert len(list(folder.iterdir())) == 2 * len(found)
    return sorted(found)


def test_the_least_known_frames_stay(tmp_path: Path) -> None:
    sink = open_sink(f"unknown:{tmp_path}/doubtful?keep=3")
    for seq, known in enumerate([0.9, 0.2, 0.8, 0.1, 0.95, 0.3, 0.7]):
        sink.write(seen(seq, known))
    sink.close()
    assert kept(tmp_path / "doubtful") == [1, 3, 5]


def test_of_frames_close_in_time_the_least_known_one_stays(tmp_path: Path) -> None:
    sink = UnknownFramesSink(f"{tmp_path}?keep=5&every_s=2")
    for seq, (known, seconds) in enumerate([(0.5, 0.0), (0.3, 0.5), (0.4, 1.0), (0.6, 9.0)]):
        sink.write(seen(seq, known, seconds))
    assert kept(tmp_path) == [1, 3]


def test_the_bytes_stay_within_the_budget(tmp_path: Path) -> None:
    budget = 0.02
    sink = UnknownFramesSink(f"{tmp_path}?keep=1000&total_mb={budget}")
    for seq in range(40):
        sink.write(seen(seq, 1 - seq / 100))
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= budget * 1e6
    assert 1 < len(kept(tmp_path)) < 40
    assert max(kept(tmp_path)) == 39


def test_a_restart_goes_on_with_what_is_there_and_leaves_other_files_alone(tmp_path: Path) -> None:
    UnknownFramesSink(f"{tmp_path}?keep=2").write(seen(1, 0.3))
    sink = UnknownFramesSink(f"{tmp_path}?keep=2")
    sink.write(seen(2, 0.2))
    sink.write(seen(3, 0.9))
    assert kept(tmp_path) == [1, 2]
    (tmp_path / "notes.txt").write_text("mine")
    UnknownFramesSink(f"{tmp_path}?keep=1")
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".jpg", ".json", ".txt"]
    (tmp_path / "notes.txt").unlink()
    assert kept(tmp_path) == [2]


def test_names_are_numbers_whatever_the_source_is_called(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    sink = UnknownFramesSink(f"{folder}?keep=2")
    sink.write(replace(seen(4, 0.1, source="../../etc/passwd\x00"), predictions={}))
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert kept(folder) == [4]


def test_frames_without_a_picture_are_not_kept_and_without_known_the_confidence_counts() -> None:
    assert knownness(replace(seen(0, 0.1), reason="dark")) is None
    assert knownness(seen(0, 0.25)) == 0.25
    assert knownness(replace(seen(0, None), predictions={})) is None
    plain = seen(0, None)
    assert knownness(plain) == min(each.confidence for each in plain.predictions.values() if hasattr(each, "confidence"))


def test_a_disk_that_does_not_take_a_frame_is_reported(tmp_path: Path) -> None:
    told: list[str] = []
    sink = UnknownFramesSink(f"{tmp_path}/gone?keep=2")
    sink.report = lambda kind, detail: told.append(kind)
    (tmp_path / "gone").rmdir()
    sink.write(seen(0, 0.1))
    assert (told, sink.lost) == (["sink_failed"], 1)


@pytest.mark.parametrize("rest", ["", "?keep=3", "d?keep=0", "d?keep=x", "d?kept=3", "d?total_mb=nan", "d?side=1"])
def test_a_wrong_uri_is_refused(rest: str) -> None:
    with pytest.raises(UsageError, match="unknown:"):
        parse_unknown(rest)


def test_drift_is_reported_once_and_its_end_too() -> None:
    stats, told = FrameStats(), list[str]()
    monitor = DriftMonitor("camera", stats, lambda kind, detail: told.append(f"{kind}: {detail}"))

    def emit(frames: int, reason: str | None) -> None:
        for _ in range(frames):
            stats.emit(reason)
            monitor.watch()

    emit(LEAST_FRAMES - 1, "unknown")
    assert told == []
    emit(50, "unknown")
    assert told == ["drift: camera: 100% of the frames have no label, mostly unknown"]
    emit(2000, None)
    assert told[1:] == ["drift_ended: camera: 25% of the frames have no label"]
    emit(1000, "dark")
    assert told[2].startswith("drift: camera: 50%")


def test_run_keeps_frames_and_shows_the_heads_that_are_asked_for(tiny_path: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "spatialnet_edge", "run", str(tiny_path), "synthetic:frames=30&size=64x48&fps=10"]
    options = ["--keep-unknown", "2", "--keep-folder", str(tmp_path / "kept"), "--heads", "shade,level", "--json", "-"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "kept").glob("*.jpg"))) == 2
    assert all(list(json.loads(line)["predictions"]) == ["shade", "level"] for line in done.stdout.splitlines())


def test_people_are_shown_no_head_of_a_single_data_set() -> None:
    spec = load_spec()
    assert spec.main_heads == ("land_use", "objects", "settlement")
    assert Selection("").shown(spec) == ("land_use", "objects", "settlement")
    assert Selection("all").shown(spec) == ()
    assert Selection("land_use_aid, known_as").shown(spec) == ("land_use_aid", "known_as")
    assert spec.keep(("land_use_aid",)).main_heads == ("land_use_aid",)


def load_spec() -> ModelSpec:
    return open_bundle("builtin:spatialnet-s").spec
