"""What the labels mean: one table from every data set's classes to the unified land use and the settlement type.

The table itself is `taxonomy.csv`, one row a class, so that it can be read, reviewed and corrected without Python. Merged
classes are those that cannot be told apart across sensors: RSSCN7 has rivers and lakes as one class, hence `water`.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib.resources import files

OBJECTS = (
    "airplane", "bare-soil", "buildings", "cars", "chaparral", "court", "dock", "field", "grass", "mobile-home",
    "pavement", "sand", "sea", "ship", "tanks", "trees", "water",
)  # fmt: skip
"""The 17 object labels that UC Merced (Chaudhuri et al. 2018) and AID (Hua et al. 2019) share."""


@dataclass(frozen=True, slots=True)
class Taxonomy:
    """Classes of each data set, and what each maps to."""

    land_use: dict[tuple[str, str], str]
    settlement: dict[tuple[str, str], str]

    @property
    def data_sets(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(data_set for data_set, _ in self.land_use))

    @property
    def land_use_labels(self) -> tuple[str, ...]:
        return tuple(sorted(set(self.land_use.values())))

    def classes(self, data_set: str) -> tuple[str, ...]:
        """The class names of one data set, in alphabetical order, which is the order of its head's outputs."""
        return tuple(sorted(name for owner, name in self.land_use if owner == data_set))


SETTLEMENT = ("rural", "urban")


def load_taxonomy() -> Taxonomy:
    """Read `taxonomy.csv`."""
    text = files("spatialnet_training").joinpath("taxonomy.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    return Taxonomy(
        land_use={(row["data_set"], row["class"]): row["land_use"] for row in rows},
        settlement={(row["data_set"], row["class"]): row["settlement"] for row in rows},
    )
