"""Taxonomy: maps every data set's classes to the unified land use and the settlement type.

The table is `taxonomy.csv`, one row per class, so that it can be reviewed and corrected without Python. Classes that cannot be
distinguished across sensors are merged: RSSCN7 has rivers and lakes as one class, hence `water`. A class that
maps to nothing (a cloud, sea ice) has empty cells.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

OBJECTS = (
    "airplane", "bare-soil", "buildings", "cars", "chaparral", "court", "dock", "field", "grass", "mobile-home",
    "pavement", "sand", "sea", "ship", "tanks", "trees", "water",
)  # fmt: skip
"""The 17 object labels that UC Merced (Chaudhuri et al. 2018) and AID (Hua et al. 2019) share."""


@dataclass(frozen=True, slots=True)
class Taxonomy:
    """Classes of each data set and their mapping.

    Attributes:
        objects: object labels that follow from a class: 1 present, 0 absent, missing: unknown. For data sets without object
            labels whose images differ from those with object labels.
    """

    land_use: dict[tuple[str, str], str]
    settlement: dict[tuple[str, str], str]
    objects: dict[tuple[str, str], dict[str, float]]

    @property
    def data_sets(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(data_set for data_set, _ in self.land_use))

    @property
    def land_use_labels(self) -> tuple[str, ...]:
        return tuple(sorted(set(self.land_use.values()) - {""}))

    def classes(self, data_set: str) -> tuple[str, ...]:
        """The class names of one data set, in alphabetical order, which is the order of its head's outputs."""
        return tuple(sorted(name for owner, name in self.land_use if owner == data_set))

    def classes_with_land_use(self, data_set: str) -> tuple[str, ...]:
        """As `classes`, without those that have no land use, such as clouds: images of these train no head."""
        return tuple(name for name in self.classes(data_set) if self.land_use[data_set, name])


SETTLEMENT = ("rural", "urban")


def load_taxonomy() -> Taxonomy:
    """Read `taxonomy.csv` and `objects_of_classes.csv`."""
    rows, known = rows_of("taxonomy.csv"), rows_of("objects_of_classes.csv")
    return Taxonomy(
        land_use={(row["data_set"], row["class"]): row["land_use"] for row in rows},
        settlement={(row["data_set"], row["class"]): row["settlement"] for row in rows},
        objects={
            (row["data_set"], row["class"]): known_objects(row["shown"].split(), row["perhaps"].split()) for row in known
        },
    )


def rows_of(table: str) -> list[dict[str, str]]:
    return [*csv.DictReader(files("spatialnet_training.data").joinpath(table).read_text(encoding="utf-8").splitlines())]


def known_objects(shown: Sequence[str], perhaps: Sequence[str]) -> dict[str, float]:
    """Objects that are neither listed as present nor as possible are absent."""
    return {label: float(label in shown) for label in OBJECTS if label not in perhaps}
