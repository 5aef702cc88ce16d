"""Classification data sets of torchgeo: `torchgeo:NAME?root=FOLDER`, read by that library from a folder that is already there.

torchgeo:EuroSAT?root=/data/eurosat&bands=B04,B03,B02        torchgeo:UCMerced?root=/data/ucmerced
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.core.errors import DataRefused, MissingExtra, UsageError, first_line
from spatialnet_training.data.dataset_options import DatasetOptions
from spatialnet_training.data.image_store import FetchedImages, Row, StoredImages, encoded
from spatialnet_training.data.splits import TEST, TRAIN, VAL
from spatialnet_training.data.tables import PATH, SPLIT

SCHEME = "torchgeo:"

LOOKED_AT = 16
"""So many images tell whether a data set has 8 bits."""


def is_torchgeo(path: Path) -> bool:
    """Whether a path is no path but names a data set of torchgeo."""
    return str(path).startswith(SCHEME)


def open_torchgeo(path: Path, options: DatasetOptions) -> StoredImages:
    """The images and labels of a data set with its own splits. One label an image gives a column `label`; several, one column of 0
    and 1 for each class.

    Raises:
        MissingExtra: torchgeo is not installed.
        UsageError: it has no such data set, or the address has no root.
        DataRefused: the files are not there, or it is no data set of labelled images.
    """
    name, _, query = str(path).removeprefix(SCHEME).partition("?")
    settings = dict(parse_qsl(query))
    root = settings.pop("root", None)
    if root is None:
        raise UsageError(f"{path}: names no folder; give torchgeo:{name or 'NAME'}?root=FOLDER")
    made = dataset_class(path, name)
    arguments: dict[str, Any] = {"root": root, **{key: listed(value) for key, value in settings.items()}}
    parts: dict[str, Any] = {}
    for split in (TRAIN, VAL, TEST) if "split" in inspect.signature(made).parameters else ("",):
        try:
            parts[split] = made(**arguments, **({"split": split} if split else {}))
        except (AssertionError, ValueError):
            if split == TRAIN:
                raise
        except Exception as error:  # its own DatasetNotFoundError, or what it meets in the files
            raise DataRefused(f"{path}: torchgeo cannot open it: {first_line(error)}") from error
    rows = [row for split, part in parts.items() for row in rows_of(path, split, part)]

    levels = has_levels(next(iter(parts.values())))

    def fetch(names: Sequence[str]) -> Iterator[bytes]:
        for each in names:
            split, _, index = each.rpartition("/")
            pixels = pixels_of(parts["" if split == "all" else split][int(index)]["image"])
            yield encoded(np.rint(pixels).clip(0, 255).astype(np.uint8) if levels else pixels)

    return StoredImages(FetchedImages(path, fetch), rows, name)


def dataset_class(path: Path, name: str) -> Any:
    """The class of a data set.

    Raises:
        MissingExtra: torchgeo is not installed.
        UsageError: it has no such data set.
    """
    # Imported here: it needs torch, and a device reads labelled images without torch.
    from spatialnet_training.networks.timm_backbone import import_timm

    import_timm()  # torchgeo imports torchvision, which a CPU-only torch needs help with
    try:
        import torchgeo.datasets as torchgeo  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "torchgeo") from error
    made = getattr(torchgeo, name, None)
    if not (inspect.isclass(made) and issubclass(made, torchgeo.NonGeoDataset)):
        raise UsageError(
            f"{path}: torchgeo has no data set of separate images called '{name}'; for example torchgeo:EuroSAT?root=FOLDER"
        )
    return made


def listed(value: str) -> str | tuple[str, ...]:
    """Words that commas separate as a tuple; one word as it is."""
    return tuple(value.split(",")) if "," in value else value


def rows_of(path: Path, split: str, part: Any) -> list[Row]:
    """One row for each image of a split.

    Raises:
        DataRefused: its samples have no label.
    """
    named = list(getattr(part, "classes", []))
    rows: list[Row] = []
    for index, label in enumerate(labels_of(path, part)):
        row = {PATH: f"{split or 'all'}/{index}", **({SPLIT: split} if split else {})}
        values = np.asarray(label)
        if values.ndim == 0:
            row["label"] = str(named[int(values)]) if named else str(int(values))
        else:
            names = named if len(named) == len(values) else [f"class_{number}" for number in range(len(values))]
            row |= {str(each): str(int(value)) for each, value in zip(names, values, strict=True)}
        rows.append(row)
    return rows


def labels_of(path: Path, part: Any) -> Iterator[Any]:
    """The label of each sample; without decoding the images where the data set is an ImageFolder.

    Raises:
        DataRefused: a sample has none.
    """
    targets = getattr(part, "targets", None)
    if targets is not None and len(targets) == len(part):
        yield from targets
        return
    for index in range(len(part)):
        sample = part[index]
        if "label" not in sample or "image" not in sample:
            raise DataRefused(f"{path}: its samples have {', '.join(sample)}; expected image and label, as for classification")
        yield sample["label"]


def has_levels(part: Any) -> bool:
    """Whether the images have levels of 0 to 255, by the first of them: torchgeo gives floats, whatever was in the files."""
    first = [pixels_of(part[index]["image"]) for index in range(min(len(part), LOOKED_AT))]
    return all(float(each.min()) >= 0 for each in first) and 1 < max(float(each.max()) for each in first) <= 255


def pixels_of(image: Any) -> NDArray[Any]:
    """torchgeo's image, a tensor `[bands, H, W]`, as an array `[H, W, bands]`."""
    return np.ascontiguousarray(np.asarray(image).transpose(1, 2, 0))
