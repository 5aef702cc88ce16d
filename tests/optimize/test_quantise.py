"""Sixteen and eight bits: which nodes are cast and quantised, and that the gate rejects a bad variant."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto

from conftest import SAMPLES, shipped_graph
from spatialnet_edge.bundle.reader import Bundle, open_bundle
from spatialnet_edge.core.errors import BuildError, DataRefused
from spatialnet_edge.core.spec import IMAGE_INPUT
from spatialnet_optimize.build.labelled_data import calibrate, usable_sets
from spatialnet_optimize.compilers.plan_builder import RTX, build_plan
from spatialnet_optimize.evaluation.candidate_evaluation import Evidence, decoded, evidence_of, measure_candidates
from spatialnet_optimize.evaluation.gates import refusal
from spatialnet_optimize.quantization.activation_ranges import least_squares_range, squared_error
from spatialnet_optimize.quantization.int8 import clipped_afterwards, int8_static, linear_layers, smooth
from spatialnet_optimize.quantization.int8_calibration import (
    UNLIKE,
    checked,
    exclude_training,
    from_folder,
    from_labelled,
    split_calibration,
    unlikeness,
)
from spatialnet_optimize.quantization.reduced_precision import head_layers, to_bf16, to_fp16
from spatialnet_optimize.quantization.sensitivity import Sensitivity, most_that_pass, sensitivities
from spatialnet_optimize.shipped_samples import shipped_samples
from spatialnet_training.data.labelled_dataset import LabelledImages, open_labelled


def judged_by(model: Bundle, sets: Sequence[LabelledImages] = ()) -> Evidence:
    return evidence_of(model, model.spec, decoded(sets, model.spec.input))


@pytest.fixture(scope="module")
def student() -> Bundle:
    return open_bundle("builtin:student")


@pytest.fixture(scope="module")
def graph() -> bytes:
    return shipped_graph()


@pytest.fixture(scope="module")
def images(student: Bundle) -> np.ndarray:
    sets = [open_labelled(SAMPLES / f"{name}.zip") for name in ("eurosat", "ucmerced")]
    return from_labelled([split_calibration(each)[0] for each in sets], student.spec.input, student.golden()[0]).images


def run(graph: bytes, images: np.ndarray) -> dict[str, np.ndarray]:
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {IMAGE_INPUT: images}), strict=True))


def kinds_in(graph: bytes, data_type: int) -> set[str]:
    """The operators that give a tensor of this type, as shape inference says."""
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(graph))
    types = {value.name: value.type.tensor_type.elem_type for value in (*model.graph.value_info, *model.graph.output)}
    return {node.op_type for node in model.graph.node if types.get(node.output[0]) == data_type}


@pytest.mark.parametrize(("cast", "kind"), [(to_fp16, TensorProto.FLOAT16), (to_bf16, TensorProto.BFLOAT16)])
def test_operators_that_need_range_stay_in_fp32(graph: bytes, cast, kind: int) -> None:
    converted = cast(graph)
    assert {"Conv", "MatMul", "Gemm", "Gelu"} <= kinds_in(converted, kind)
    assert not {"LayerNormalization", "Softmax", "Sigmoid", "Div"} & kinds_in(converted, kind)
    assert len(converted) < 0.55 * len(graph)
    outputs = onnx.load_from_string(converted).graph.output
    assert {output.type.tensor_type.elem_type for output in outputs} == {TensorProto.FLOAT}


def test_fp16_outputs_equal_fp32(student: Bundle, graph: bytes) -> None:
    frames, expected = student.golden()
    found = run(to_fp16(graph), frames)
    assert max(np.abs(found[head.name] - expected[head.name]).max() for head in student.spec.heads[:5]) < 0.01


def test_heads_and_attention_are_never_quantised(graph: bytes) -> None:
    model = onnx.load_from_string(graph)
    layers = linear_layers(graph)
    kinds = {node.name: node for node in model.graph.node}
    assert {kinds[name].op_type for name in layers} == {"Conv", "MatMul"}
    temperature = any(tensor.name == "network.image_temperature.layer.weight" for tensor in model.graph.initializer)
    assert len(head_layers(model)) == len(model.graph.output) + temperature
    assert not set(head_layers(model)) & set(layers)
    weights = {tensor.name for tensor in model.graph.initializer}
    assert all(kinds[name].input[1] in weights for name in layers)


@pytest.mark.parametrize("scheme", ["cpu", "tensorrt"])
def test_static_int8_has_its_backends_layout(graph: bytes, images: np.ndarray, scheme: str) -> None:
    layers = linear_layers(graph)[-4:]
    quantised = onnx.load_from_string(int8_static(graph, images[:8], scheme, layers, "minmax"))  # type: ignore[arg-type]
    constants = {tensor.name: tensor for tensor in quantised.graph.initializer}
    points = [node for node in quantised.graph.node if node.op_type == "QuantizeLinear"]
    assert len(points) == len({node.input[0] for node in points}) >= 3
    kinds = {constants[node.input[2]].data_type for node in points}
    assert kinds == {TensorProto.INT8 if scheme == "tensorrt" else TensorProto.UINT8}
    if scheme == "tensorrt":
        assert all(not onnx.numpy_helper.to_array(constants[node.input[2]]).any() for node in points)  # symmetric
    assert not any(tensor.data_type == TensorProto.INT32 and "bias" in name for name, tensor in constants.items())
    assert int8_static(graph, images[:8], scheme, []) == graph  # type: ignore[arg-type]


@pytest.mark.parametrize("half", [False, True])
def test_tensorrt_gets_no_rounding_after_its_layers(graph: bytes, images: np.ndarray, half: bool) -> None:
    """Q/DQ after a layer prevents TensorRT from fusing the next operator; scales have the type of the layers."""
    layers = linear_layers(graph)[-4:]
    quantised = onnx.load_from_string(int8_static(to_fp16(graph) if half else graph, images[:8], "tensorrt", layers))
    made_by = {output: node for node in quantised.graph.node for output in node.output}
    points = [node for node in quantised.graph.node if node.op_type == "QuantizeLinear"]
    assert points
    assert not [node for node in points if node.input[0] in made_by and made_by[node.input[0]].op_type in ("Conv", "MatMul")]
    constants = {tensor.name: tensor.data_type for tensor in quantised.graph.initializer}
    assert {constants[node.input[1]] for node in points} == {TensorProto.FLOAT16 if half else TensorProto.FLOAT}


def test_smoothing_changes_the_weights_and_not_the_answers(student: Bundle, graph: bytes, images: np.ndarray) -> None:
    smoothed = smooth(graph, images[:16])
    assert smoothed != graph
    before, after = run(graph, images[:16]), run(smoothed, images[:16])
    assert max(np.abs(before[name] - after[name]).max() for name in before) < 1e-4


def test_a_deliberately_bad_quantisation_is_caught(student: Bundle, graph: bytes) -> None:
    """Everything quantised, calibrated on one nearly black image."""
    dark = np.full((1, *student.spec.input.shape), 3, np.uint8)
    bad = int8_static(graph, dark, "cpu", method="minmax")
    sets = [open_labelled(SAMPLES / "eurosat.zip")]
    reference, measured = measure_candidates(
        {"fp32": graph, "int8-static": bad},
        judged_by(student, sets),
        lambda text: None,
    )
    assert "accuracy: loses" in refusal(measured, reference, 0.5)


def test_int8_and_fp16_keep_their_accuracy_on_a_thousand_images(
    student: Bundle, graph: bytes, images: np.ndarray, shared_data
) -> None:
    """ONNX Runtime simulates both; the images are EuroSAT's, every fifth of its validation split."""
    every = open_labelled(shared_data("eurosat_rgb.zip"), "val")
    from dataclasses import replace

    sets = [replace(every, files=every.files[::5], classes=every.classes[::5])]
    assert len(sets[0]) > 1000
    contents = {"fp32": graph, "fp16": to_fp16(graph)}
    contents |= {"int8-static": int8_static(graph, images, "cpu")}
    contents |= {"int8-qdq": int8_static(graph, images, "tensorrt")}
    reference, *others = measure_candidates(contents, judged_by(student, sets), lambda text: None, here=False)
    assert [refusal(each, reference, 0.5) for each in others] == [None, None, None]


def test_the_search_finds_the_most_layers_that_pass() -> None:
    ranked = [Sensitivity(f"layer {index}", index / 10) for index in range(9)]
    for allowed in range(10):
        asked: list[int] = []

        def passes(layers, allowed: int = allowed, asked: list[int] = asked) -> bool:
            asked.append(len(layers))
            return len(layers) <= allowed

        assert len(most_that_pass(ranked, passes)) == min(allowed, 9)
        assert len(asked) <= 4


def test_layers_are_ranked_by_what_they_change(student: Bundle, graph: bytes, images: np.ndarray, monkeypatch) -> None:
    from spatialnet_optimize.quantization import sensitivity

    few = [*linear_layers(graph)[:2], linear_layers(graph)[-1]]
    monkeypatch.setattr(sensitivity, "linear_layers", lambda content: few)
    steps: list[str] = []
    ranked = sensitivities(graph, student.spec, images[:12], "tensorrt", steps.append)
    assert {each.layer for each in ranked} == set(few)
    assert [each.change for each in ranked] == sorted(each.change for each in ranked)
    assert ranked[0].change > 0
    assert steps[-1] == "sensitivity: layer 3 of 3"


def test_calibration_images_are_not_used_for_evaluation(student: Bundle) -> None:
    images = open_labelled(SAMPLES / "eurosat.zip")
    aside, judged = split_calibration(images)
    assert not set(aside.files) & set(judged.files)
    assert sorted((*aside.files, *judged.files)) == sorted(images.files)
    assert len(aside.classes) == len(aside.files)


def test_training_images_are_used_for_calibration_not_evaluation() -> None:
    """The loss of a precision is not visible on memorised images."""
    images = open_labelled(SAMPLES / "eurosat.zip")
    images = replace(images, splits=tuple("val" if row % 10 == 0 else "train" for row in range(len(images))))
    aside, judged = split_calibration(images, {"eurosat": 200})
    assert (aside.files, judged.files) == (images.of_split("train").files, images.of_split("val").files)
    assert judged.files == exclude_training(images, {"eurosat": 200}).files
    assert len(exclude_training(images, {"ucmerced": 200})) == len(images)
    assert len(exclude_training(images, {"eurosat": 15_395})) == len(images), "a sample of what was learnt is another set"
    assert split_calibration(replace(images, said=True))[1].files == judged.files, "what a set says of itself is believed"


def test_few_or_strange_calibration_images_give_a_warning_with_the_figure(
    student: Bundle, images: np.ndarray, tmp_path: Path
) -> None:
    golden, _ = student.golden()
    assert checked(images, "samples", golden).warnings == ()
    assert "12 calibration images" in checked(images[:12], "few", golden).warnings[0]
    noise = np.random.default_rng(0).integers(0, 256, (70, *student.spec.input.shape), np.uint8)
    assert unlikeness(noise, golden) > UNLIKE
    assert "deviations from the model's golden frames" in checked(noise, "noise", golden).warnings[0]
    with pytest.raises(DataRefused, match="no image for calibration"):
        from_folder(tmp_path, student.spec.input, golden)


def test_a_folder_of_pictures_calibrates(student: Bundle, image_folder: Path) -> None:
    found = from_folder(image_folder, student.spec.input, student.golden()[0])
    assert found.images.shape[1:] == student.spec.input.shape
    assert "images of images" in found.origin


def test_nvidias_parser_names_the_refused_node(graph: bytes, images: np.ndarray) -> None:
    """The CPU layout has 32-bit biases with DequantizeLinear; the TensorRT layout does not."""
    pytest.importorskip("tensorrt_rtx")
    layers = linear_layers(graph)[:1]
    with pytest.raises(BuildError, match="DequantizeLinear"):
        build_plan(RTX, int8_static(graph, images[:4], "cpu", layers, "minmax"), decoded_shape())
    plan = build_plan(RTX, int8_static(graph, images[:4], "tensorrt", layers, "minmax"), decoded_shape())
    assert len(plan.content) > 100_000


def decoded_shape() -> tuple[int, int, int]:
    return open_bundle("builtin:student").spec.input.shape


def test_a_range_that_clips_an_outlier_loses_less_than_one_that_keeps_it() -> None:
    values = np.abs(np.random.default_rng(0).normal(0, 1, 1_000_000)).astype(np.float32)
    values[0] = 12.0
    low, high = least_squares_range(values, symmetric=False)
    assert low == 0
    assert 4 < high < 7
    assert squared_error(values, low, high, 256) < 0.7 * squared_error(values, 0.0, 12.0, 256)
    left, right = least_squares_range(values, symmetric=True)
    assert left == -right
    assert least_squares_range(np.zeros(10, np.float32), symmetric=True) == (0.0, 0.0)
    uniform = np.linspace(0, 1, 10_000, dtype=np.float32)
    assert least_squares_range(uniform, symmetric=False) == (0.0, pytest.approx(1.0))


def test_ranges_of_least_error_agree_with_fp32_more_often_than_entropy(student: Bundle, graph: bytes) -> None:
    """For the shipped student and held-out images, in the CPU layout."""
    sets, _ = usable_sets(shipped_samples(), student.spec, asked=False)
    calibration, judged = calibrate(None, student, student.spec, sets)
    contents = {"fp32": graph}
    for name, method in {"int8-static": "mse", "int8-qdq": "entropy"}.items():
        contents[name] = int8_static(graph, calibration.images, "cpu", method=method)
    reference, least, entropy = measure_candidates(contents, judged_by(student, judged), lambda text: None)
    assert least.agreement > entropy.agreement
    assert refusal(least, reference, 2.51) is None  # one image of the 40 that judge a head


def test_a_clipped_convolution_has_the_range_of_the_clip(graph: bytes) -> None:
    """The larger shipped student clips at 6; with unclipped ranges, a quarter of its predictions changed."""
    larger = open_bundle("builtin:student-160")
    convolutional = shipped_graph("builtin:student-160")
    kept = clipped_afterwards(convolutional, linear_layers(convolutional))
    assert len(kept) == 32  # of 48: the others are the narrow ends of blocks, which nothing clips
    assert len(clipped_afterwards(graph, linear_layers(graph))) == 6  # of nine ReLUs: three follow a sum

    sets, _ = usable_sets(shipped_samples(), larger.spec, asked=False)
    calibration, judged = calibrate(None, larger, larger.spec, sets)
    contents = {"fp32": convolutional, "int8-static": int8_static(convolutional, calibration.images, "cpu")}
    _, quantised = measure_candidates(contents, judged_by(larger, judged), lambda text: None)
    assert quantised.agreement > 0.88
