"""Checkpoints on disk: written whole or not at all, and read without running code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from spatialnet_edge.core.errors import RunError, first_line


def save_checkpoint(path: Path, state: dict[str, Any], previous: Path | None = None) -> None:
    """Write tensors and plain values, atomically: the file that was there stays until the new one is complete.

    Args:
        previous: where to move the file that was there; None to replace it.

    Raises:
        RunError: it cannot be written, as on a full disk; nothing half written is left.
    """
    partial = path.with_suffix(".partial")
    try:
        torch.save(state, partial)
        if previous is not None and path.is_file():
            path.replace(previous)
        partial.replace(path)
    except (OSError, RuntimeError) as error:  # torch's writer raises RuntimeError on a full disk
        partial.unlink(missing_ok=True)
        raise RunError(
            f"{path}: the checkpoint cannot be written: {first_line(error)}; free some space and give the same command again, "
            f"which goes on from the last one"
        ) from error


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """What `save_checkpoint` wrote; None where there is no file, or one that is damaged."""
    if not path.is_file():
        return None
    try:
        state = torch.load(path, weights_only=True, map_location=device)
    except Exception:  # torch raises anything from OSError to UnpicklingError for a damaged file
        return None
    return state if isinstance(state, dict) else None
