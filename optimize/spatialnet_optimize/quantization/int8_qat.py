"""INT8 with Q/DQ in the places of `int8_static`, and weights that learnt to be rounded there.

The layers of the exported graph are matched with those of the network in the order in which both run them, so that training rounds
what the graph will round.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from torch import Tensor, from_numpy, nn

from spatialnet_edge.core.bands import present_groups
from spatialnet_edge.core.errors import BuildError
from spatialnet_optimize.export.graph import export_onnx
from spatialnet_optimize.quantization.activation_ranges import least_squares_ranges
from spatialnet_optimize.quantization.int8 import int8_static, linear_layers
from spatialnet_training.data.augmentation import normalise
from spatialnet_training.loop.quantization_aware import USUAL, QatOptions, RoundedLayer, executed_layers, train_rounded
from spatialnet_training.networks.checkpoint import load_network
from spatialnet_training.networks.model import SpatialNet


def int8_qat(
    checkpoint: Path,
    images: NDArray[np.uint8],
    options: QatOptions = USUAL,
    watch: Callable[[int, float], None] = lambda epoch, loss: None,
    training: NDArray[np.uint8] | None = None,
) -> bytes:
    """The Q/DQ graph of a checkpoint after quantisation-aware training, with all heads.

    Args:
        images: real ones, uint8 `[N, H, W, bands]`: they give the ranges.
        watch: see `train_rounded`.
        training: real ones of the same shape, to learn from; None: `images`.

    Raises:
        BuildError: the graph's layers are not the network's.
        RunError: the training diverged.
    """
    network, spec, _ = load_network(checkpoint)
    groups = spec.input.groups
    present = None if len(groups) == 1 else from_numpy(present_groups(images[:1], groups))
    layers = layers_of(network, export_onnx(network, spec), images, present)
    train_rounded(network, spec, images if training is None else training, layers, options, watch)
    return int8_static(export_onnx(network, spec), images, "tensorrt")


def layers_of(
    network: SpatialNet, graph: bytes, images: NDArray[np.uint8], present: Tensor | None = None
) -> list[RoundedLayer]:
    """The layers of a network that INT8 rounds, with the ranges of their inputs.

    Args:
        graph: the network as it was exported.
        images: over which the ranges are taken.
        present: the groups of bands that are there; None for a network of one group.

    Raises:
        BuildError: the graph's layers are not the network's.
    """
    model = onnx.load_from_string(graph)
    nodes = {node.name: node for node in model.graph.node}
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    chosen = [nodes[name] for name in linear_layers(graph)]
    ranges = least_squares_ranges(graph, sorted({node.input[0] for node in chosen}), images, symmetric=True)
    layers = iter(executed_layers(network, normalise(images[:1]), present))
    found: list[RoundedLayer] = []
    for node in chosen:
        each = next((each for each in layers if shape_in_graph(each.layer) == shapes[node.input[1]]), None)
        if each is None:
            raise BuildError(f"no layer of the network is the graph's '{node.name}' with weights {shapes[node.input[1]]}")
        found.append(replace(each, largest=ranges[node.input[0]][1]))
    return found


def shape_in_graph(layer: nn.Module) -> tuple[int, ...]:
    """The shape of a layer's weight as the exporter writes it: that of a linear layer is turned."""
    shape = tuple(layer.weight.shape)  # type: ignore[union-attr]
    return shape[::-1] if isinstance(layer, nn.Linear) else shape
