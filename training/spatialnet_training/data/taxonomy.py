"""What the labels mean: one table from every data set's classes to the unified land use and the settlement type.

The table itself is `taxonomy.csv`, one row a class, so that it can be read, reviewed and corrected without Python. Merged
classes are those that cannot be told apart across sensors: RSSCN7 has rivers and lakes as one class, hence `water`. A class that
is none of them (a cloud, sea ice) has empty cells.
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


SHARED_HEADS_ONLY = frozenset({"nwpu_resisc45"})
"""Data sets that teach the heads that all sets share, and have no head of their own."""


@dataclass(frozen=True, slots=True)
class Taxonomy:
    """Classes of each data set, and what each maps to.

    Attributes:
        objects: what is known of the objects in every image of a class, from what the class means: 1 shown, 0 absent, others open.
            For sets whose images nobody labelled with objects, and that look unlike those that somebody did.
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
    """What is neither shown nor perhaps there is absent."""
    return {label: float(label in shown) for label in OBJECTS if label not in perhaps}
