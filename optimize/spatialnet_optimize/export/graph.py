"""From a network to the deployed graph, with uint8 pixels as input and probabilities as outputs.

The graph includes cast, layout, normalisation, the network, the calibrated temperature, and softmax or sigmoid. So
preprocessing cannot differ between training and deployment.
"""

from __future__ import annotations

import logging
import warnings

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from spatialnet_edge.core.errors import BuildError
from spatialnet_edge.core.predictions import difference
from spatialnet_edge.core.spec import IMAGE_INPUT, Known, ModelSpec, Multiclass, Multilabel, Output, Regression
from spatialnet_training.data.augmentation import band_statistics
from spatialnet_training.networks.image_temperature import IMAGE_TEMPERATURE

OPSET = 20
"""The first opset with `Gelu` as one node; `LayerNormalization` is one node since 17."""

PARITY = 1e-4
"""The largest allowed difference in probability between torch and the exported graph, on real images."""


class DeployedGraph(nn.Module):
    """Wraps a network from normalised float `[N, bands, H, W]` to logits per head.

    Normalisation is one multiplication and one addition per band. With several band groups, a group with only zeros is absent.
    The graph detects this for each image, so the runtime needs no second input.
    """

    gain: Tensor
    offset: Tensor

    def __init__(self, network: nn.Module, spec: ModelSpec) -> None:
        super().__init__()
        self.network = network
        self.spec = spec
        self.bands = [len(group.bands) for group in spec.input.groups]
        mean, std = band_statistics(spec.input.channels)
        self.register_buffer("gain", (1 / std).view(1, -1, 1, 1))
        self.register_buffer("offset", (-mean / std).view(1, -1, 1, 1))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """`image`: uint8 `[N, H, W, bands]`. Returns one float32 `[N, width]` per entry of `spec.outputs`, in order."""
        x = image.to(torch.float32).permute(0, 3, 1, 2)  # cast first: TensorRT refuses to transpose uint8
        if len(self.bands) > 1:
            present = torch.stack([(group.amax(dim=(1, 2, 3)) > 0).float() for group in x.split(self.bands, dim=1)], dim=1)
            logits = self.network(x * self.gain + self.offset, present)
        else:
            logits = self.network(x * self.gain + self.offset)
        of_image = logits.get(IMAGE_TEMPERATURE)
        return tuple(answer(each, logits[each.name], of_image) for each in self.spec.outputs)


def answer(head: Output, logits: Tensor, of_image: Tensor | None = None) -> Tensor:
    """From logits to the graph's output: calibrated probabilities, or a quantity in its unit.

    Args:
        of_image: the temperature of each image, `[N, 1]`, by which that of the head is multiplied; None for 1.
    """
    if isinstance(head, Multiclass | Multilabel):
        scaled = logits / head.temperature if of_image is None else logits / (head.temperature * of_image)
        return torch.softmax(scaled, dim=-1) if isinstance(head, Multiclass) else torch.sigmoid(scaled)
    if isinstance(head, Known):
        return torch.sigmoid(logits)
    assert isinstance(head, Regression)
    return head.low + (head.high - head.low) * torch.sigmoid(logits)  # trained as a share of its range


def export_onnx(network: nn.Module, spec: ModelSpec) -> bytes:
    """Export with the dynamo exporter: static height and width, dynamic batch dimension, one self-contained file."""
    graph = DeployedGraph(network, spec).eval()
    example = torch.zeros(2, *spec.input.shape, dtype=torch.uint8)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            graph,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[IMAGE_INPUT],
            output_names=[output.name for output in spec.outputs],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},),
            verbose=False,
        )
    assert program is not None
    return tidy(program.model_proto.SerializeToString())


def tidy(content: bytes) -> bytes:
    """Remove the exporter's debug metadata (file names, stack traces), and check the graph."""
    model = onnx.load_from_string(content)
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def reference(network: nn.Module, spec: ModelSpec, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """The outputs of torch: head name to float32 `[N, width]`, for uint8 `[N, H, W, 3]`."""
    with torch.inference_mode():
        outputs = DeployedGraph(network, spec).eval()(torch.from_numpy(images))
    return {head.name: values.numpy() for head, values in zip(spec.outputs, outputs, strict=True)}


def check_parity(
    content: bytes, spec: ModelSpec, expected: dict[str, NDArray[np.float32]], images: NDArray[np.uint8]
) -> float:
    """The largest difference between the graph and torch; see `results.difference`.

    Raises:
        BuildError: it exceeds `PARITY`.
    """
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    outputs = dict(zip(expected, session.run(list(expected), {IMAGE_INPUT: images}), strict=True))
    differences = {head.name: difference(head, np.asarray(outputs[head.name]), expected[head.name]) for head in spec.outputs}
    worst = max(differences, key=lambda name: differences[name])
    if not differences[worst] <= PARITY:
        raise BuildError(
            f"the exported graph differs from torch by {differences[worst]:.2e} in '{worst}' on {len(images)} images; "
            f"allowed {PARITY:.0e}; do not use this export"
        )
    return differences[worst]
