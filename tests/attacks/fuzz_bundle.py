"""A fuzz target for everything that reads a bundle: coverage-guided, by atheris.

    pip install atheris -e .
    python tests/attacks/fuzz_bundle.py -runs=1000000

Whatever the bytes are, the only thing that may come out is a `BundleError`. Four doors are tried, chosen by the first byte: a
whole `.snb` file, a manifest alone, an image, and the golden answers of a bundle whose hashes are right because its maker is the
enemy.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import atheris  # pyright: ignore[reportMissingImports]
import numpy as np

with atheris.instrument_imports(include=["spatialnet_edge", "zipfile"]):
    from spatialnet_edge.bundle.manifest import Golden, Manifest, Provenance, decode_manifest, encode_manifest
    from spatialnet_edge.bundle.reader import MANIFEST, open_bundle
    from spatialnet_edge.bundle.trust import Trust
    from spatialnet_edge.bundle.writer import file_records, write_raw
    from spatialnet_edge.core.errors import BundleError
    from spatialnet_edge.core.pixels import decode_rgb, encode_png
    from spatialnet_edge.core.spec import RGB, InputSpec, ModelSpec, Multilabel

FOLDER = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
ANYBODY = Trust(allow_unsigned=True)
SPEC = ModelSpec(
    name="fuzzed",
    input=InputSpec(height=8, width=8, groups=(RGB,)),
    heads=(Multilabel(name="objects", labels=("a", "b"), thresholds=(0.5, 0.5)),),
)
FRAME = encode_png(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
ANSWERS = b'{"objects": [[0.1, 0.9], [0, 1], [1, 0], [0, 0], [1, 1], [0.5, 0.5], [0, 0.1], [0.2, 1]]}'
FRAMES = tuple(f"golden/frame_{index:02d}.png" for index in range(8))


def files(frame: bytes, expected: bytes) -> dict[str, bytes]:
    """A bundle with right hashes, all of whose golden frames are `frame`."""
    contents = {"model.onnx": b"no graph", "golden/expected.json": expected} | dict.fromkeys(FRAMES, frame)
    manifest = Manifest(
        format=1,
        serial=1,
        spec=SPEC,
        files=file_records(contents),
        golden=Golden(frames=FRAMES, expected="golden/expected.json", tolerance=0.1),
        provenance=Provenance(created="2026-01-01T00:00:00+00:00", tool="fuzz", source="fuzz"),
    )
    return {MANIFEST: encode_manifest(manifest), **contents}


def seeds(folder: Path) -> None:
    """Good inputs for each door, from which the fuzzer starts."""
    whole = files(FRAME, ANSWERS)
    write_raw(FOLDER / "seed.snb", whole)
    (folder / "whole").write_bytes(b"\0" + (FOLDER / "seed.snb").read_bytes())
    (folder / "manifest").write_bytes(b"\1" + whole[MANIFEST])
    (folder / "frame").write_bytes(b"\2" + FRAME)
    (folder / "answers").write_bytes(b"\3" + ANSWERS)


def one_input(data: bytes) -> None:
    door, body = (data[0] % 4 if data else 0), data[1:]
    path = FOLDER / "input.snb"
    try:
        if door == 0:
            path.write_bytes(body)
            open_bundle(path, ANYBODY)
        elif door == 1:
            decode_manifest(body, "input")
        elif door == 2:
            with suppress(ValueError):
                decode_rgb(body)
        else:
            write_raw(path, files(FRAME, body))
            open_bundle(path, ANYBODY).golden()
    except BundleError:
        pass


if __name__ == "__main__":
    corpus = Path(tempfile.mkdtemp())
    seeds(corpus)
    atheris.Setup([*sys.argv, "-max_len=20000", str(corpus)], one_input)
    atheris.Fuzz()
