"""Read the layers of a TensorRT engine: name, precision and time.

A builder may fuse, move and convert layers, and executed precision can differ from the requested one (TensorRT issues 4516 and
4590). So the precision is read from the engine inspector (NVIDIA, TensorRT documentation, "Engine Inspector").
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, cast

from msgspec.structs import replace

from spatialnet_edge.bundle.manifest import ExecutedLayer

PRECISIONS: Mapping[str, re.Pattern[str]] = {
    "fp8": re.compile(r"\b(fp8|e4m3)", re.IGNORECASE),
    "int8": re.compile(r"(?<!u)int8", re.IGNORECASE),
    "bf16": re.compile(r"\b(bf16|bfloat16)", re.IGNORECASE),
    "fp16": re.compile(r"\b(fp16|half)\b", re.IGNORECASE),
    "fp32": re.compile(r"\b(fp32|float|float32)\b", re.IGNORECASE),
}
"""Precisions from narrow to wide, and their names in the inspector's tensor formats (`Half`, `Row major linear FP32`, `...
Int8 format` …)."""
TYPE_KEYS = frozenset({"format/datatype", "datatype", "format"})
"""Keys of a tensor, in lower case, that may hold its type: `Format/Datatype` in TensorRT 10; TensorRT 11 splits it into
`DataType` and `Format` (NVIDIA, "Migrating IEngineInspector Usage from TensorRT 10.x to 11.x")."""
NO_ARITHMETIC = frozenset({"Reformat", "NoOp", "Constant", "Shuffle", "signal", "wait"})
"""Layer types that only move data."""


def parse_layers(inspector_json: str) -> list[ExecutedLayer]:
    """Parse the layers, in order, from the inspector's JSON for an engine.

    A plan built without detailed profiling has only names, no precisions.
    """
    found: Any = json.loads(inspector_json)
    given: Any = cast(dict[str, Any], found).get("Layers", []) if isinstance(found, dict) else found
    return [executed(each) for each in cast(list[Any], given)]


def executed(layer: Any) -> ExecutedLayer:
    if not isinstance(layer, dict):
        return ExecutedLayer(name=str(layer), precision="")
    fields = cast(dict[str, Any], layer)
    name = str(fields.get("Name", ""))
    if str(fields.get("LayerType", "")) in NO_ARITHMETIC:
        return ExecutedLayer(name=name, precision="")
    tensors = cast(list[dict[str, Any]], fields.get("Inputs", []))
    formats = [str(value) for tensor in tensors for key, value in tensor.items() if key.lower() in TYPE_KEYS]
    weights = fields.get("Weights")
    if isinstance(weights, dict):
        formats.append(str(cast(dict[str, Any], weights).get("Type", "")))
    narrowest = next((name for name, words in PRECISIONS.items() if any(words.search(text) for text in formats)), "")
    return ExecutedLayer(name=name, precision=narrowest)


def inspect(trt: Any, engine: Any) -> list[ExecutedLayer]:
    """The layers of a deserialised engine, without times."""
    return parse_layers(inspector_json(trt, engine))


def inspector_json(trt: Any, engine: Any) -> str:
    """The inspector's raw JSON for an engine."""
    inspector = engine.create_engine_inspector()
    return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def layer_clock(trt: Any) -> Any:
    """A profiler that records all times: `times` maps a layer to the milliseconds of each run."""

    class Clock(trt.IProfiler):
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.times: dict[str, list[float]] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.times.setdefault(layer_name, []).append(ms)

    return Clock()


def timed(layers: Sequence[ExecutedLayer], times: Mapping[str, Sequence[float]]) -> tuple[ExecutedLayer, ...]:
    """The layers with the median time from a profiler."""
    return tuple(
        replace(layer, ms=round(median(times[layer.name]), 5)) if times.get(layer.name) else layer for layer in layers
    )
