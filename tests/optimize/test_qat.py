"""Quantisation-aware training: it rounds what the Q/DQ graph rounds, and brings back what rounding costs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import SAMPLES
from spatialnet_edge.bundle.manifest import Provenance
from spatialnet_edge.bundle.reader import open_bundle
from spatialnet_edge.core.errors import RunError, UsageError
from spatialnet_edge.core.pixels import encode_png
from spatialnet_edge.core.spec import RGB, InputSpec, ModelSpec, Multiclass, Multilabel
from spatialnet_optimize.build.build import Job, build
from spatialnet_optimize.build.labelled_data import calibrate
from spatialnet_optimize.build.variants import precisions_to_try
from spatialnet_optimize.cli.build_options import Variants
from spatialnet_optimize.evaluation.candidate_evaluation import open_candidate
from spatialnet_optimize.evaluation.gates import MODELOPT, QAT, REFERENCE, Measured, better
from spatialnet_optimize.evaluation.metrics import decode_images
from spatialnet_optimize.export.from_checkpoint import export_checkpoint
from spatialnet_optimize.export.graph import DeployedGraph, export_onnx
from spatialnet_optimize.quantization import modelopt_int8
from spatialnet_optimize.quantization.int8 import int8_static, linear_layers
from spatialnet_optimize.quantization.int8_qat import int8_qat, layers_of
from spatialnet_optimize.quantization.scheme import QatRequest
from spatialnet_training.data.labelled_dataset import open_labelled
from spatialnet_training.loop.quantization_aware import QatOptions, distance, rounded, train_rounded
from spatialnet_training.loop.quantization_aware import answers as logits
from spatialnet_training.networks.checkpoint import load_network, save_network
from spatialnet_training.networks.model import SpatialNet

SPEC = ModelSpec(
    name="tiny",
    input=InputSpec(height=32, width=32, groups=(RGB,)),
    heads=(
        Multiclass(name="land_use_eurosat", labels=tuple("abcdefghij")),
        Multilabel(name="objects", labels=("p", "q"), thresholds=(0.5, 0.5)),
    ),
)
MADE_UP = Provenance(created="2026-01-01T00:00:00+00:00", tool="tests", source="random weights")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, some channels of the norms far from the others, so that eight bits a tensor hold them poorly."""
    torch.manual_seed(0)
    network = SpatialNet("student-1m", {head.name: head.width for head in SPEC.heads}, 32)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("second.1.weight") or name == "pooling.query":
                parameter.normal_(0, 0.5)
            if "norm1.weight" in name or "norm2.weight" in name:
                parameter[::16] *= 6
        for head in network.heads.values():
            head.weight.mul_(8)
    path = tmp_path_factory.mktemp("checkpoint") / "tiny"
    save_network(path, network.eval(), "student-1m", SPEC, MADE_UP)
    return path


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return decode_images(open_labelled(SAMPLES / "eurosat.zip"), SPEC.input).images[:32]


def test_training_rounds_what_the_exported_graph_rounds(checkpoint: Path, images: np.ndarray) -> None:
    network, spec, _ = load_network(checkpoint)
    graph = export_onnx(network, spec)
    layers = layers_of(network, graph, images)
    assert len(layers) == len(linear_layers(graph))
    found = open_candidate(int8_static(graph, images, "tensorrt"), spec, here=False).infer(images)
    plain = open_candidate(graph, spec, here=False).infer(images)
    with rounded(layers), torch.no_grad():
        expected = dict(zip(found, DeployedGraph(network, spec).eval()(torch.from_numpy(images)), strict=True))
    for name, values in found.items():
        cost = np.abs(values - plain[name]).mean()
        assert cost > 1e-4  # rounding shows
        assert (
            np.abs(values - expected[name].numpy()).mean() < 0.1 * cost
        )  # and is the same on both sides, but for the last bit
    with torch.no_grad():  # outside nothing is rounded
        after = DeployedGraph(network, spec).eval()(torch.from_numpy(images))[0].numpy()
    assert np.allclose(after, plain["land_use_eurosat"], atol=1e-4)


def test_a_few_hundred_steps_bring_answers_back(checkpoint: Path, images: np.ndarray) -> None:
    network, spec, _ = load_network(checkpoint)
    layers = layers_of(network, export_onnx(network, spec), images)
    with torch.no_grad():
        wanted = logits(network, images, spec)
        with rounded(layers):
            before = float(distance(logits(network, images, spec), wanted, spec))
    losses: list[float] = []
    options = QatOptions(epochs=40, batch=8, learning_rate=1e-6)
    train_rounded(network, spec, images, layers, options, lambda epoch, loss: losses.append(loss))
    with torch.no_grad(), rounded(layers):
        after = float(distance(logits(network, images, spec), wanted, spec))
    assert len(losses) == 40
    assert np.mean(losses[-5:]) < 0.75 * losses[0]
    assert after < 0.9 * before
    graph = export_onnx(load_network(checkpoint)[0], spec)
    expected = open_candidate(graph, spec, here=False).infer(images)
    plain = open_candidate(int8_static(graph, images, "tensorrt"), spec, here=False).infer(images)
    learnt = open_candidate(int8_static(export_onnx(network, spec), images, "tensorrt"), spec, here=False).infer(images)
    changes = [sum(np.abs(each[name] - expected[name]).mean() for name in expected) for each in (learnt, plain)]
    assert changes[0] < changes[1]  # the exported graph answers more like FP32, too


def test_training_that_diverges_is_an_error(checkpoint: Path, images: np.ndarray) -> None:
    network, spec, _ = load_network(checkpoint)
    layers = layers_of(network, export_onnx(network, spec), images)
    with torch.no_grad():
        next(iter(network.heads.values())).bias.fill_(float("nan"))
    with pytest.raises(RunError, match="diverged in epoch 1"):
        train_rounded(network, spec, images, layers, QatOptions(epochs=1))


def test_the_same_seed_gives_the_same_graph(checkpoint: Path, images: np.ndarray) -> None:
    options = QatOptions(epochs=1, seed=3)
    assert int8_qat(checkpoint, images, options) == int8_qat(checkpoint, images, options)


def test_a_build_keeps_it_only_where_it_comes_out_better(checkpoint: Path, tmp_path: Path, monkeypatch) -> None:
    bundle = export_checkpoint(checkpoint, tmp_path / "tiny.snb", (SAMPLES / "eurosat.zip",))
    job = Job(bundle, "orin-nano", tmp_path / "out.snb", budget=100.0, precision="int8", qat=QatRequest(checkpoint, 1))
    for verdict in (True, False):
        monkeypatch.setattr("spatialnet_optimize.build.variants.better", lambda *given, verdict=verdict: verdict)
        steps: list[str] = []
        report = build(job, steps.append)[0].manifest.build
        assert report is not None
        assert (QAT in [each.name for each in report.candidates]) is verdict
        assert any("left out: no better than int8-qdq" in step for step in steps) is not verdict
    with pytest.raises(UsageError, match="target 'cpu' has not"):
        build(replace(job, target="cpu"))
    with pytest.raises(UsageError, match="no checkpoint"):
        Variants(qat=3).qat_request("builtin:student")
    assert Variants(qat=3).qat_request(str(checkpoint)) == QatRequest(checkpoint, 3)


def test_it_learns_on_more_images_than_the_ranges_are_taken_from(images: np.ndarray, tmp_path: Path, monkeypatch) -> None:
    for number, image in enumerate(images[:20]):
        (tmp_path / f"{number}.png").write_bytes(encode_png(image))
    student = open_bundle("builtin:student")
    assert calibrate(tmp_path, student, student.spec, [])[0].training is None
    monkeypatch.setattr("spatialnet_optimize.build.labelled_data.MOST_TRAINING", 14)
    found, _ = calibrate(tmp_path, student, student.spec, [], training=True)
    assert found.training is not None
    assert (len(found.images), len(found.training)) == (20, 14)


def test_better_means_passing_then_accuracy_then_agreement() -> None:
    def measured(name: str, accuracy: float, agreement: float) -> Measured:
        return Measured(name, b"", {"head": accuracy}, agreement, 0.01, 0.0, 0.0)

    reference = measured(REFERENCE, 0.9, 1.0)
    plain = measured("int8-qdq", 0.89, 0.98)
    assert better(measured(QAT, 0.895, 0.98), plain, reference, 2.0)
    assert better(measured(QAT, 0.89, 0.99), plain, reference, 2.0)
    assert not better(measured(QAT, 0.89, 0.98), plain, reference, 2.0)
    assert not better(measured(QAT, 0.90, 0.96), plain, reference, 2.0)  # it does not pass the gate of agreement


def test_model_optimizer_is_a_candidate_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modelopt_int8, "find_spec", lambda name: None)
    assert MODELOPT not in precisions_to_try(("fp32", "int8-qdq"), "tensorrt", "")
    monkeypatch.setattr(modelopt_int8, "find_spec", lambda name: object())
    assert precisions_to_try(("fp32", "fp16", "int8-qdq"), "tensorrt", "int8") == ("fp32", "int8-qdq", MODELOPT)
    assert MODELOPT not in precisions_to_try(("fp32", "int8-static"), "cpu", "")


PLAYED_MODELOPT = """
import json, shutil
def quantize(onnx_path, **options):
    data = options.pop("calibration_data")
    assert data["image"].dtype == "uint8"
    expected = {"quantize_mode", "calibration_method", "calibration_eps", "op_types_to_quantize", "high_precision_dtype"}
    assert set(options) == expected | {"output_path", "log_level"}, options
    if not len(data["image"]):
        raise ValueError("no images")
    shutil.copy(onnx_path, options["output_path"])
"""


def test_model_optimizer_runs_in_a_process_of_its_own(tmp_path: Path, images: np.ndarray, monkeypatch) -> None:
    folder = tmp_path / "modelopt" / "onnx" / "quantization"
    folder.mkdir(parents=True)
    for package in (folder.parents[1], folder.parent):
        (package / "__init__.py").touch()
    (folder / "__init__.py").write_text(PLAYED_MODELOPT)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{__import__('os').environ.get('PYTHONPATH', '')}")
    assert modelopt_int8.int8_modelopt(b"a graph", images) == b"a graph"
    with pytest.raises(modelopt_int8.BuildError, match="Model Optimizer failed: ValueError: no images"):
        modelopt_int8.int8_modelopt(b"a graph", images[:0])
