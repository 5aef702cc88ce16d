"""SpatialNet-ViT: a backbone, and per head an attention query over the tokens and a linear layer."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from spatialnet_edge.core.spec import KNOWN, RGB, BandGroup
from spatialnet_training.networks.backbones import build_backbone
from spatialnet_training.networks.image_temperature import IMAGE_TEMPERATURE, ImageTemperature
from spatialnet_training.networks.known import KnownHead, features, features_of
from spatialnet_training.networks.layers import HeadPooling


class SpatialNet(nn.Module):
    """From normalised pixels to one tensor of logits per head.

    Args:
        backbone: a preset of `backbones.PRESETS`, `timm:NAME` or `timm-trunk:NAME`.
        heads: head name to number of outputs.
        size: side of the square input in pixels; a multiple of 16.
        groups: the bands of the input, in channel order.
        weights: pretrained ones for the backbone; see `build_backbone`.
        known: hidden units of its `KnownHead`, whose logit is returned as `known`; 0: it has none.
        image_temperature: whether it has an `ImageTemperature`; its output is returned as `image_temperature`.
    """

    known: KnownHead | None
    image_temperature: ImageTemperature | None

    def __init__(
        self,
        backbone: str,
        heads: Mapping[str, int],
        size: int,
        groups: tuple[BandGroup, ...] = (RGB,),
        weights: str = "",
        known: int = 0,
        image_temperature: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = build_backbone(backbone, groups, size, weights)
        width = int(self.backbone.width)  # type: ignore[arg-type]  # torch's stubs make every attribute a tensor or a module
        self.pooling = HeadPooling(len(heads), width)
        if not self.backbone.head_queries:
            self.pooling.requires_grad_(False)  # zero queries compute the mean over the tokens
        self.heads = nn.ModuleDict({name: nn.Linear(width, outputs) for name, outputs in heads.items()})
        self.known = KnownHead(len(heads), width, known) if known else None
        self.image_temperature = ImageTemperature(features_of(len(heads), width)) if image_temperature else None

    def forward(self, x: Tensor, present: Tensor | None = None) -> dict[str, Tensor]:
        """`x`: float `[N, bands, H, W]`, mean 0 and deviation 1 for each band; H and W multiples of 16.

        `present`: float `[N, groups]` of 0 and 1; None if every band group is present.
        """
        tokens = self.backbone(x, present)
        pooled = self.pooling(tokens)
        logits = self.answer(pooled)
        if self.known is None and self.image_temperature is None:
            return logits
        found = features(pooled, tokens)
        if self.known is not None:
            logits[KNOWN] = self.known(found)
        if self.image_temperature is not None:
            logits[IMAGE_TEMPERATURE] = self.image_temperature(found)
        return logits

    def pool(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        """The pooled features of each head: `[N, heads, width]`."""
        return self.pooling(self.backbone(x, present))

    def answer(self, pooled: Tensor) -> dict[str, Tensor]:
        """The logits of each head from the features of `pool`."""
        return {name: head(pooled[:, index]) for index, (name, head) in enumerate(self.heads.items())}
