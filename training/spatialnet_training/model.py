"""The compact SpatialNet-ViT student: a convolutional stem, a few transformer blocks, one attention query for each task.

What gives spatial awareness and context:

- the **convolutional stem** (Xiao et al. 2021, arXiv 2106.14881) sees texture and edges below one token, and lets a small
  ViT learn from tens of thousands of images rather than millions;
- **2-D positions**, learned on one grid and interpolated to any other, so that training can start on small images;
- **self-attention** between the 16-pixel cells carries context across the frame;
- **one attention-pooling query for each task** over the cells: "is there a ship" and "is this rural" look at other places.

Everything is static-shaped, channels are multiples of 8, stems use convolution + ReLU (one fused kernel everywhere), and
`LayerNorm` stays a module, which the exporter keeps as one node.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIDE = 16
"""Pixels on each side of the cell that one token stands for."""


@dataclass(frozen=True, slots=True)
class StudentShape:
    """Widths and depths; see `PRESETS`."""

    stem: tuple[int, int, int]
    residuals: tuple[int, int, int]
    width: int
    depth: int
    mlp_ratio: int
    head_width: int = 32


PRESETS: dict[str, StudentShape] = {
    "student-2m": StudentShape(stem=(24, 48, 96), residuals=(0, 1, 2), width=192, depth=4, mlp_ratio=2),
}


def conv_bn_relu(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


class Residual(nn.Module):
    """Two 3×3 convolutions around an identity (He et al. 2015)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = conv_bn_relu(channels, channels, 1)
        norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(norm.weight)  # starts as the identity
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), norm)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


class Block(nn.Module):
    """A pre-norm transformer block (Dosovitskiy et al. 2020)."""

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


class TaskPooling(nn.Module):
    """One learned query for each task attends over all tokens: `[N, tokens, width]` to `[N, tasks, width]`."""

    def __init__(self, tasks: int, width: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(tasks, width))  # zero: starts as the mean over tokens
        self.key = nn.Linear(width, width)
        self.scale = width**-0.5

    def forward(self, tokens: Tensor) -> Tensor:
        scores = self.query @ (self.key(tokens) * self.scale).transpose(1, 2)
        return scores.softmax(dim=-1) @ tokens


class SpatialNetStudent(nn.Module):
    """Normalised pixels in, one tensor of logits for each task out.

    Args:
        shape: widths and depths.
        tasks: task name to number of outputs.
        size: side of the square input in pixels, on whose grid the positions are learned; a multiple of 16.
    """

    def __init__(self, shape: StudentShape, tasks: Mapping[str, int], size: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for outputs, residuals in zip(shape.stem, shape.residuals, strict=True):
            layers.append(conv_bn_relu(channels, outputs, 2))
            layers.extend(Residual(outputs) for _ in range(residuals))
            channels = outputs
        layers.append(nn.Conv2d(channels, shape.width, 3, 2, padding=1))
        self.stem = nn.Sequential(*layers)
        grid = size // STRIDE
        self.positions = nn.Parameter(torch.randn(1, shape.width, grid, grid) * 0.02)
        self.blocks = nn.Sequential(*(Block(shape.width, shape.head_width, shape.mlp_ratio) for _ in range(shape.depth)))
        self.norm = nn.LayerNorm(shape.width)
        self.pooling = TaskPooling(len(tasks), shape.width)
        self.heads = nn.ModuleDict({name: nn.Linear(shape.width, outputs) for name, outputs in tasks.items()})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """`x`: float `[N, 3, H, W]`, mean 0 and deviation 1 for each band; H and W multiples of 16."""
        cells = self.stem(x)
        positions = self.positions
        if positions.shape[-2:] != cells.shape[-2:]:
            positions = F.interpolate(positions, cells.shape[-2:], mode="bicubic", align_corners=False)
        tokens = self.norm(self.blocks((cells + positions).flatten(2).transpose(1, 2)))
        pooled = self.pooling(tokens)
        return {name: head(pooled[:, index]) for index, (name, head) in enumerate(self.heads.items())}
