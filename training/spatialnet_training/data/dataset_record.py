"""Record of a run's data set: its path, its options, and the split of each image.

`train` writes `dataset.json` and `splits.csv` next to the checkpoint. `build --labelled dataset.json` and `evaluate BUNDLE
dataset.json --split val` then use the same classes and splits, even if files were added to the folder meanwhile.
"""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import msgspec

from spatialnet_edge.core.atomic_io import write_durably
from spatialnet_edge.core.errors import DataRefused, first_line
from spatialnet_training.data.dataset_options import DatasetOptions
from spatialnet_training.data.foreign_formats import is_address
from spatialnet_training.data.labelled_dataset import VAL, LabelledImages, open_labelled

RECORD, SPLITS_FILE = "dataset.json", "splits.csv"


class DatasetRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Content of `dataset.json`.

    Attributes:
        path: absolute path of the data.
        options: for reading it.
    """

    path: str
    options: DatasetOptions


def write_record(folder: Path, path: Path, images: LabelledImages) -> Path:
    """Write the record of a data set and of every image's split; returns the path of `dataset.json`."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["path", "split"])
    writer.writerows(zip(images.files, images.splits, strict=True))
    write_durably(folder / SPLITS_FILE, table.getvalue().encode("utf-8", "surrogateescape"))
    record = DatasetRecord(str(path if is_address(path) else path.absolute()), images.options)
    write_durably(folder / RECORD, msgspec.json.encode(record) + b"\n")
    return folder / RECORD


def open_record(path: Path) -> LabelledImages:
    """Open the images of a record. Images added later are for validation, because no training used them.

    Raises:
        DataRefused: the record cannot be read, or the data were moved.
    """
    record = read_record(path)
    source = Path(record.path)
    if not source.exists() and not is_address(source):
        raise DataRefused(f"{path}: the data are no longer at {source}; give its folder, zip or table instead of this record")
    images = open_labelled(source, options=record.options)
    try:
        text = (path.parent / SPLITS_FILE).read_text("utf-8", "surrogateescape")
        splits = {row["path"]: row["split"] for row in csv.DictReader(io.StringIO(text))}
    except (OSError, KeyError, csv.Error) as error:
        raise DataRefused(f"{path}: the table of splits next to it cannot be read: {first_line(error)}") from error
    return replace(images, splits=tuple(splits.get(file, VAL) for file in images.files), said=True)


def read_record(path: Path) -> DatasetRecord:
    """Read a record.

    Raises:
        DataRefused: it does not exist, or is not a record.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=DatasetRecord)
    except (OSError, ValueError) as error:
        raise DataRefused(f"{path}: not a record of a training run's data: {first_line(error)}") from error
