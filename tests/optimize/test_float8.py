"""FP8: evaluated with ONNX Runtime, parsed and built by NVIDIA's builder."""

from __future__ import annotations

import onnx
import pytest

from conftest import shipped_graph
from spatialnet_edge.bundle.reader import open_bundle
from spatialnet_edge.core.predictions import difference
from spatialnet_optimize.compilers.plan_builder import RTX, build_plan
from spatialnet_optimize.evaluation.candidate_evaluation import open_candidate
from spatialnet_optimize.evaluation.gates import GOLDEN_TOLERANCE
from spatialnet_optimize.evaluation.metrics import predict
from spatialnet_optimize.quantization.fp8 import fp8_static

STUDENT = open_bundle("builtin:student")


@pytest.fixture(scope="module")
def graph() -> bytes:
    return fp8_static(shipped_graph(), STUDENT.golden()[0])


def test_linear_layers_become_fp8_and_nothing_else_does(graph: bytes) -> None:
    model = onnx.load_from_string(graph)
    onnx.checker.check_model(model)
    producers = {name: node for node in model.graph.node for name in node.output}
    eight_bit = {t.name for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT8E4M3FN and len(t.dims) > 1}
    assert len(eight_bit) >= 16
    assert not any(t.data_type == onnx.TensorProto.INT8 for t in model.graph.initializer)
    fed = [node for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in producers]
    weights = [producers[node.input[1]].input[0] for node in fed if producers[node.input[1]].op_type == "DequantizeLinear"]
    assert eight_bit == {name for name in weights if name in eight_bit}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert convolutions
    assert not any(
        producers[name].op_type == "DequantizeLinear" for node in convolutions for name in node.input if name in producers
    )


def test_its_answers_are_within_its_tolerance(graph: bytes) -> None:
    frames, expected = STUDENT.golden()
    answers = predict(open_candidate(graph, STUDENT.spec, here=False), frames)
    worst = max(difference(head, answers[head.name], expected[head.name]) for head in STUDENT.spec.heads)
    assert 0 < worst <= GOLDEN_TOLERANCE["fp8-qdq"]


def test_nvidias_builder_accepts_the_graph(graph: bytes) -> None:
    pytest.importorskip("tensorrt_rtx")
    shape = STUDENT.spec.input.shape
    assert len(build_plan(RTX, graph, shape).content) < len(build_plan(RTX, shipped_graph(), shape).content)
