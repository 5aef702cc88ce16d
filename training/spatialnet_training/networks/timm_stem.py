"""A convolutional timm network as the stem of an encoder: the hybrid of Dosovitskiy et al. (2020, arXiv 2010.11929, section 3.1),
which may start from ImageNet weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spatialnet_edge.core.errors import UsageError, first_line
from spatialnet_edge.core.spec import BandGroup
from spatialnet_training.networks.timm_backbone import create, import_timm, load_weights

STRIDE = 16
"""Side of a cell of the selected stage, in pixels."""


class TimmStem(nn.Module):
    """From normalised pixels to cells: the stages of a network up to a stride of 16, and a 1×1 convolution to the encoder's
    width.

    Args:
        name: of a convolutional network, from `timm.list_models()`.
        width: of a cell.
        weights: a local state dict of the complete network; empty: random. Weights for three colours are inflated to more
            bands.
        trunk: all stages; those after a stride of 16 keep it and dilate their filters instead (Yu and Koltun 2016, arXiv
            1511.07122).

    An absent band group is replaced by its mean.

    Raises:
        UsageError: unknown network, no stage of that stride, or weights that do not match.
        MissingExtra: timm is not installed.
    """

    def __init__(self, name: str, groups: tuple[BandGroup, ...], width: int, weights: str = "", trunk: bool = False) -> None:
        super().__init__()
        self.bands = [len(group.bands) for group in groups]
        timm = import_timm()
        try:
            stride = {"output_stride": STRIDE} if trunk else {}
            network: Any = create(timm, name, 64, {"num_classes": 0, "in_chans": 3, **stride})
            stages = [stage["reduction"] for stage in network.feature_info]
            last = len(stages) - 1 if trunk else stages.index(STRIDE)
            channels = int(network.feature_info[last]["num_chs"])
            if weights:
                load_weights(network, Path(weights))
            network.prune_intermediate_layers([last], prune_norm=True)
            check_cells(network, channels)
        except (RuntimeError, AttributeError, KeyError, ValueError) as error:
            raise UsageError(
                f"timm's network '{name}' cannot be a stem ({first_line(error)}); use a convolutional network with a "
                f"stage of stride {STRIDE}, such as tf_efficientnet_lite0"
            ) from error
        inflate(network, sum(self.bands))
        self.network = network
        self.projection = nn.Conv2d(channels, width, 1)

    def forward(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        """`x`: float `[N, bands, H, W]`; `present`: `[N, groups]` of 0 and 1. Returns `[N, width, H / 16, W / 16]`."""
        if present is not None and len(self.bands) > 1:
            x = x * present.to(x.dtype).repeat_interleave(torch.tensor(self.bands, device=x.device), dim=1)[:, :, None, None]
        return self.projection(self.network.forward_features(x))


@torch.inference_mode()
def check_cells(network: Any, channels: int) -> None:
    """Check that a network returns a feature map `[N, channels, H / 16, W / 16]`, as convolutional networks do.

    Raises:
        ValueError: it returns another shape.
    """
    shape = tuple(network.eval().forward_features(torch.zeros(1, 3, 64, 64)).shape)
    network.train()
    if shape != (1, channels, 64 // STRIDE, 64 // STRIDE):
        raise ValueError(f"its features have the shape {shape}")


@torch.no_grad()
def inflate(network: nn.Module, bands: int) -> None:
    """Change the number of bands of a three-colour network: each filter is the colours' mean, scaled so that the sum over all
    bands is the same (Carreira and Zisserman 2017, arXiv 1705.07750). Three bands are not changed."""
    if bands == 3:
        return
    first = next(layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
    mean = first.weight.mean(dim=1, keepdim=True)
    first.weight = nn.Parameter((mean * (3 / bands)).repeat(1, bands, 1, 1))
    first.in_channels = bands
