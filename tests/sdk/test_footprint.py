"""Import time and memory of the runtime."""

import json
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from conftest import ROOT
from spatialnet_edge.core.plugins import _installed

IMPORT_LIMIT_S = 0.25


def fresh(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout.strip()


def test_importing_brings_nothing_heavy() -> None:
    heavy = {"torch", "timm", "onnx", "onnxruntime", "typer", "cv2", "sklearn", "rich"}
    loaded = set(json.loads(fresh("import sys, json, spatialnet_edge; print(json.dumps(sorted(sys.modules)))")))
    assert not loaded & heavy


def test_streaming_never_imports_the_rooms_above(tiny_path: Path) -> None:
    program = (
        "import sys, json, spatialnet_edge\n"
        f"for _ in spatialnet_edge.stream({str(tiny_path)!r}, 'synthetic:frames=3&size=64x64'): pass\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    loaded = set(json.loads(fresh(program)))
    assert not loaded & {"torch", "timm", "onnx", "sklearn", "typer", "spatialnet_training", "spatialnet_optimize"}


def test_importing_takes_little_more_than_numpy() -> None:
    program = "import time; a = time.perf_counter(); import numpy, {}; print(time.perf_counter() - a)"
    ours = min(float(fresh(program.format("spatialnet_edge"))) for _ in range(5))
    numpy = min(float(fresh(program.format("numpy"))) for _ in range(5))
    assert ours - numpy <= IMPORT_LIMIT_S


def test_help_imports_no_command() -> None:
    program = (
        "import sys; from typer.testing import CliRunner; from spatialnet_edge.cli.app import app\n"
        "print(CliRunner().invoke(app, ['--help']).output)\n"
        "print([m for m in sys.modules if m in ('cv2', 'torch', 'onnx', 'onnxruntime', 'sklearn')])"
    )
    output = fresh(program)
    assert output.endswith("[]")
    for command in ("build", "run", "evaluate", "inspect", "doctor", "bench", "targets"):
        assert command in output


def test_streaming_takes_no_more_than_130_mb() -> None:
    """Peak private memory. Mapped library files are not counted: the kernel can evict them, and they vary (60 to 110 MB for
    the same versions)."""
    program = (
        "import spatialnet_edge\n"
        "def own():\n"
        "    status = dict(line.split(':') for line in open('/proc/self/status'))\n"
        "    return int(status['RssAnon'].split()[0]) + int(status['RssShmem'].split()[0])\n"
        f"clip = {str(ROOT / 'samples' / 'brighton_beach.mp4')!r}\n"
        "print(max(own() for _ in spatialnet_edge.stream('builtin:student', clip)))"
    )
    peak = int(fresh(program))  # kB
    assert 10_000 < peak <= 130_000


def test_another_package_adds_a_sink_and_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """A real distribution on the path, as `pip install` would lay it out."""
    (tmp_path / "shouting.py").write_text(
        "class ShoutSink:\n"
        "    def __init__(self, rest): print('LOUD', rest)\n"
        "    def write(self, result): print(result.shade.label.upper())\n"
        "    def close(self): print('silence')\n"
        "def shout() -> None:\n"
        "    print('HELLO')\n"
    )
    info = tmp_path / "shouting-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shouting\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[spatialnet_edge.sinks]\nshout = shouting:ShoutSink\n[spatialnet_edge.commands]\nshout = shouting:shout\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    request.addfinalizer(_installed.cache_clear)
    _installed.cache_clear()
    assert "shout" in {entry.name for entry in entry_points(group="spatialnet_edge.sinks")}
    from typer.testing import CliRunner

    from spatialnet_edge.cli.app import app
    from spatialnet_edge.sinks.registry import open_sink

    open_sink("shout:here").close()
    result = CliRunner().invoke(app, ["shout"])
    assert result.output == "HELLO\n"
    assert "shout" in CliRunner().invoke(app, ["--help"]).output
