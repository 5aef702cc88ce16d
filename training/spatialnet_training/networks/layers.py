"""Layers of the networks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spatialnet_edge.core.spec import BandGroup


def conv_bn_relu(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """3×3 convolution, batch norm and ReLU: one fused kernel everywhere."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


class Residual(nn.Module):
    """Two 3×3 convolutions around an identity (He et al. 2015)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = conv_bn_relu(channels, channels, 1)
        norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(norm.weight)  # initialised as the identity
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), norm)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


class Block(nn.Module):
    """A pre-norm transformer block (Dosovitskiy et al. 2020, arXiv 2010.11929)."""

    def __init__(self, width: int, head_width: int, mlp_ratio: int) -> None:
        super().__init__()
        self.heads = width // head_width
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, mlp_ratio * width), nn.GELU(), nn.Linear(mlp_ratio * width, width))

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        query, key, value = (
            part.reshape(batch, tokens, self.heads, width // self.heads).transpose(1, 2)
            for part in self.qkv(self.norm1(x)).chunk(3, dim=-1)
        )
        mixed = F.scaled_dot_product_attention(query, key, value)
        x = x + self.projection(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return x + self.mlp(self.norm2(x))

    @torch.no_grad()
    def silence(self) -> None:
        """Zero-initialise the outputs: until trained, the network computes the same as without this block (Chen et al. 2016,
        arXiv 1511.05641)."""
        for last in (self.projection, self.mlp[-1]):
            for parameter in last.parameters():
                parameter.zero_()


class HeadPooling(nn.Module):
    """Attention pooling with one learned query per head: `[N, tokens, width]` to `[N, heads, width]`."""

    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(heads, width))  # zero: initialised as the mean over tokens
        self.key = nn.Linear(width, width)
        self.scale = width**-0.5

    def forward(self, tokens: Tensor) -> Tensor:
        scores = self.query @ (self.key(tokens) * self.scale).transpose(1, 2)
        return scores.softmax(dim=-1) @ tokens


class GroupEmbedding(nn.Module):
    """The first convolution: one per band group, summed. An absent group is replaced by a learned vector.

    (A sum over modality embeddings, as in MultiMAE, Bachmann et al. 2022, arXiv 2204.01678.) With a single
    group, the graph has only a plain convolution.

    Args:
        groups: in channel order of the input.
        width, kernel, stride, bias: of every group's convolution.
    """

    def __init__(self, groups: tuple[BandGroup, ...], width: int, kernel: int, stride: int, bias: bool) -> None:
        super().__init__()
        self.bands = [len(group.bands) for group in groups]
        padding = 1 if kernel == 3 else 0
        self.convolutions = nn.ModuleDict(
            {group.name: nn.Conv2d(len(group.bands), width, kernel, stride, padding, bias=bias) for group in groups}
        )
        if len(groups) > 1:
            self.absent = nn.Parameter(torch.zeros(len(groups), width, 1, 1))
            self.present = nn.Parameter(torch.zeros(len(groups), width, 1, 1))

    def forward(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        """`x`: float `[N, bands, H, W]`; `present`: float `[N, groups]` of 0 and 1, None if every group is present."""
        convolutions = list(self.convolutions.values())
        if len(convolutions) == 1:
            return convolutions[0](x)
        seen = torch.ones(x.shape[0], len(convolutions), device=x.device, dtype=x.dtype) if present is None else present
        parts = [
            torch.where(seen[:, index, None, None, None] > 0, convolution(bands) + self.present[index], self.absent[index])
            for index, (convolution, bands) in enumerate(zip(convolutions, x.split(self.bands, dim=1), strict=True))
        ]
        return sum(parts[1:], parts[0])
