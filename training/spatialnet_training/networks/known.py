"""Does the network know this picture? A small head on its features, beside the heads that answer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

HIDDEN = 64
EPSILON = 1e-5


class KnownHead(nn.Module):
    """Each head's pooled vector, and mean, deviation and maximum of the tokens, into one logit: `[N, 1]`.

    Args:
        heads: of the network.
        width: of a token.
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
    """What `KnownHead` looks at: float `[N, (heads + 3) * width]`."""
    mean = tokens.mean(dim=1)
    deviation = ((tokens - mean.unsqueeze(1)).square().mean(dim=1) + EPSILON).sqrt()
    return torch.cat([pooled.flatten(1), mean, deviation, tokens.amax(dim=1)], dim=1)
