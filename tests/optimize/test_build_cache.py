"""Identical builds are reused, and every changed input gives a new build."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from conftest import write_tiny_bundle
from spatialnet_edge.bundle.reader import open_bundle
from spatialnet_optimize.build import build_cache
from spatialnet_optimize.build.build import Job
from spatialnet_optimize.build.build_cache import MOST, cache_folder, key, remembered
from spatialnet_optimize.compilers.plan_builder import PlanOptions


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_the_second_build_takes_a_tenth_of_the_time_and_gives_the_same_bytes(tmp_path: Path) -> None:
    student = open_bundle("builtin:student")
    job = Job(student, "cpu", tmp_path / "first.snb", precision="int8")
    times: list[float] = []
    for name in ("first.snb", "second.snb"):
        started = time.perf_counter()
        steps: list[str] = []
        remembered(replace(job, output=tmp_path / name), steps.append)
        times.append(time.perf_counter() - started)
    assert times[1] < 0.1 * times[0]
    assert "in the cache and is reused" in steps[0]
    assert (tmp_path / "first.snb").read_bytes() == (tmp_path / "second.snb").read_bytes()


def test_every_input_of_a_build_changes_its_key(tmp_path: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(write_tiny_bundle(tmp_path / "tiny.snb"), "cpu", tmp_path / "out.snb")
    keys = [key(job), key(replace(job, budget=1.0)), key(replace(job, target="rtx")), key(replace(job, heads=("shade",)))]
    keys += [key(replace(job, plan=PlanOptions(batches=(1, 4))))]
    keys += [key(replace(job, precision="fp32")), key(replace(job, labelled=(image_folder,)))]
    keys += [key(replace(job, calibration=image_folder)), key(replace(job, model=open_bundle("builtin:student")))]
    (image_folder / "new").write_bytes(b"x")
    keys.append(key(replace(job, labelled=(image_folder,))))
    (image_folder / "table.csv").write_text("path,shade\nbright/0.jpg,bright\ndark/1.jpg,dark\n")
    tabled = replace(job, labelled=(image_folder / "table.csv",))
    keys.append(key(tabled))
    (image_folder / "dark" / "1.jpg").write_bytes((image_folder / "bright" / "0.jpg").read_bytes())
    keys.append(key(tabled))
    monkeypatch.setattr(build_cache, "installed", lambda library: "another version")
    keys.append(key(job))
    assert len(set(keys)) == len(keys)
    assert key(job) == key(replace(job, output=tmp_path / "elsewhere.snb"))


def test_a_damaged_entry_is_built_again_and_old_ones_go(tmp_path: Path) -> None:
    job = Job(write_tiny_bundle(tmp_path / "tiny.snb"), "cpu", tmp_path / "out.snb", precision="fp32")
    remembered(job, lambda text: None)
    (entry,) = cache_folder().glob("*.snb")
    entry.write_bytes(entry.read_bytes()[:-100])
    for index in range(MOST + 3):
        (cache_folder() / f"{index:03}.snb").write_bytes(b"old")
    steps: list[str] = []
    remembered(job, steps.append)
    assert not any("cache" in step for step in steps)
    assert open_bundle(entry).spec.name == "tiny"
    assert len(list(cache_folder().glob("*.snb"))) == MOST


def test_a_cache_that_cannot_be_written_costs_a_warning_and_a_folder_that_is_not_there_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(write_tiny_bundle(tmp_path / "tiny.snb"), "cpu", tmp_path / "new" / "out.snb", precision="fp32")
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/no")
    steps: list[str] = []
    assert remembered(job, steps.append).spec.name == "tiny"
    assert "the build was not cached" in steps[-1]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    remembered(job, steps.append)
    again = replace(job, output=tmp_path / "newer" / "out.snb")
    remembered(again, steps.append)
    assert "in the cache and is reused" in steps[-1]
    assert open_bundle(again.output).spec.name == "tiny"
