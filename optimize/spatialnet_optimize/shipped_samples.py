"""The shipped labelled sample sets: held-out training images, with their licence."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def shipped_samples() -> tuple[Path, ...]:
    """One zip per data set, ordered by name."""
    return tuple(sorted(Path(str(files("spatialnet_optimize"))).joinpath("samples").glob("*.zip")))
