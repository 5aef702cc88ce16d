"""Bundle writer of builds and exports: graph, engines, golden frames and manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from spatialnet_edge import __version__
from spatialnet_edge.bundle.manifest import BuildRecord, EngineRecord, Golden, Manifest, Provenance
from spatialnet_edge.bundle.reader import MODEL, Bundle
from spatialnet_edge.bundle.writer import file_records, write_bundle
from spatialnet_edge.core.pixels import encode_png
from spatialnet_edge.core.spec import ModelSpec
from spatialnet_optimize.evaluation.gates import GOLDEN_TOLERANCE, REFERENCE

TOOL = f"spatialnet-edge {__version__}"


def built_bundle(
    model: Bundle,
    output: Path,
    spec: ModelSpec,
    portable: bytes,
    engines: Mapping[EngineRecord, bytes],
    tolerance: float,
    record: BuildRecord,
) -> Bundle:
    """A bundle with engines and the portable graph. The golden frames are those of the source model.

    Args:
        engines: in order of preference.
    """
    old = model.manifest
    contents = {MODEL: portable} | {engine.path: content for engine, content in engines.items()}
    contents |= {path: model.read(path) for path in (*old.golden.frames, old.golden.expected)}
    source = f"{model.path.name} (sha256 {model.sha256})"
    manifest = Manifest(
        format=1,
        serial=old.serial,
        spec=spec,
        files=file_records(contents),
        golden=Golden(frames=old.golden.frames, expected=old.golden.expected, tolerance=tolerance),
        provenance=replace(old.provenance, created=now(), tool=TOOL, source=source),
        engines=(*engines, EngineRecord(path=MODEL, backend="onnxruntime", precision=REFERENCE)),
        build=record,
    )
    return write_bundle(output, manifest, contents)


def portable_bundle(
    output: Path,
    spec: ModelSpec,
    graph: bytes,
    frames: NDArray[np.uint8],
    answers: dict[str, NDArray[np.float32]],
    provenance: Provenance,
    serial: int = 1,
) -> Bundle:
    """A bundle with only the FP32 graph: the result of an export and the input of every build.

    Args:
        frames: uint8 `[N, H, W, 3]` RGB, at least eight real images, which become the golden frames.
        answers: outputs of the reference for them, float32 `[N, width]` per head.
    """
    contents = {MODEL: graph}
    for index, frame in enumerate(frames):
        contents[f"golden/frame_{index:02d}.png"] = encode_png(frame)
    table = {name: [[round(float(p), 7) for p in row] for row in rows] for name, rows in answers.items()}
    contents["golden/expected.json"] = (json.dumps(table) + "\n").encode()
    golden = Golden(
        frames=tuple(sorted(path for path in contents if path.endswith(".png"))),
        expected="golden/expected.json",
        tolerance=GOLDEN_TOLERANCE[REFERENCE],
    )
    manifest = Manifest(format=1, serial=serial, spec=spec, files=file_records(contents), golden=golden, provenance=provenance)
    return write_bundle(output, manifest, contents)


def now() -> str:
    return datetime.now(timezone.utc).replace(microsecond=0).isoformat()
