"""Training-state files: written atomically, and read without running code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from spatialnet_edge.core.errors import RunError, first_line


def save_checkpoint(path: Path, state: dict[str, Any], previous: Path | None = None) -> None:
    """Write tensors and plain values atomically: an existing file is kept until the new one is complete.

    Args:
        previous: new path of an existing file; None: replace it.

    Raises:
        RunError: it cannot be written, for instance on a full disk; no partial file is left.
    """
    partial = path.with_suffix(".partial")
    try:
        with partial.open("wb") as file:  # then the operating system's error is the context of torch's
            torch.save(state, file)
        if previous is not None and path.is_file():
            path.replace(previous)
        partial.replace(path)
    except (OSError, RuntimeError) as error:  # torch's writer raises RuntimeError on a full disk
        why = error.__context__ if isinstance(error.__context__, OSError) else error
        raise RunError(
            f"{path}: the checkpoint cannot be written: {first_line(why)}; free some space and run the same command "
            "again to resume from the last checkpoint"
        ) from error
    finally:
        partial.unlink(missing_ok=True)  # also after Ctrl-C


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """Read a file of `save_checkpoint`; None if it is missing or damaged."""
    if not path.is_file():
        return None
    try:
        state = torch.load(path, weights_only=True, map_location=device)
    except Exception:  # torch raises anything from OSError to UnpicklingError for a damaged file
        return None
    return state if isinstance(state, dict) else None
