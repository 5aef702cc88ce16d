"""Tables of labelled images in Parquet and COCO format."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import Any

from spatialnet_edge.core.errors import DataRefused, MissingExtra, first_line
from spatialnet_training.data.tables import PATH, Table, check_table, read_table

COCO_KEYS = frozenset({"images", "annotations", "categories"})


def is_table(path: Path) -> bool:
    """Whether a path is a table of images, by its suffix and, for JSON, by its content."""
    suffix = path.suffix.lower()
    return suffix in (".csv", ".parquet") or (suffix == ".json" and is_coco(path))


def rows_of(path: Path) -> Table:
    """The rows of a CSV, a Parquet file or COCO annotations, in the format of `read_table`.

    Raises:
        DataRefused: it cannot be read, or lists an image that does not exist.
        MissingExtra: the library for this format is not installed.
    """
    if path.suffix.lower() == ".csv":
        return read_table(path)
    return read_parquet(path) if path.suffix.lower() == ".parquet" else read_coco(path)


def read_parquet(path: Path) -> Table:
    """The rows of a Parquet file with a column `path`, relative to it; cells as text, missing ones empty."""
    try:
        from pyarrow import ArrowException, parquet
    except ModuleNotFoundError as error:
        raise MissingExtra("pyarrow", "tables") from error
    try:
        rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    except (OSError, ArrowException) as error:
        raise DataRefused(f"{path}: not a readable Parquet file: {first_line(error)}") from error
    table = [{str(name): cell_of(value) for name, value in row.items()} for row in rows]
    check_table(path, table)
    return table


def cell_of(value: Any) -> str:
    """A value in CSV notation: integers without a decimal point, booleans as 0 and 1, empty if missing."""
    if value is None or (isinstance(value, float) and isnan(value)):
        return ""
    if isinstance(value, bool):
        return str(int(value))
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def is_coco(path: Path) -> bool:
    """Whether a JSON file holds COCO's annotations."""
    try:
        tree = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(tree, dict) and tree.keys() >= COCO_KEYS


def read_coco(path: Path) -> Table:
    """COCO annotations as image-level labels: one 0/1 column per category.

    `file_name` is searched next to the file, in the folder `images`, and in the folder with the file's own name. Boxes and
    outlines are not used: an image has a category if any of its annotations has it (Lin et al. 2014, arXiv 1405.0312).

    Raises:
        DataRefused: the file is not in COCO format, or lists an image that does not exist.
    """
    try:
        tree = json.loads(path.read_bytes())
        names = {each["id"]: str(each["name"]) for each in tree["categories"]}
        shown: dict[Any, set[str]] = {each["id"]: set() for each in tree["images"]}
        for each in tree["annotations"]:
            shown[each["image_id"]].add(names[each["category_id"]])
        files = {each["id"]: str(each["file_name"]) for each in tree["images"]}
    except (OSError, ValueError) as error:
        raise DataRefused(f"{path}: not readable JSON: {first_line(error)}") from error
    except (KeyError, TypeError) as error:
        raise DataRefused(
            f"{path}: not COCO annotations: {first_line(error)} is missing; expected images with id and file_name, "
            f"categories with id and name, annotations with image_id and category_id"
        ) from error
    labels = list(names.values())
    if len(set(labels)) < len(labels):
        twice = next(name for name in labels if labels.count(name) > 1)
        raise DataRefused(f"{path}: two categories are called '{twice}'; rename one of them")
    table = [coco_row(path, files[key], labels, shown[key]) for key in files]
    check_table(path, table)
    return table


def coco_row(path: Path, file: str, labels: Sequence[str], shown: set[str]) -> dict[str, str]:
    places: Mapping[Path, None] = dict.fromkeys([Path(), Path("images"), Path(path.stem)])
    found = next((place for place in places if (path.parent / place / file).is_file()), Path())
    return {PATH: (found / file).as_posix(), **{label: str(int(label in shown)) for label in labels}}
