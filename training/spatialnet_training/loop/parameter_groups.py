"""The optimiser's parameter groups: learning rates and weight decay."""

from __future__ import annotations

from typing import Any

from spatialnet_training.config import TrainConfig
from spatialnet_training.networks.model import SpatialNet


def parameter_groups(network: SpatialNet, config: TrainConfig) -> list[dict[str, Any]]:
    """The trainable parameters with learning rates and weight decay. Matrices and filters decay; biases, norms, positions and
    queries do not."""
    layers = [list(layer) for layer in network.backbone.layers()]  # type: ignore[operator]  # a Backbone
    top = [*network.heads.parameters()]
    if config.adapt != "full":
        for parameter in network.backbone.parameters():
            parameter.requires_grad_(False)
    if config.adapt == "probe":
        for parameter in network.pooling.parameters():
            parameter.requires_grad_(False)
    layers.append([*network.pooling.parameters(), *top])
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    groups: list[dict[str, Any]] = []
    for height, layer in enumerate(reversed(layers)):
        scale = config.layer_decay**height
        learning = [parameter for parameter in layer if parameter.requires_grad]
        free = [p for p in learning if p.ndim < 2 or names[id(p)].endswith(("positions", "registers", "query"))]
        decayed = [p for p in learning if not any(p is other for other in free)]
        groups += [
            {"params": parameters, "weight_decay": decay, "scale": scale}
            for parameters, decay in ((decayed, config.weight_decay), (free, 0.0))
            if parameters
        ]
    return groups
