"""Checkpoint paths: shipped ones by name, a user's own by path. Does not import torch."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from spatialnet_edge.core.errors import UsageError
from spatialnet_edge.core.output_paths import to_be_written

NETWORK = "model.safetensors"
"""File name of a checkpoint's weights; a run writes it last."""
CONFIG = "config.json"
WEIGHTS = Path(str(files("spatialnet_training"))) / "weights"
"""The folder of the shipped models' checkpoints, one folder each."""
ALIASES = {"student": "spatialnet-s", "student-160": "spatialnet-m"}
"""Former names of the shipped checkpoints; accepted in this release."""


def located(name: str) -> Path:
    """Find a checkpoint: a shipped one by its name, such as `spatialnet-s`, or a path.

    Raises:
        UsageError: there is no such checkpoint.
    """
    shipped = WEIGHTS / ALIASES.get(name, name)
    path = shipped if Path(name).name == name and is_checkpoint(shipped) else Path(name)
    if not is_checkpoint(path):
        names = ", ".join(sorted(each.parent.name for each in WEIGHTS.glob(f"*/{NETWORK}")))
        raise UsageError(
            f"{path}: no such checkpoint; give the folder of a training run, or the name of a shipped one ({names})"
        )
    return path


def is_checkpoint(path: Path) -> bool:
    """Whether a path is a checkpoint's folder, its weights, or a `.pt` file; the content is not read."""
    return (path / NETWORK).is_file() or (path.suffix in (".safetensors", ".pt") and path.is_file())


def run_name(path: Path) -> str:
    """The name of a checkpoint: its folder's name, or the name of a `.pt` file with a non-standard name."""
    if path.name in (NETWORK, "network.pt"):
        return path.absolute().parent.name
    return path.stem if path.suffix == ".pt" else path.absolute().name


def folder_of(path: Path) -> Path:
    return path.parent if path.name == NETWORK else path


def checkpoint_to_be_written(folder: Path) -> Path:
    """Create the folder of a checkpoint and check that it is writable; see `to_be_written`."""
    to_be_written(folder / NETWORK)
    return folder
