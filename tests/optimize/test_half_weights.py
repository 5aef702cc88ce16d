"""Weights stored as float16: half the size, the same answers as with the rounded weights in float32."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, numpy_helper

from conftest import TINY, lit, tiny_graph
from spatialnet_edge.api import load
from spatialnet_edge.bundle.reader import BUILTIN, MODEL, Bundle, open_bundle
from spatialnet_edge.core.errors import BuildError
from spatialnet_edge.core.spec import IMAGE_INPUT
from spatialnet_optimize.api import export
from spatialnet_optimize.build.build import Job
from spatialnet_optimize.build.build import load as load_job
from spatialnet_optimize.compilers.plan_builder import silent
from spatialnet_optimize.export.half_weights import HALF_FROM, half_weights, rounded, whole_weights
from spatialnet_optimize.targets.roofline import layers
from spatialnet_training.networks import checkpoint
from spatialnet_training.networks.checkpoint_paths import WEIGHTS

SHIPPED = [f"builtin:{name}" for name in BUILTIN]


def answers(graph: bytes, images: np.ndarray) -> list[np.ndarray]:
    return ort.InferenceSession(graph, providers=["CPUExecutionProvider"]).run(None, {IMAGE_INPUT: images})


@pytest.mark.parametrize("name", SHIPPED)
def test_both_forms_of_a_shipped_graph_answer_the_same_to_the_bit(name: str) -> None:
    bundle = open_bundle(name)
    stored = bundle.read(MODEL)
    whole = whole_weights(stored)
    assert len(stored) < 0.6 * len(whole)
    assert TensorProto.FLOAT16 not in {tensor.data_type for tensor in onnx.load_from_string(whole).graph.initializer}
    frames, _ = bundle.golden()
    for here, there in zip(answers(stored, frames), answers(whole, frames), strict=True):
        np.testing.assert_array_equal(here, there)
    assert half_weights(whole) == half_weights(stored) == stored
    assert whole_weights(whole) == whole


@pytest.mark.parametrize("name", SHIPPED)
def test_weights_that_can_be_inspected_are_those_that_are_computed_with(name: str) -> None:
    """The Cast is folded before the weights are laid out: what the scrubber checks is float32."""
    stored = open_bundle(name).read(MODEL)
    with load(name, inspectable_weights=True) as model:
        seen = sum(each.nbytes for each in model.opened.engine.weights)
    assert seen > 1.5 * len(stored)


def test_the_prediction_of_a_devices_time_sees_no_cast() -> None:
    stored = open_bundle(SHIPPED[0]).read(MODEL)
    assert layers(stored) == layers(whole_weights(stored))


def test_a_build_gives_compilers_float32(tmp_path: Path) -> None:
    """They look for float32 weights by name: quantisers, and TensorRT where it puts weights into a plan."""
    model = open_bundle(SHIPPED[0])
    assert load_job(Job(model, "cpu", tmp_path / "built.snb"), silent).portable == whole_weights(model.read(MODEL))


def test_a_checkpoint_is_exported_with_half_weights(tmp_path: Path) -> None:
    whole, half = (export(WEIGHTS / "spatialnet-s", tmp_path / f"{half}.snb", half=half) for half in (False, True))
    assert half.path.stat().st_size < 0.6 * whole.path.stat().st_size
    assert stored_type(whole) == {TensorProto.FLOAT}
    assert stored_type(half) == {TensorProto.FLOAT16}
    with load(half.path) as model:  # which includes the golden test
        assert model.opened.record.precision == "fp32"


def stored_type(bundle: Bundle) -> set[int]:
    """The types of large matrices."""
    tensors = onnx.load_from_string(bundle.read(MODEL)).graph.initializer
    return {tensor.data_type for tensor in tensors if len(tensor.dims) > 1 and np.prod(tensor.dims) >= HALF_FROM}


def test_the_same_matrices_are_halved_in_checkpoints() -> None:
    assert HALF_FROM == checkpoint.HALF_FROM


def test_weights_beyond_the_range_of_float16_are_refused() -> None:
    model = onnx.load_from_string(whole_weights(open_bundle(SHIPPED[0]).read(MODEL)))
    tensor = next(each for each in model.graph.initializer if np.prod(each.dims) >= HALF_FROM)
    tensor.CopyFrom(numpy_helper.from_array(1e6 * numpy_helper.to_array(tensor), tensor.name))
    with pytest.raises(BuildError, match=rf"weight '{tensor.name}' has values beyond float16's range; export without --half"):
        half_weights(model.SerializeToString())


def test_rounding_that_changes_an_answer_is_refused() -> None:
    graph, images = tiny_graph(gain=0.005), np.stack([lit(127)] * 8)
    names = [head.name for head in TINY.heads]
    found = dict(zip(names, answers(graph, images), strict=True))
    assert rounded(graph, TINY, found, images)[0] == graph  # it has no large matrix
    with pytest.raises(BuildError, match=r"float16 weights change a label of 'shade'"):
        rounded(graph, TINY, found | {"shade": found["shade"][:, ::-1]}, images)
    with pytest.raises(BuildError, match=r"change a probability of 'bands' by 0\.020 on the golden frames; allowed 0\.01"):
        rounded(graph, TINY, found | {"bands": found["bands"] + np.float32(0.02)}, images)
