"""The head `known`: how much a picture resembles the training images, from the network's features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

HIDDEN = 64
EPSILON = 1e-5


class KnownHead(nn.Module):
    """One logit `[N, 1]` from each head's pooled vector and the mean, standard deviation and maximum of the tokens.

    Args:
        heads: of the network.
        width: features per token.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        features = (heads + 3) * width
        self.register_buffer("centre", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.layers = nn.Sequential(nn.Linear(features, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))

    def forward(self, pooled: Tensor, tokens: Tensor) -> Tensor:
        """`pooled`: `[N, heads, width]`; `tokens`: `[N, tokens, width]`."""
        return self.score(features(pooled, tokens))

    def score(self, found: Tensor) -> Tensor:
        """The logit of `features`."""
        return self.layers((found - self.centre) * self.scale)


def features(pooled: Tensor, tokens: Tensor) -> Tensor:
    """Input features of `KnownHead`: float `[N, (heads + 3) * width]`."""
    mean = tokens.mean(dim=1)
    deviation = ((tokens - mean.unsqueeze(1)).square().mean(dim=1) + EPSILON).sqrt()
    return torch.cat([pooled.flatten(1), mean, deviation, tokens.amax(dim=1)], dim=1)
