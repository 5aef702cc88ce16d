"""A temperature for each image: what makes confidence fall on pictures that the network answers badly.

One number for a whole head (Guo et al. 2017) fits sharp pictures or poor ones, not both. So the temperature depends on the image's
features, as in Joy et al. 2023 (arXiv 2207.06211). The likeliest label stays the same.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMAGE_TEMPERATURE = "image_temperature"
"""Name of the network's extra output; every categorical and multilabel head's logits are divided by it in the deployed graph."""


class ImageTemperature(nn.Module):
    """From `networks.known.features` to one temperature of 1 or more: `[N, 1]`.

    Args:
        features: how many there are.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.layer = nn.Linear(features, 1)

    def forward(self, found: Tensor) -> Tensor:
        """`found`: float `[N, features]`."""
        return 1 + F.softplus(self.layer((found - self.centre) * self.scale))
