"""What turns pixels into tokens: our own encoders, and any network of timm by name.

What gives spatial awareness and context, and what an ablation on real data said of each (`docs/training.md`):

- the **convolutional stem** (Xiao et al. 2021, arXiv 2106.14881) sees texture and edges below one token, and lets a small
  ViT learn from tens of thousands of images rather than millions;
- **2-D positions**, learned on one grid and interpolated to any other, so that training can start on small images;
- **self-attention** between the 16-pixel cells carries context across the frame;
- **one attention-pooling query for each head** over the cells (`layers.HeadPooling`): "is there a ship" and "is this rural" look
  at other places;
- **crops at several scales** in training (`augment.warp`) stand for heights of flight;
- **registers** (Darcet et al. 2023, arXiv 2309.16588), tokens that belong to no place, are there to be tried: no preset uses them.

Everything is static-shaped, channels are multiples of 8, stems use convolution + ReLU, and `LayerNorm` stays a module, which the
exporter keeps as one node: all of it fuses in TensorRT and in ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spatialnet_edge.core.errors import UsageError
from spatialnet_edge.core.spec import BandGroup
from spatialnet_training.networks.layers import Block, GroupEmbedding, Residual, conv_bn_relu

STRIDE = 16
"""Pixels on each side of the cell that one token stands for."""

TRUNK = "timm-trunk"
"""Names a network of timm without what stands between its last stage and its classifier."""


class Backbone(Protocol):
    """Normalised pixels in, tokens out; an `nn.Module`.

    Attributes:
        width: of a token.
        head_queries: whether each head may pool the tokens with a query of its own.
    """

    width: int
    head_queries: bool

    def __call__(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        """`x`: float `[N, bands, H, W]`; `present`: `[N, groups]` of 0 and 1. Returns `[N, tokens, width]`."""
        ...

    def layers(self) -> Sequence[Sequence[nn.Parameter]]:
        """All parameters, from the pixels upwards, one entry a layer: for learning rates that fall towards the pixels."""
        ...


@dataclass(frozen=True, slots=True)
class EncoderShape:
    """Widths and depths; see `PRESETS`.

    Attributes:
        stem: channels of the convolution stages, each halving the image; empty for the plain 16×16 patches of a ViT.
        residuals: residual blocks in each stage.
        positions: whether tokens know where they are.
        head_queries: whether each head pools the tokens with a query of its own, rather than all with their mean.
        registers: tokens that belong to no place.
    """

    width: int
    depth: int
    mlp_ratio: int
    head_width: int = 32
    stem: tuple[int, ...] = ()
    residuals: tuple[int, ...] = ()
    positions: bool = True
    registers: int = 0
    head_queries: bool = True


PRESETS: dict[str, EncoderShape] = {
    "student-1m": EncoderShape(width=128, depth=4, mlp_ratio=2, stem=(16, 32, 64), residuals=(0, 1, 2)),
    "student-2m": EncoderShape(width=192, depth=4, mlp_ratio=2, stem=(24, 48, 96), residuals=(0, 1, 2)),
    # for images of 64 pixels, which have 16 tokens: more is said by texture, in the stem, and less by their places
    "student-2m-texture": EncoderShape(width=192, depth=2, mlp_ratio=2, stem=(32, 64, 128), residuals=(0, 2, 3)),
    # `student-2m` with three more blocks, so that it can start from what that one has learnt (transfer.py)
    "student-3m": EncoderShape(width=192, depth=7, mlp_ratio=2, stem=(24, 48, 96), residuals=(0, 1, 2)),
    "student-6m": EncoderShape(width=320, depth=5, mlp_ratio=2, stem=(32, 64, 160), residuals=(0, 1, 2)),
    # the encoder as published (arXiv 2506.22501)
    "spatialnet-vit": EncoderShape(width=512, depth=12, mlp_ratio=4, head_width=64),
}


_BASE = PRESETS["student-1m"]
ABLATED: dict[str, EncoderShape] = {
    "student-1m/patches": replace(_BASE, stem=(), residuals=()),
    "student-1m/no-positions": replace(_BASE, positions=False),
    "student-1m/registers": replace(_BASE, registers=4),
    "student-1m/mean-pooling": replace(_BASE, head_queries=False),
    "student-1m/no-attention": replace(_BASE, depth=0),
}
"""The smallest student with one thing changed: what `spatialnet-edge ablate` compares, and nothing else uses."""


class Encoder(nn.Module):
    """SpatialNet-ViT, teacher and students alike: a stem, positions, transformer blocks.

    Args:
        groups: the bands of the input.
        size: side of the square input in pixels, on whose grid the positions are learned; a multiple of 16.
    """

    def __init__(self, shape: EncoderShape, groups: tuple[BandGroup, ...], size: int) -> None:
        super().__init__()
        self.width = shape.width
        self.head_queries = shape.head_queries
        if shape.stem:
            first, *others = shape.stem
            self.embedding = GroupEmbedding(groups, first, kernel=3, stride=2, bias=False)
            rest: list[nn.Module] = [nn.BatchNorm2d(first), nn.ReLU()]
            rest += [Residual(first) for _ in range(shape.residuals[0])]
            channels = first
            for outputs, residuals in zip(others, shape.residuals[1:], strict=True):
                rest += [conv_bn_relu(channels, outputs, 2), *(Residual(outputs) for _ in range(residuals))]
                channels = outputs
            self.stem = nn.Sequential(*rest, nn.Conv2d(channels, shape.width, 3, 2, padding=1))
        else:
            self.embedding = GroupEmbedding(groups, shape.width, kernel=STRIDE, stride=STRIDE, bias=True)
            self.stem = nn.Sequential()
        grid = size // STRIDE
        self.positions = nn.Parameter(torch.randn(1, shape.width, grid, grid) * 0.02) if shape.positions else None
        self.registers = nn.Parameter(torch.randn(1, shape.registers, shape.width) * 0.02) if shape.registers else None
        self.blocks = nn.Sequential(*(Block(shape.width, shape.head_width, shape.mlp_ratio) for _ in range(shape.depth)))
        self.norm = nn.LayerNorm(shape.width)

    def forward(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        cells = self.stem(self.embedding(x, present))
        if self.positions is not None:
            positions: Tensor = self.positions
            if positions.shape[-2:] != cells.shape[-2:]:
                positions = F.interpolate(positions, cells.shape[-2:], mode="bicubic", align_corners=False)
            cells = cells + positions
        tokens = cells.flatten(2).transpose(1, 2)
        if self.registers is not None:
            tokens = torch.cat([self.registers.expand(len(tokens), -1, -1), tokens], dim=1)
        tokens = self.norm(self.blocks(tokens))
        return tokens if self.registers is None else tokens[:, self.registers.shape[1] :]

    def layers(self) -> list[list[nn.Parameter]]:
        places = [p for p in (self.positions, self.registers) if p is not None]
        bottom = [*self.embedding.parameters(), *self.stem.parameters(), *places]
        return [bottom, *([*block.parameters()] for block in self.blocks), [*self.norm.parameters()]]


def build_backbone(name: str, groups: tuple[BandGroup, ...], size: int, weights: str = "") -> nn.Module:
    """A `Backbone` by its name: a preset, `timm:NAME`, or `timm-trunk:NAME` for that network's stages alone.

    Args:
        weights: of a timm network: a local file, `hub` to let timm fetch them, or empty for random ones.

    Raises:
        UsageError: there is no such preset or network, or the weights do not fit.
        MissingExtra: timm is not installed.
    """
    source, _, network = name.partition(":")
    if source in ("timm", TRUNK):
        from spatialnet_training.networks.timm_backbone import TimmBackbone

        return TimmBackbone(network, groups, size, weights, trunk=source == TRUNK)
    if name not in PRESETS | ABLATED:
        raise UsageError(
            f"no preset '{name}'; there are {', '.join(PRESETS)}, and timm:NAME for any network of timm, {TRUNK}:NAME for its "
            f"stages alone"
        )
    return Encoder((PRESETS | ABLATED)[name], groups, size)
