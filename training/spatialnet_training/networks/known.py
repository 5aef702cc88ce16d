"""The head `known`: how much a picture resembles the training images, from the network's features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

EPSILON = 1e-5


class KnownHead(nn.Module):
    """One logit `[N, 1]` from `features`.

    Args:
        heads: of the network.
        width: features per token.
        units: of its hidden layer.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, heads: int, width: int, units: int) -> None:
        super().__init__()
        count = features_of(heads, width)
        self.register_buffer("centre", torch.zeros(count))
        self.register_buffer("scale", torch.ones(count))
        self.layers = nn.Sequential(nn.Linear(count, units), nn.ReLU(), nn.Linear(units, 1))

    def forward(self, found: Tensor) -> Tensor:
        """`found`: see `features`."""
        return self.layers((found - self.centre) * self.scale)


def features_of(heads: int, width: int) -> int:
    """The number of input features per image."""
    return (heads + 3) * width


def features(pooled: Tensor, tokens: Tensor) -> Tensor:
    """Input features of `KnownHead` and `ImageTemperature`: float `[N, (heads + 3) * width]`.

    Args:
        pooled: each head's pooled vector, `[N, heads, width]`.
        tokens: `[N, tokens, width]`; their mean, deviation and maximum are taken.
    """
    mean = tokens.mean(dim=1)
    deviation = ((tokens - mean.unsqueeze(1)).square().mean(dim=1) + EPSILON).sqrt()
    return torch.cat([pooled.flatten(1), mean, deviation, tokens.amax(dim=1)], dim=1)
