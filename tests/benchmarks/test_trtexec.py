"""`trtexec` compared with our own measurement. `tests/cuda` runs the check itself on a stand-in of the driver."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from conftest import ROOT
from spatialnet_benchmarks.trtexec import command, find_trtexec, latencies_of
from spatialnet_edge.bundle.manifest import EngineRecord
from spatialnet_edge.core.errors import EngineUnavailable

PLAYED = ROOT / "tests" / "cuda" / "played" / "bin"
RECORD = EngineRecord(path="engines/tensorrt.fp16.plan", backend="tensorrt", precision="fp16", library_version="10.3.0")


def test_it_is_found_on_the_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_trtexec() == ""
    monkeypatch.setenv("PATH", str(PLAYED))
    assert find_trtexec() == str(PLAYED / "trtexec")


def test_options_say_how_the_plan_was_built() -> None:
    words = command("trtexec", RECORD, 1, (4, 96, 96, 3), 1000)
    assert words[:4] == ["trtexec", "--loadEngine=model.plan", "--shapes=image:4x96x96x3", "--useProfile=1"]
    assert "--useCudaGraph" in words
    assert "--versionCompatible" not in words
    words = command("trtexec", replace(RECORD, version_compatible=True, dla_core=1), 0, (1, 96, 96, 3), 1000)
    assert {"--versionCompatible", "--useDLACore=1"} <= set(words)
    assert "--useCudaGraph" not in words  # not with the accelerator


def test_times_are_read_and_a_failure_says_why() -> None:
    program = str(PLAYED / "trtexec")
    assert list(latencies_of(command(program, RECORD, 0, (2, 96, 96, 3), 5), b"a plan")) == [2.5] * 5
    with pytest.raises(EngineUnavailable, match=r"trtexec ended with 1: \[E\] Engine could not be created"):
        latencies_of(command(program, RECORD, 0, (2, 96, 96, 3), 5), b"")
    with pytest.raises(EngineUnavailable, match="Unknown option: --fp16"):
        latencies_of([*command(program, RECORD, 0, (2, 96, 96, 3), 5), "--fp16"], b"a plan")
