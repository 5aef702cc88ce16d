"""A complete plug-in: a package that adds a source and a sink by entry points and is used only through URIs."""

import json
import os
import subprocess
import sys
from pathlib import Path

PLUGIN = '''
"""A camera and a radio of our own."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from spatialnet_edge import Frame, FrameResult, Sink, Skipped, Source


class GradientSource:
    """`gradient:COUNT`: COUNT pictures from dark to bright."""

    length: int | None
    fps: float | None = None
    live = False

    def __init__(self, rest: str) -> None:
        self.uri = f"gradient:{rest}"
        self.length = int(rest)

    def __iter__(self) -> Iterator[Frame | Skipped]:
        for seq in range(self.length):
            if seq == 1:
                yield Skipped(seq, "decode_error", "this one is broken")
            else:
                yield Frame(np.repeat(np.arange(0, 256, 4, np.uint8)[None, :, None], 64, 0).repeat(3, 2), seq, self.uri)

    def close(self) -> None:
        Path("closed").touch()


class LabelSink:
    """`labels:FILE`: the label of each frame, a line each."""

    wants_pixels = False

    def __init__(self, rest: str) -> None:
        self._file = open(rest, "w")

    def write(self, result: FrameResult) -> None:
        self._file.write(f"{result.seq} {result['shade']}\\n")

    def close(self) -> None:
        self._file.close()


source: Source = GradientSource("1")
sink: type[Sink] = LabelSink
assert isinstance(source, Source)
'''

ENTRY_POINTS = """
[spatialnet_edge.sources]
gradient = our_payload:GradientSource

[spatialnet_edge.sinks]
labels = our_payload:LabelSink
"""


def test_a_package_adds_a_source_and_a_sink(tiny_path: Path, tmp_path: Path) -> None:
    (tmp_path / "our_payload.py").write_text(PLUGIN)
    metadata = tmp_path / "our_payload-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: our-payload\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
    command = [sys.executable, "-m", "spatialnet_edge", "run", str(tiny_path), "gradient:4", "--sink", "labels:labels.txt"]
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run([*command, "--json", "-"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done.stderr
    assert "1 of its 4 frames could not be decoded" in done.stderr
    assert [json.loads(line)["seq"] for line in done.stdout.splitlines()] == [0, 2, 3]
    assert [line.split()[0] for line in (tmp_path / "labels.txt").read_text().splitlines()] == ["0", "2", "3"]
    table = [line.strip("│ ").split("│") for line in done.stderr.splitlines() if line.startswith("│")]
    rows = [tuple(cell.strip() for cell in row) for row in table]
    assert ("skipped: decode_error", "1") in rows
    assert ("this one is broken",) in rows
    assert (tmp_path / "closed").exists()
