"""Images and partial labels from a zip or a folder that holds `images/<class>/<name>`.

Beside `images/` may stand `splits.csv` (`path,split` with `train` or `val`) and `objects.csv` (`path` and one 0/1 column for
each label). An image without a label for a task carries `UNLABELLED` there.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.errors import DataRefused, UsageError
from spatialnet_edge.labelled import SPLITS, Tree, class_of, open_labelled
from spatialnet_training.losses import UNLABELLED
from spatialnet_training.taxonomy import OBJECTS, SETTLEMENT, Taxonomy, load_taxonomy


@dataclass(frozen=True, slots=True)
class Samples:
    """Images of one split, with each task's targets.

    `images[i]` is uint8 RGB `[H, W, 3]`; `targets[task]` is int64 `[N]` or float32 `[N, labels]`; `data_set[i]` is an index
    into `data_sets`.
    """

    images: list[NDArray[np.uint8]]
    targets: dict[str, NDArray[np.generic]]
    data_set: NDArray[np.int64]
    data_sets: tuple[str, ...]
    broken: list[str] = field(default_factory=list)

    @classmethod
    def empty(cls, name: str) -> Samples:
        return cls([], {}, np.zeros(0, np.int64), (name,), [])

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, rows: Sequence[int]) -> Samples:
        index = np.asarray(rows, dtype=np.int64)
        return Samples(
            images=[self.images[i] for i in index],
            targets={task: values[index] for task, values in self.targets.items()},
            data_set=self.data_set[index],
            data_sets=self.data_sets,
        )


def load_image(encoded: bytes, longest: int) -> NDArray[np.uint8] | None:
    """Decode to RGB and shrink (area averaging) so that the longer side is at most `longest`; None if not an image."""
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        return None
    image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    height, width = image.shape[:2]
    scale = longest / max(height, width)
    if scale < 1:
        image = cv2.resize(image, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
    return np.asarray(image, np.uint8)


def held_out(path: str) -> bool:
    """Whether a training image is held out for calibration: one in twenty, by a hash of its path."""
    return zlib.crc32(path.encode()) % 20 == 0


def part_of(path: str, published: str | None) -> str:
    """`train`, `tune` (held-out training images) or `val`; without a published split, one image in ten validates."""
    if published is None:
        published = "val" if zlib.crc32(path.encode()) % 10 == 5 else "train"
    return "tune" if published == "train" and held_out(path) else published


def task_labels(taxonomy: Taxonomy, data_sets: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The heads of a model trained on these data sets, and each head's labels in output order."""
    heads = {"land_use": taxonomy.land_use_labels}
    heads |= {f"land_use_{name}": taxonomy.classes(name) for name in data_sets}
    heads |= {"objects": OBJECTS, "settlement": SETTLEMENT}
    return heads


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What a run trains and calibrates on.

    Attributes:
        labels: each head's labels in output order.
        licence: of weights trained on it.
    """

    labels: dict[str, tuple[str, ...]]
    train: Samples
    tune: Samples
    licence: str

    @property
    def summary(self) -> tuple[str, ...]:
        counts = [(self.train.data_set == k).sum() for k in range(len(self.train.data_sets))]
        return tuple(f"{name}: {count} images" for name, count in zip(self.train.data_sets, counts, strict=True))

    @property
    def broken(self) -> list[str]:
        return [*self.train.broken, *self.tune.broken]


def load_published(sources: Mapping[str, Path], longest: int) -> TrainingData:
    """Several published data sets at once, their labels joined by the taxonomy.

    Args:
        sources: data set name, as in the taxonomy, to its zip or folder.
        longest: images are kept no larger than this, in pixels.

    Raises:
        UsageError: the taxonomy has no such data set.
        DataRefused: a file is missing.
    """
    taxonomy = load_taxonomy()
    if unknown := sorted(set(sources) - set(taxonomy.data_sets)):
        raise UsageError(f"the taxonomy has no data set '{unknown[0]}'; it has {', '.join(taxonomy.data_sets)}")
    for path in sources.values():
        if not path.exists():
            raise DataRefused(f"{path}: no such data set; give the folder that holds it with --data-root")
    train, tune = (load_split(sources, taxonomy, split, longest) for split in ("train", "tune"))
    licence = "Apache-2.0; trained on EuroSAT (MIT), UC Merced (public domain), RSSCN7 and AID (for research)"
    return TrainingData(task_labels(taxonomy, tuple(sources)), train, tune, licence)


def load_own(path: Path, longest: int) -> TrainingData:
    """A user's own images: the folder above an image names its class, and there is one head, `land_use`.

    Raises:
        DataRefused: no labelled images, a single class, or too few to hold any out.
    """
    images = open_labelled(path)
    labels = images.class_names
    if len(labels) < 2:
        raise DataRefused(f"{path}: one class, '{''.join(labels)}'; a classifier needs at least two class folders")
    published = {row["path"]: row["split"] for row in images.tree.table(SPLITS)} if images.has_splits else {}
    parts = {"train": Samples.empty(path.stem), "tune": Samples.empty(path.stem)}
    targets: dict[str, list[int]] = {"train": [], "tune": []}
    for file, kind, encoded in zip(images.files, images.classes, images.tree.read(images.files), strict=True):
        part = part_of(file, published.get(file))
        if part not in parts:
            continue
        image = load_image(encoded, longest)
        if image is None:
            parts[part].broken.append(f"{path}: {file}")
        else:
            parts[part].images.append(image)
            targets[part].append(labels.index(kind))
    if not targets["train"] or not targets["tune"]:
        raise DataRefused(
            f"{path}: {len(images)} images leave {len(targets['train'])} to train and {len(targets['tune'])} to calibrate on; "
            f"one in twenty is held out, so give at least a few dozen"
        )
    train, tune = (
        replace(
            parts[part],
            targets={"land_use": np.array(targets[part], np.int64)},
            data_set=np.zeros(len(targets[part]), np.int64),
        )
        for part in ("train", "tune")
    )
    return TrainingData({"land_use": labels}, train, tune, "that of the images it was trained on")


def load_split(sources: Mapping[str, Path], taxonomy: Taxonomy, split: str, longest: int) -> Samples:
    """Load one split of several data sets with their partial labels.

    Args:
        sources: data set name, as in the taxonomy, to its zip or folder.
        split: `train` (without the held-out images), `tune` (the held-out training images) or `val`.
        longest: images are kept no larger than this, in pixels.
    """
    data_sets = tuple(sources)
    heads = task_labels(taxonomy, data_sets)
    images: list[NDArray[np.uint8]] = []
    owners: list[int] = []
    broken: list[str] = []
    rows: dict[str, list[object]] = {task: [] for task in heads}
    blank = np.full(len(OBJECTS), UNLABELLED, np.float32)
    for owner, (name, path) in enumerate(sources.items()):
        tree = Tree(path)
        files = tree.names()
        published = {row["path"]: row["split"] for row in tree.table("splits.csv")}
        objects = {
            row["path"]: np.array([row[label] for label in OBJECTS], np.float32)
            for row in (tree.table("objects.csv") if "objects.csv" in files else [])
        }
        chosen = [file for file in files if file in published and part_of(file, published[file]) == split]
        for file, encoded in zip(chosen, tree.read(chosen), strict=True):
            image = load_image(encoded, longest)
            if image is None:
                broken.append(f"{path}: {file}")
                continue
            images.append(image)
            owners.append(owner)
            kind = class_of(file)
            labels: dict[str, str] = {
                "land_use": taxonomy.land_use[name, kind],
                f"land_use_{name}": kind,
                "settlement": taxonomy.settlement[name, kind],
            }
            for task in heads:
                if task == "objects":
                    rows[task].append(objects.get(file, blank))
                else:
                    rows[task].append(heads[task].index(labels[task]) if task in labels else UNLABELLED)
    targets: dict[str, NDArray[np.generic]] = {
        task: np.stack(values) if task == "objects" else np.array(values, np.int64)  # type: ignore[arg-type]
        for task, values in rows.items()
    }
    return Samples(images, targets, np.array(owners, np.int64), data_sets, broken)
