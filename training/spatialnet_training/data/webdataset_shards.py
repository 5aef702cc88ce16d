"""Shards of WebDataset: tar files in which `KEY.jpg` and `KEY.cls` or `KEY.json` belong together, read by that library."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from spatialnet_edge.core.errors import DataRefused, MissingExtra, first_line
from spatialnet_edge.core.still_decoder import SUFFIXES
from spatialnet_training.data.dataset_options import DatasetOptions
from spatialnet_training.data.file_tree import Unused
from spatialnet_training.data.image_store import FetchedImages, Row, StoredImages
from spatialnet_training.data.splits import known_split
from spatialnet_training.data.table_formats import cell_of
from spatialnet_training.data.tables import PATH, SPLIT

LABEL_KEYS = {"cls": "label", "txt": "text", "label": "label"}
"""Keys of a sample that hold one label, and the column that it becomes."""

WORD = re.compile(r"[A-Za-z]+")


def is_webdataset(path: Path) -> bool:
    """Whether a path is a tar file, or a folder that has tar files at its top or in folders of splits."""
    return path.suffix.lower() == ".tar" or (path.is_dir() and bool(shards_of(path)))


def shards_of(path: Path) -> list[Path]:
    """The tar files of a data set, in order."""
    if path.is_file():
        return [path]
    return sorted(each for pattern in ("*.tar", "*/*.tar") for each in path.glob(pattern) if each.is_file())


def open_webdataset(path: Path, options: DatasetOptions) -> StoredImages:
    """The images and labels of the shards. A shard's split is the first word of its name (`train-0003.tar`), or its folder's name.

    Raises:
        MissingExtra: the library webdataset is not installed.
        DataRefused: a shard is no tar file of samples, or some shards name a split and others do not.
    """
    shards = shards_of(path)
    splits = {shard: split_of(shard, path) for shard in shards}
    if any(splits.values()) and not all(splits.values()):
        unsaid = next(shard for shard in shards if not splits[shard])
        raise DataRefused(f"{path}: {unsaid.name} names no split, and other shards do; call it train-….tar or val-….tar")
    rows: list[Row] = []
    where: dict[str, Path] = {}
    unused: list[Unused] = []
    for shard in shards:
        for name, sample in samples_of(shard, path):
            if image_key(sample) is None:
                unused.append(Unused(name, "a sample without an image"))
                continue
            where[name], split = shard, splits[shard]
            rows.append({PATH: name, **({SPLIT: split} if split else {}), **labels_of(name, sample)})
    columns = dict.fromkeys(column for row in rows for column in row)
    complete = [{column: row.get(column, "") for column in columns} for row in rows]

    def fetch(names: Sequence[str]) -> Iterator[bytes]:
        return images_of(names, where, path)

    return StoredImages(FetchedImages(path, fetch), complete, path.stem, unused=tuple(unused))


def images_of(names: Sequence[str], where: Mapping[str, Path], path: Path) -> Iterator[bytes]:
    """The encoded images of these samples. A shard is read once for each stretch of names that follow each other in it."""
    for shard, stretch in groupby(names, where.__getitem__):
        asked = list(stretch)
        wanted = set(asked)
        found: dict[str, bytes] = {}
        for name, sample in samples_of(shard, path):
            if name in wanted and (key := image_key(sample)) is not None:
                found[name] = sample[key]
        yield from (found.get(name, b"") for name in asked)


def split_of(shard: Path, path: Path) -> str | None:
    """The split that a shard's name or folder says."""
    word = WORD.match(shard.stem)
    split = known_split(word[0]) if word else None
    return split or (known_split(shard.parent.name) if shard.parent != path else None)


def shard_name(shard: Path, path: Path) -> str:
    return shard.name if path.is_file() else shard.relative_to(path).as_posix()


def samples_of(shard: Path, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The samples of a shard with their names, `SHARD/KEY`.

    Raises:
        MissingExtra: the library webdataset is not installed.
        DataRefused: not a tar file that can be read.
    """
    try:
        from webdataset.tariterators import group_by_keys, tar_file_iterator
    except ModuleNotFoundError as error:
        raise MissingExtra("webdataset", "webdataset") from error
    try:
        with shard.open("rb") as stream:  # the library's own opener leaves files open
            members: Any = tar_file_iterator(stream)  # type: ignore[arg-type]  # its stub names the wrong type
            for sample in group_by_keys({**member, "__url__": shard.name} for member in members):
                yield f"{shard_name(shard, path)}/{sample['__key__']}", sample
    except Exception as error:  # whatever the library meets in the file
        raise DataRefused(f"{shard}: the library webdataset cannot read it: {first_line(error)}") from error


def image_key(sample: Mapping[str, Any]) -> str | None:
    """The key under which a sample holds its image."""
    return next((key for key in sample if "." + key.rpartition(".")[2].lower() in SUFFIXES), None)


def labels_of(name: str, sample: Mapping[str, Any]) -> dict[str, str]:
    """The labels of a sample: `cls`, `label` or `txt`, and the single values of `json`.

    Raises:
        DataRefused: its JSON cannot be read.
    """
    found = {column: text_of(sample[key]) for key, column in LABEL_KEYS.items() if key in sample}
    if "json" in sample:
        try:
            values = json.loads(sample["json"])
        except ValueError as error:
            raise DataRefused(f"{name}.json: not JSON that can be read: {first_line(error)}") from error
        single = {key: value for key, value in values.items() if isinstance(value, str | int | float | bool | None)}
        found |= {f"{key}_" if key in (PATH, SPLIT) else key: cell_of(value) for key, value in single.items()}
    return found


def text_of(value: bytes) -> str:
    return value.decode("utf-8", "replace").strip()
