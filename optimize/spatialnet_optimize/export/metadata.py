"""ONNX metadata, for tools that do not read the bundle's manifest.

The model's `metadata_props` use the names of ONNX's own list if there is one (ONNX, docs/MetadataProps.md: `model_license`,
`Image.*`); `input` and `heads` are JSON. `ranges` in `input` has the unit and the physical range of each measured band.
"""

from __future__ import annotations

import msgspec
import onnx

from spatialnet_edge.core.spec import RGB, ModelSpec, Multiclass, Multilabel, Regression

PIXELS = {
    "Image.BitmapPixelFormat": "Rgb8",
    "Image.ColorSpaceGamma": "SRGB",
    "Image.NominalPixelRange": "NominalRange_0_255",
}


def with_metadata(content: bytes, spec: ModelSpec, licence: str) -> bytes:
    """Set name, input, heads, labels and licence in the graph's `metadata_props`; existing ones are replaced.

    Args:
        licence: from the bundle's provenance; empty if unknown.
    """
    model = onnx.load_from_string(content)
    properties = described(spec) | ({"model_license": licence} if licence else {})
    onnx.helper.set_model_props(model, properties)
    return model.SerializeToString(deterministic=True)


def described(spec: ModelSpec) -> dict[str, str]:
    """The properties of a model as text."""
    given = {
        "layout": "NHWC",
        "dtype": "uint8",
        "height": spec.input.height,
        "width": spec.input.width,
        "bands": {group.name: group.bands for group in spec.input.groups},
        "ranges": {
            band: msgspec.to_builtins(span)
            for group in spec.input.groups
            for band, span in zip(group.bands, group.ranges, strict=False)
        },
        "resize": spec.input.resize,
    }
    heads = [msgspec.to_builtins(head) | {"output": MEANING[type(head)]} for head in spec.heads]
    pixels = PIXELS if spec.input.groups == (RGB,) else {}
    return {"model_name": spec.name, "input": text(given), "heads": text(heads)} | pixels


MEANING = {
    Multiclass: "probabilities of the labels; they sum to 1",
    Multilabel: "probability of each label; several may be true",
    Regression: "a quantity from low to high",
}
"""Kind of head to a description of its output."""


def text(value: object) -> str:
    return msgspec.json.encode(value).decode()
