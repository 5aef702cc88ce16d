"""The labelled sample sets that come with the package: held-out training images, with their licence beside them."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def shipped_samples() -> tuple[Path, ...]:
    """A zip for each data set, in the order of their names."""
    return tuple(sorted(Path(str(files("spatialnet_optimize"))).joinpath("samples").glob("*.zip")))
