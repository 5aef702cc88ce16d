"""A trained network on disk: weights, shape and contract, without pickled code."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec
import torch

from spatialnet_edge.bundle.manifest import Provenance
from spatialnet_edge.core.errors import Refused, UsageError, first_line
from spatialnet_edge.core.spec import ModelSpec
from spatialnet_training.networks.model import SpatialNet

FORMAT = "spatialnet-network-2"
NETWORK = "network.pt"
"""What every run calls the checkpoint that it ends with."""
WEIGHTS = Path(str(files("spatialnet_training"))) / "weights"
"""The checkpoints that the repository has; they are not in the wheel."""


def located(name: str) -> Path:
    """The checkpoint that is called so: one of the repository's by its name, such as `student-160`, or a path.

    Raises:
        UsageError: there is none.
    """
    shipped = WEIGHTS / f"{name}.pt"
    path = shipped if Path(name).name == name and shipped.is_file() else Path(name)
    if not path.is_file():
        names = ", ".join(each.stem for each in sorted(WEIGHTS.glob("*.pt"))) or "none outside the repository"
        raise UsageError(f"{path}: no such checkpoint; give the path of a network.pt, or the name of a shipped one ({names})")
    return path


def save_network(path: Path, network: SpatialNet, backbone: str, spec: ModelSpec, provenance: Provenance) -> None:
    """Write a checkpoint that `load_network` reads; atomic."""
    state = {
        "format": FORMAT,
        "backbone": backbone,
        "spec": msgspec.json.encode(spec).decode(),
        "provenance": msgspec.json.encode(provenance).decode(),
        "weights": network.state_dict(),
    }
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def load_network(path: Path) -> tuple[SpatialNet, ModelSpec, Provenance]:
    """Read a checkpoint; tensors and plain values only, no code is run.

    Raises:
        Refused: missing, damaged, or not a network of this format.
        MissingExtra: its backbone needs timm, which is not installed.
    """
    state = read(path)
    spec = msgspec.json.decode(state["spec"], type=ModelSpec)
    network = SpatialNet(state["backbone"], {t.name: t.width for t in spec.heads}, spec.input.height, spec.input.groups)
    network.load_state_dict(state["weights"])
    return network.eval(), spec, msgspec.json.decode(state["provenance"], type=Provenance)


def load_spec(path: Path) -> ModelSpec:
    """A checkpoint's contract alone, without building its network.

    Raises:
        Refused: as `load_network`.
    """
    return msgspec.json.decode(read(path)["spec"], type=ModelSpec)


def run_name(path: Path) -> str:
    """What a checkpoint is called: a run's `network.pt` by its folder, even if the path omits that; others by their name."""
    return path.absolute().parent.name if path.name == NETWORK else path.stem


def read(path: Path) -> dict[str, Any]:
    """What `save_network` wrote; raises Refused for anything else."""
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch raises anything from OSError to UnpicklingError here
        raise Refused(f"{path}: not a checkpoint that can be read safely: {first_line(error)}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise Refused(f"{path}: not a checkpoint of this version ({FORMAT}); 'spatialnet-edge train' writes one as network.pt")
    return state
