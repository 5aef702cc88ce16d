"""A folder that the library `datasets` wrote with `save_to_disk` (Hugging Face), read by that library."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from spatialnet_edge.core.errors import DataRefused, MissingExtra, first_line
from spatialnet_training.data.dataset_options import DatasetOptions
from spatialnet_training.data.file_tree import content
from spatialnet_training.data.image_store import FetchedImages, Row, StoredImages
from spatialnet_training.data.splits import split_name
from spatialnet_training.data.table_formats import cell_of
from spatialnet_training.data.tables import PATH, SPLIT

WHOLE = "all"
"""Stands before the numbers of a data set that has no splits."""


def is_hugging_face(path: Path) -> bool:
    """Whether a folder holds a saved `Dataset` or `DatasetDict`."""
    return (path / "dataset_dict.json").is_file() or all(
        (path / each).is_file() for each in ("state.json", "dataset_info.json")
    )


def open_hugging_face(path: Path, options: DatasetOptions) -> StoredImages:
    """The images and labels of a saved data set. A `ClassLabel` gives its names; columns that are no single values are left out.

    Raises:
        MissingExtra: the library `datasets` is not installed.
        DataRefused: it cannot be read, or has no column of images.
    """
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise MissingExtra("datasets", "huggingface") from error
    try:
        loaded: Any = datasets.load_from_disk(str(path))
    except Exception as error:  # whatever the library meets in the files
        raise DataRefused(f"{path}: the library datasets cannot read it: {first_line(error)}") from error
    split_up = isinstance(loaded, datasets.DatasetDict)
    parts: dict[str, Any] = {str(name): part for name, part in loaded.items()} if split_up else {WHOLE: loaded}
    rows: list[Row] = []
    encoded: dict[str, tuple[Any, str]] = {}
    notes: dict[str, None] = {}
    for part, data in parts.items():
        column = image_column(path, data.features, datasets)
        labels = {name: kind for name, kind in data.features.items() if name != column and is_single(kind, datasets)}
        left_out = [name for name in data.features if name not in labels and name != column]
        if left_out:
            notes[f"columns that are no single values are not used: {', '.join(left_out)}"] = None
        split = {} if part == WHOLE else {SPLIT: split_name(part)}
        for index, each in enumerate(data.select_columns(list(labels))):
            cells = {own_name(name): in_words(kind, each[name]) for name, kind in labels.items()}
            rows.append({PATH: f"{part}/{index}", **split, **cells})
        encoded[part] = (data.cast_column(column, datasets.Image(decode=False)).select_columns([column]), column)

    def fetch(names: Sequence[str]) -> Iterator[bytes]:
        for name in names:
            part, _, index = name.rpartition("/")
            data, column = encoded[part]
            yield bytes_of(data[int(index)][column])

    return StoredImages(FetchedImages(path, fetch), rows, path.name, notes=tuple(notes))


def image_column(path: Path, features: Mapping[str, Any], datasets: Any) -> str:
    """The only column of images.

    Raises:
        DataRefused: there is none, or several.
    """
    found = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
    if len(found) != 1:
        raise DataRefused(
            f"{path}: {len(found)} columns of images among {', '.join(features)}; expected one column of type datasets.Image"
        )
    return found[0]


def is_single(kind: Any, datasets: Any) -> bool:
    """Whether a column holds one word, number or truth value for each image."""
    return isinstance(kind, datasets.ClassLabel | datasets.Value)


def own_name(name: str) -> str:
    """A column's name; one that has a meaning of its own in our tables gets an underscore."""
    return f"{name}_" if name in (PATH, SPLIT) else name


def in_words(kind: Any, value: Any) -> str:
    """A value as a CSV would have it; a class by its name, nothing for a missing label (-1)."""
    if value is None or not hasattr(kind, "int2str"):
        return cell_of(value)
    return "" if value < 0 else str(kind.int2str(value))


def bytes_of(value: Mapping[str, Any] | None) -> bytes:
    """The encoded image of a cell; empty where there is none."""
    if value is None:
        return b""
    return value["bytes"] or content(lambda: Path(value["path"]).read_bytes())
