"""Start a network from the weights of another (transfer learning)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from spatialnet_edge.bundle.manifest import Provenance
from spatialnet_edge.core.errors import UsageError, first_line
from spatialnet_edge.core.spec import Head, Multiclass, Multilabel
from spatialnet_training.networks.backbones import Encoder
from spatialnet_training.networks.checkpoint import load_network
from spatialnet_training.networks.layers import Block
from spatialnet_training.networks.model import SpatialNet

FIRST = "backbone.embedding.convolutions."
"""Prefix of the first convolution of each band group. Those of groups that the network does not have are not copied."""


def transfer(network: SpatialNet, heads: tuple[Head, ...], start: Path) -> Provenance:
    """Copy the backbone and the pooling, and the query and linear layer of each head with the same name and labels.

    A deeper network of otherwise equal shape initially computes the same as the source, because its additional blocks output
    zero. A trunk (`timm-trunk:NAME`) copies the stages of the complete network (`timm:NAME`), whose pooling and heads are
    wider. A hybrid (`PRESET+NAME`) copies the first stages of either as its stem; all its blocks initially output zero.

    Args:
        heads: of `network`, in its order.
        start: the checkpoint; see `load_network`.

    Returns:
        The provenance of the checkpoint.

    Raises:
        UsageError: the checkpoint has another backbone.
    """
    source, spec, provenance = load_network(start)
    # further training changes the features, so `known` and the temperature of images must be trained again
    left = ("heads.", "known.", "image_temperature.", "pooling.query")
    kept = {k: v for k, v in source.state_dict().items() if not k.startswith(left)}
    own = network.state_dict()
    if is_trunk_of(network, source):
        kept = {k: v for k, v in kept.items() if k in own and k.startswith("backbone.")}
    elif stem := stem_from(network, source):
        kept = stem
    place = "backbone.positions"
    if place in kept and place in own and kept[place].shape[-2:] != own[place].shape[-2:]:
        kept[place] = F.interpolate(kept[place], own[place].shape[-2:], mode="bicubic", align_corners=False)
    kept = {k: v for k, v in kept.items() if k in own or not k.startswith(FIRST)} | inflated(source, own)
    query = torch.zeros_like(own["pooling.query"])
    before = {answers(head): index for index, head in enumerate(spec.heads)}
    for index, head in enumerate(heads):
        if (old := before.get(answers(head))) is not None and source.pooling.query.shape[1] == query.shape[1]:
            query[index] = source.pooling.query[old].detach()
            kept |= {k: v for k, v in source.state_dict().items() if k.startswith(f"heads.{head.name}.")}
    if set(kept) - set(own):
        raise UsageError(
            f"{start}: has {min(set(kept) - set(own))}, which this backbone does not have; use the backbone of the "
            "checkpoint, or --start scratch"
        )
    try:
        network.load_state_dict(own | kept | {"pooling.query": query})
    except RuntimeError as error:
        raise UsageError(
            f"{start}: its shape differs from this backbone ({first_line(error)}); use the backbone of the "
            "checkpoint, or --start scratch"
        ) from error
    if isinstance(network.backbone, Encoder):
        before_blocks = len(source.backbone.blocks) if isinstance(source.backbone, Encoder) else 0
        for block in [*network.backbone.blocks][before_blocks:]:
            if isinstance(block, Block):
                block.silence()
    return provenance


def inflated(source: SpatialNet, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """First convolutions for band groups that the source does not have: the mean of its colour filters, for each band.

    A new band thus starts with the edge and texture filters of the colours (inflation, Carreira and Zisserman 2017, arXiv
    1705.07750). Each group contributes as much as one colour.
    """
    colour = source.state_dict().get(f"{FIRST}rgb.weight")
    if colour is None:
        return {}
    before = source.state_dict().keys()
    return {
        key: (colour.mean(dim=1, keepdim=True) / value.shape[1]).expand_as(value).clone()
        for key, value in own.items()
        if key.startswith(FIRST) and key.endswith(".weight") and key not in before and value.shape[0] == colour.shape[0]
    }


def is_trunk_of(network: SpatialNet, source: SpatialNet) -> bool:
    """Whether a network's backbone is the trunk of the other's."""
    own, whole = network.backbone.state_dict(), source.backbone.state_dict()
    return own.keys() < whole.keys() and all(value.shape == whole[name].shape for name, value in own.items())


def stem_from(network: SpatialNet, source: SpatialNet) -> dict[str, Tensor]:
    """The first stages of a convolutional source as the stem of a hybrid; empty if they do not match."""
    own, stem = network.state_dict(), "backbone.embedding.network."
    wanted = {key: key.replace(stem, "backbone.network.", 1) for key in own if key.startswith(stem)}
    found = source.state_dict()
    if any(name not in found or found[name].shape != own[key].shape for key, name in wanted.items()):
        return {}
    return {key: found[name] for key, name in wanted.items()}


def answers(head: Head) -> tuple[str, tuple[str, ...]]:
    """The name and labels of a head, which identify it."""
    return head.name, head.labels if isinstance(head, Multiclass | Multilabel) else ()
