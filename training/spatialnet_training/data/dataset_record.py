"""The record of the data that a run was trained on: where it lies, how it was read, and which image was for what.

`train` writes `dataset.json` and `splits.csv` beside the checkpoint. `build --labelled dataset.json` and `evaluate BUNDLE
dataset.json --split val` then see the same classes and the same splits, whatever was added to the folder since.
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
from spatialnet_training.data.labelled_dataset import VAL, LabelledImages, open_labelled

RECORD, SPLITS_FILE = "dataset.json", "splits.csv"


class DatasetRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `dataset.json` holds.

    Attributes:
        path: of the data, absolute.
        options: how it is read.
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
    record = DatasetRecord(str(path.absolute()), images.options)
    write_durably(folder / RECORD, msgspec.json.encode(record) + b"\n")
    return folder / RECORD


def open_record(path: Path) -> LabelledImages:
    """The images that a record names. One that came later is for validation: nothing was trained on it.

    Raises:
        DataRefused: the record cannot be read, or the data is not where it was.
    """
    record = read_record(path)
    source = Path(record.path)
    if not source.exists():
        raise DataRefused(f"{path}: the data is no longer at {source}; give its folder, zip or table instead of this record")
    images = open_labelled(source, options=record.options)
    try:
        text = (path.parent / SPLITS_FILE).read_text("utf-8", "surrogateescape")
        splits = {row["path"]: row["split"] for row in csv.DictReader(io.StringIO(text))}
    except (OSError, KeyError, csv.Error) as error:
        raise DataRefused(f"{path}: the table of splits beside it cannot be read: {first_line(error)}") from error
    return replace(images, splits=tuple(splits.get(file, VAL) for file in images.files), said=True)


def read_record(path: Path) -> DatasetRecord:
    """What a record says.

    Raises:
        DataRefused: it is not there, or no record.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=DatasetRecord)
    except (OSError, ValueError) as error:
        raise DataRefused(f"{path}: no record of a training run's data: {first_line(error)}") from error
