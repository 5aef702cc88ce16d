"""A checkpoint on disk: `model.safetensors` and `config.json`, in the layout of a model hub's repository.

Weights are only tensors and the configuration is JSON, so reading a checkpoint runs no code. The `.pt` files of earlier
versions can still be read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import safetensors.torch
import torch
from torch import Tensor

from spatialnet_edge.bundle.manifest import Provenance
from spatialnet_edge.core.atomic_io import write_durably
from spatialnet_edge.core.errors import Refused, first_line
from spatialnet_edge.core.spec import KNOWN, ModelSpec
from spatialnet_training.networks.checkpoint_paths import CONFIG, NETWORK, folder_of
from spatialnet_training.networks.image_temperature import IMAGE_TEMPERATURE
from spatialnet_training.networks.model import SpatialNet

FORMAT = "spatialnet-network-3"
PT_FORMAT = "spatialnet-network-2"
"""The metadata of an earlier version's `network.pt`."""
HALF_FROM = 8192
"""Smallest matrix, in elements, that `half` stores as float16. Norms, biases, positions and depthwise kernels stay float32."""


class CheckpointConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`config.json`.

    Attributes:
        model_type, library_name: identify the network for tools of a model hub.
        backbone: a name for `networks.backbones.build_backbone`.
        spec: the input, the heads, their labels and calibration.
    """

    format: Literal["spatialnet-network-3"] = FORMAT
    model_type: str = "spatialnet"
    library_name: str = "spatialnet-edge"
    backbone: str
    spec: ModelSpec
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Content of a checkpoint: the configuration of the network, and its weights by name."""

    config: CheckpointConfig
    weights: dict[str, Tensor]


def save_network(
    folder: Path, network: SpatialNet, backbone: str, spec: ModelSpec, provenance: Provenance, half: bool = False
) -> None:
    """Write a checkpoint for `load_network`. Each of its two files is replaced atomically.

    Args:
        folder: created if missing.
        half: store large matrices as float16, for half the size. Check first that the predictions stay the same.
    """
    weights = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    if half:
        weights = {name: halved(value) for name, value in weights.items()}
    folder.mkdir(parents=True, exist_ok=True)
    config = CheckpointConfig(backbone=backbone, spec=spec, provenance=provenance)
    write_durably(folder / CONFIG, msgspec.json.format(msgspec.json.encode(config)) + b"\n")
    write_durably(folder / NETWORK, safetensors.torch.save(weights, {"format": "pt"}))


def halved(value: Tensor) -> Tensor:
    """A large float32 matrix as float16; any other tensor as it is."""
    return value.half() if value.ndim > 1 and value.numel() >= HALF_FROM and value.dtype == torch.float32 else value


def load_network(path: Path) -> tuple[SpatialNet, ModelSpec, Provenance]:
    """Read a checkpoint and build its network, in float32 and in evaluation mode.

    Args:
        path: the folder of a checkpoint, its `model.safetensors`, or a `network.pt` of an earlier version.

    Raises:
        Refused: missing, damaged, or not a network of this format.
        MissingExtra: its backbone needs timm, which is not installed.
    """
    checkpoint = read(path)
    spec = checkpoint.config.spec
    outputs = {head.name: head.width for head in spec.heads}
    network = SpatialNet(
        checkpoint.config.backbone,
        outputs,
        spec.input.height,
        spec.input.groups,
        known=known_units(checkpoint.weights) if spec.known is not None else 0,
        image_temperature=any(name.startswith(f"{IMAGE_TEMPERATURE}.") for name in checkpoint.weights),
    )
    try:
        network.load_state_dict(checkpoint.weights)
    except RuntimeError as error:
        raise Refused(f"{path}: its weights do not match its {CONFIG}: {first_line(error)}") from error
    return network.eval(), spec, checkpoint.config.provenance


def known_units(weights: Mapping[str, Tensor]) -> int:
    """The hidden units of the head `known`; 1 if it is missing, so that loading the weights says so."""
    bias = weights.get(f"{KNOWN}.layers.0.bias")
    return 1 if bias is None else len(bias)


def load_spec(path: Path) -> ModelSpec:
    """Read the input and the heads of a checkpoint, without building its network.

    Raises:
        Refused: as `load_network`.
    """
    return load_checkpoint_config(path).spec


def load_checkpoint_config(path: Path) -> CheckpointConfig:
    """Read `config.json` of a checkpoint. Weights are not read, except from a `.pt` of an earlier version.

    Raises:
        Refused: as `load_network`.
    """
    return read_pt(path).config if path.suffix == ".pt" else read_config(folder_of(path))


def read(path: Path) -> Checkpoint:
    """Read a checkpoint's files.

    Raises:
        Refused: as `load_network`.
    """
    if path.suffix == ".pt":
        return read_pt(path)
    folder = folder_of(path)
    config = read_config(folder)
    try:
        weights = safetensors.torch.load((folder / NETWORK).read_bytes())
    except Exception as error:  # OSError, SafetensorError, or an error from its JSON header
        raise Refused(f"{folder / NETWORK}: no readable weights: {first_line(error)}") from error
    return Checkpoint(config, weights)


def read_config(folder: Path) -> CheckpointConfig:
    """Read `config.json` of a checkpoint's folder. Raises Refused."""
    path = folder / CONFIG
    try:
        return msgspec.json.decode(path.read_bytes(), type=CheckpointConfig)
    except OSError as error:
        raise Refused(
            f"{path}: {error.strerror}; a checkpoint is a folder with {NETWORK} and {CONFIG}, as written by "
            "'spatialnet-edge train'"
        ) from error
    except ValueError as error:  # not JSON, another format, or a missing field
        raise Refused(f"{path}: not the configuration of a checkpoint of this version ({FORMAT}): {error}") from error


def read_pt(path: Path) -> Checkpoint:
    """Read a `network.pt` of an earlier version: only tensors and plain values, no code is run. Raises Refused."""
    try:
        state: Any = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch raises anything from OSError to UnpicklingError here
        raise Refused(f"{path}: not a checkpoint, or not safe to read: {first_line(error)}") from error
    if not isinstance(state, dict) or state.get("format") != PT_FORMAT:
        raise Refused(
            f"{path}: not a checkpoint of an earlier version ({PT_FORMAT}); 'spatialnet-edge train' writes {NETWORK}"
        )
    config = CheckpointConfig(
        backbone=state["backbone"],
        spec=msgspec.json.decode(state["spec"], type=ModelSpec),
        provenance=msgspec.json.decode(state["provenance"], type=Provenance),
    )
    return Checkpoint(config, state["weights"])
