"""Registry of the published data sets: files and licences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from spatialnet_edge.core.errors import DataRefused, UsageError
from spatialnet_edge.core.spec import ModelSpec
from spatialnet_training.data.measured_sets import MEASURED, head_of

FILES = {"eurosat": "eurosat_rgb.zip", "ucmerced": "ucmerced.zip", "rsscn7": "rsscn7.zip", "aid": "aid_multilabel.zip"}
"""Data set to its file below the data root."""

TERMS = {
    "eurosat": "EuroSAT (MIT)",
    "ucmerced": "UC Merced (public domain)",
    "rsscn7": "RSSCN7 (for research)",
    "aid": "AID (for research)",
    "nwpu_resisc45": "NWPU-RESISC45 (for research)",
}
"""Data set to its title and the licence of its images."""


GROUND_SIDE: dict[str, tuple[float, float]] = {
    "eurosat": (640.0, 640.0),  # 64 pixels of 10 m
    "ucmerced": (78.0, 78.0),  # 256 pixels of 1 foot
    "aid": (300.0, 4800.0),  # 600 pixels of 0.5 to 8 m
    "nwpu_resisc45": (51.2, 7680.0),  # 256 pixels of 0.2 to 30 m
}
"""Data set to the metres on the ground along a side of its images, smallest and largest, as its authors state them. RSSCN7 is not
here: its authors state no scale."""


def data_sets(root: Path, only: str = "") -> dict[str, Path]:
    """The paths of data sets by name.

    Args:
        only: names, comma-separated, also those of sets with measured bands; empty: all colour sets.

    Raises:
        UsageError: no such data set.
        DataRefused: its file is missing.
    """
    names = [name.strip() for name in only.split(",") if name.strip()] or [*FILES]
    files = FILES | {name: row.file for name, row in MEASURED.items()}
    if unknown := [name for name in names if name not in files]:
        raise UsageError(f"no data set '{unknown[0]}'; available: {', '.join(files)}")
    paths = {name: root / files[name] for name in names}
    for path in paths.values():
        if not path.exists():
            raise DataRefused(f"{path}: no such file; give the folder that holds the data sets with --data-root")
    return paths


def learnt(specs: Sequence[ModelSpec]) -> list[str]:
    """The data sets for which every one of these models has a head."""
    heads = [{head.name for head in spec.heads} for spec in specs]
    measured = [name for name, row in MEASURED.items() if row.head is not None]
    return [name for name in (*FILES, *measured) if all(head_of(name) in each for each in heads)]
