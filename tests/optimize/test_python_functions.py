"""`build` and `evaluate` from Python give what the commands give."""

from pathlib import Path

import pytest

from spatialnet_edge.core.errors import UsageError
from spatialnet_optimize.api import build, evaluate, quantise


def test_evaluate_gives_scores(tiny_path: Path, image_folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    found = evaluate(tiny_path, image_folder, progress=lambda done, images: seen.append((done, images)))
    (score,) = found.scores
    assert (score.head, score.images, score.headline) == ("shade", 6, 1.0)
    assert found.broken == ("dark/broken.jpg",)
    assert found.engine.path == "model.onnx"
    assert not found.contains_training
    assert seen[-1] == (7, 7)
    with pytest.raises(UsageError, match="no head 'ships'"):
        evaluate(tiny_path, image_folder, heads=["ships"])


def test_build_writes_the_bundle_that_passes_the_gates(tiny_path: Path, image_folder: Path, tmp_path: Path) -> None:
    steps: list[str] = []
    bundle = build(
        tiny_path,
        tmp_path / "built.snb",
        target="cpu",
        labelled=[image_folder],
        heads=["shade"],
        fresh=True,
        step=steps.append,
    )
    assert bundle.path == tmp_path / "built.snb"
    assert [head.name for head in bundle.spec.heads] == ["shade"]
    assert bundle.manifest.build is not None
    assert bundle.manifest.build.target == "cpu"
    assert steps


def test_quantise_writes_the_requested_variant(tiny_path: Path, image_folder: Path, tmp_path: Path) -> None:
    bundle = quantise(tiny_path, tmp_path / "int8.snb", variant="fp16", labelled=[image_folder])
    assert bundle.manifest.engines[0].precision == "fp16"
    assert bundle.manifest.build is not None
    assert [each.name for each in bundle.manifest.build.candidates if each.chosen] == ["fp16"]
    assert evaluate(bundle.path, image_folder).engine.precision == "fp16"
    with pytest.raises(UsageError, match=r"no variant 'int3' for a CPU; expected one of fp16, int8-dynamic, int8-static"):
        quantise(tiny_path, tmp_path / "int3.snb", variant="int3")
