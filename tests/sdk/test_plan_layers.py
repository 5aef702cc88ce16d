"""The output of TensorRT's inspector in the formats of several releases."""

from __future__ import annotations

import json

import pytest

from spatialnet_edge.bundle.manifest import ExecutedLayer
from spatialnet_edge.engines.tensorrt_inspector import parse_layers, timed


def layer(kind: str, *formats: str, weights: str = "") -> dict[str, object]:
    fields: dict[str, object] = {"Name": "a", "LayerType": kind, "Inputs": [{"Format/Datatype": text} for text in formats]}
    return fields | ({"Weights": {"Type": weights, "Count": 9}} if weights else {})


@pytest.mark.parametrize(
    ("given", "precision"),
    [
        (layer("CaskConvolution", "Thirty-two wide channel vectorized row major Int8 format."), "int8"),
        (layer("kgen", "Half", "Half"), "fp16"),
        (layer("kgen", "Float"), "fp32"),
        (layer("gemm", "Row major linear FP16 format"), "fp16"),
        (layer("gemm", "Row major linear FP32"), "fp32"),
        (layer("gemm", "Row major linear BFloat16 format"), "bf16"),
        (layer("gemm", "FP8", "Half"), "fp8"),
        (layer("CaskConvolution", "Float", weights="Half"), "fp16"),
        (layer("kgen", "UInt8"), ""),  # the pixels themselves
        (layer("kgen", "Int64", "Float"), "fp32"),
        (layer("Reformat", "Half"), ""),
        ("name alone, without detailed profiling", ""),
    ],
)
def test_the_narrowest_type_that_goes_in_is_the_precision(given: object, precision: str) -> None:
    assert [each.precision for each in parse_layers(json.dumps({"Layers": [given], "Bindings": []}))] == [precision]


@pytest.mark.parametrize(
    ("tensor", "precision"),
    [
        ({"Format/Datatype": "Half"}, "fp16"),
        ({"Format/DataType": "Int8"}, "int8"),
        ({"DataType": "Half", "Format": "Row major linear"}, "fp16"),
        ({"Datatype": "BFloat16", "Format": "N/A"}, "bf16"),
        ({"DataType": "Float", "Format": "Row major linear FP32 format (kLINEAR)"}, "fp32"),
        ({"Dimensions": [1, 3], "Location": "Device"}, ""),
    ],
)
def test_the_type_of_a_tensor_is_read_in_the_spelling_of_every_release(tensor: dict[str, object], precision: str) -> None:
    given = {"Layers": [{"Name": "a", "LayerType": "gemm", "Inputs": [tensor]}], "I/O Tensors": [{"Name": "image"}]}
    assert [each.precision for each in parse_layers(json.dumps(given))] == [precision]


def test_times_find_their_layer_by_name() -> None:
    layers = [ExecutedLayer(name="a", precision="fp16"), ExecutedLayer(name="b", precision="")]
    assert [each.ms for each in timed(layers, {"a": [0.2, 0.1, 9.0]})] == [0.2, 0.0]
