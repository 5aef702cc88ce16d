"""Any image network of timm as a backbone: a ViT, a hybrid, or a convolutional teacher (Touvron et al. 2020: a pretrained
convolutional network is a good teacher for a small ViT)."""

from __future__ import annotations

import logging
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from spatialnet_edge.core.errors import MissingExtra, UsageError, first_line
from spatialnet_edge.core.spec import BandGroup

HUB = "hub"


def import_timm() -> ModuleType:
    """Import timm, also with a CPU-only torch.

    timm imports torchvision. The package index has no CPU build of torchvision, so this import fails with a CPU-only torch,
    because the library with two operators does not load. Only in that case they are declared here; timm never calls them. If
    they were declared before a library that does load, the process would abort.

    Raises:
        MissingExtra: timm or torchvision is not installed.
    """
    try:
        try:
            import torchvision  # noqa: F401
        except RuntimeError:  # operator torchvision::nms does not exist
            declare_operators()
        import timm
    except ModuleNotFoundError as error:
        if error.name not in ("timm", "torchvision"):
            raise
        raise MissingExtra(error.name, "training") from error
    return timm


def declare_operators() -> None:
    """Declare torchvision's operators without its library."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _KEPT.append(library)  # operators exist as long as their library object


_KEPT: list[torch.library.Library] = []


class TimmBackbone(nn.Module):
    """A timm network without its head; the tokens are its feature map or its own tokens.

    Args:
        name: from `timm.list_models()`.
        size: for networks with a fixed image size; others accept any.
        weights: a local state dict, `hub`, or empty.
        trunk: without the wide convolution between the last stage and the classifier. EfficientNet's expands 320 channels to
            1,280 for a thousand classes; the pooling queries do not need it.

    An absent band group is replaced by its mean. Raises as `build_backbone`.
    """

    def __init__(self, name: str, groups: tuple[BandGroup, ...], size: int, weights: str = "", trunk: bool = False) -> None:
        super().__init__()
        self.head_queries = True
        timm = import_timm()
        self.bands = [len(group.bands) for group in groups]
        options: dict[str, Any] = {"pretrained": weights == HUB, "num_classes": 0, "in_chans": sum(self.bands)}
        try:
            self.network = create(timm, name, size, options | {"pretrained": False})  # an unknown name is reported first
            if weights == HUB:
                self.network = pretrained(timm, name, size, options)
        except RuntimeError as error:
            raise UsageError(f"timm has no network '{name}' ({first_line(error)}); see timm.list_models()") from error
        self.any_size = not getattr(getattr(self.network, "patch_embed", None), "strict_img_size", False)
        self.width: int = self.network.num_features
        if trunk:
            self.network.prune_intermediate_layers(1, prune_norm=True)
            self.width = self.network.feature_info[-1]["num_chs"]
        if weights not in ("", HUB):
            load_weights(self.network, Path(weights))

    def forward(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        if present is not None and len(self.bands) > 1:
            x = x * present.to(x.dtype).repeat_interleave(torch.tensor(self.bands, device=x.device), dim=1)[:, :, None, None]
        features = self.network.forward_features(x)
        if features.ndim == 4:  # convolutional networks: [N, width, h, w]; hierarchical transformers: [N, h, w, width]
            features = features if features.shape[-1] == self.width else features.permute(0, 2, 3, 1)
            return features.flatten(1, 2)
        return features

    def layers(self) -> list[list[nn.Parameter]]:
        from timm.models import group_parameters

        named = dict(self.network.named_parameters())
        groups: dict[int, list[str]] = group_parameters(self.network, self.network.group_matcher())
        return [[named[each] for each in groups[layer]] for layer in sorted(groups)]


def pretrained(timm: ModuleType, name: str, size: int, options: dict[str, Any]) -> Any:
    """A network with weights that timm downloads from its hub.

    Raises:
        UsageError: the download failed, for instance without a network connection, or timm has no weights for this network.
    """
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # else each of ten attempts without a network is printed
    try:
        return create(timm, name, size, options)
    except Exception as error:  # the hub's client raises errors of many libraries
        raise UsageError(
            f"weights=hub: the weights of '{name}' cannot be fetched: {type(error).__name__}: {first_line(error)}; "
            "connect to the network, or give a local file with --set weights=FILE"
        ) from error


def create(timm: ModuleType, name: str, size: int, options: dict[str, Any]) -> Any:
    """Create a network, with this image size if the network has a fixed one."""
    try:
        return timm.create_model(name, img_size=size, **options)
    except TypeError:  # convolutional networks do not have this argument
        return timm.create_model(name, **options)


def load_weights(network: nn.Module, path: Path) -> None:
    """Load a state dict by name, or by order if no name but every shape matches. Its classifier is ignored.

    Raises:
        UsageError: it cannot be read safely, or is of another network.
    """
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch raises anything from OSError to UnpicklingError here
        raise UsageError(f"{path}: not weights, or not safe to read: {first_line(error)}") from error
    state = state.get("state_dict", state)
    own = network.state_dict()
    if set(own) <= set(state):
        network.load_state_dict({key: state[key] for key in own})
        return
    ours = [(key, value) for key, value in own.items()]
    theirs = list(state.values())[: len(ours)]
    if len(theirs) < len(ours) or any(a[1].shape != b.shape for a, b in zip(ours, theirs, strict=True)):
        raise UsageError(
            f"{path}: {len(state)} tensors that match neither by name nor by order and shape; the network has {len(own)}, "
            f"beginning with {next(iter(own))}"
        )
    network.load_state_dict({key: value for (key, _), value in zip(ours, theirs, strict=True)})
