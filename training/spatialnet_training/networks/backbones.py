"""Backbones: from pixels to tokens. Our own encoders, and any timm network by name.

Design choices:

- the **convolutional stem** (Xiao et al. 2021, arXiv 2106.14881) extracts texture and edges within a token, so that a small
  ViT can learn from tens of thousands of images instead of millions;
- **2-D positions**, learned on one grid and interpolated to any other, so that training can start on small images;
- **self-attention** between the 16-pixel cells exchanges context across the frame;
- **one attention-pooling query for each head** over the cells (`layers.HeadPooling`): "is there a ship" and "is this
  rural" need different places;
- **crops at several scales** in training (`augment.warp`) simulate flight altitudes;
- **registers** (Darcet et al. 2023, arXiv 2309.16588), tokens without a position, are optional: no preset uses them.

Everything is static-shaped, channels are multiples of 8, stems use convolution + ReLU, and `LayerNorm` stays a module, which
the exporter keeps as one node: all of it fuses in TensorRT and in ONNX Runtime.
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
"""Side of a token's cell in pixels."""

HYBRID = "spatialnet-vit+tf_efficientnet_lite0"
"""Prefix for the published encoder after the first stages of a convolutional network, for instance one with ImageNet
weights."""

TRUNK = "timm-trunk"
"""Prefix for a timm network without the layers between its last stage and its classifier."""


class Backbone(Protocol):
    """An `nn.Module` from normalised pixels to tokens.

    Attributes:
        width: features per token.
        head_queries: whether each head may pool the tokens with its own query.
        any_size: whether it takes images of other sizes than the one that it was made for.
    """

    width: int
    head_queries: bool
    any_size: bool

    def __call__(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        """`x`: float `[N, bands, H, W]`; `present`: `[N, groups]` of 0 and 1. Returns `[N, tokens, width]`."""
        ...

    def layers(self) -> Sequence[Sequence[nn.Parameter]]:
        """All parameters by layer, from input to output, for layer-wise learning rates."""
        ...


@dataclass(frozen=True, slots=True)
class EncoderShape:
    """Widths and depths; see `PRESETS`.

    Attributes:
        stem: channels of the convolution stages, each halving the image; empty: plain 16×16 patches as in a ViT.
        residuals: residual blocks in each stage.
        positions: whether there are position embeddings.
        head_queries: whether each head pools the tokens with its own query; otherwise all use the mean.
        registers: number of tokens without a position.
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
    # for 64-pixel images with 16 tokens: texture (the stem) matters more than positions
    "student-2m-texture": EncoderShape(width=192, depth=2, mlp_ratio=2, stem=(32, 64, 128), residuals=(0, 2, 3)),
    # `student-2m` with three more blocks, so that it can start from its weights (transfer.py)
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
"""Variants of the smallest student with one change each, used only by `spatialnet-edge ablate`."""


class Encoder(nn.Module):
    """SpatialNet-ViT, teacher and students alike: a stem, positions, transformer blocks.

    Args:
        groups: the bands of the input.
        size: side of the square input in pixels, a multiple of 16; the position embeddings are learned on its grid.
        stem: makes cells `[N, width, h, w]` of pixels and presence, in the place of the shape's own stem.
    """

    embedding: nn.Module

    def __init__(self, shape: EncoderShape, groups: tuple[BandGroup, ...], size: int, stem: nn.Module | None = None) -> None:
        super().__init__()
        self.width = shape.width
        self.head_queries = shape.head_queries
        self.any_size = True  # positions are interpolated
        if stem is not None:
            self.embedding, self.stem = stem, nn.Sequential()
        elif shape.stem:
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
    """Build a `Backbone` by its name: a preset, `PRESET+NAME` for a preset after the first stages of a convolutional timm
    network, `PRESET+timm-trunk:NAME` for one after all its stages, `timm:NAME`, or `timm-trunk:NAME` for only the stages of
    that network.

    Args:
        weights: of a timm network: a local file, `hub` (timm downloads them), or empty (random). A stem takes files.

    Raises:
        UsageError: unknown preset or network, or the weights do not match.
        MissingExtra: timm is not installed.
    """
    source, _, network = name.partition(":")
    if source in ("timm", TRUNK):
        from spatialnet_training.networks.timm_backbone import TimmBackbone

        return TimmBackbone(network, groups, size, weights, trunk=source == TRUNK)
    preset, plus, stem = name.partition("+")
    if preset not in PRESETS | ABLATED:
        raise UsageError(
            f"no preset '{preset}'; available: {', '.join(PRESETS)}, {HYBRID} for one after the first stages of a "
            f"convolutional timm network, {HYBRID.replace('+', f'+{TRUNK}:')} for one after all its stages, timm:NAME for any "
            f"timm network, and {TRUNK}:NAME for only its stages"
        )
    shape = (PRESETS | ABLATED)[preset]
    if not plus:
        return Encoder(shape, groups, size)
    from spatialnet_training.networks.timm_stem import TimmStem

    _, trunk, network = stem.rpartition(f"{TRUNK}:")
    return Encoder(shape, groups, size, TimmStem(network, groups, shape.width, weights, trunk=bool(trunk)))
