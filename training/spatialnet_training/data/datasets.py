"""Training data: published data sets joined by the taxonomy, or unlabelled images for the teachers.

A data set is a zip or a folder with `images/<class>/<name>`. Next to `images/` are `splits.csv` (`path,split` with `train` or
`val`) and optionally `objects.csv` (`path` and one 0/1 column per label).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from msgspec.structs import replace as replace_head

from spatialnet_edge.core.errors import DataRefused, UsageError
from spatialnet_edge.core.spec import RGB, BandGroup, Head, Multiclass, Multilabel, Regression
from spatialnet_edge.core.still_decoder import SUFFIXES
from spatialnet_training.data.bands import decode
from spatialnet_training.data.dataset_registry import GROUND_SIDE, TERMS
from spatialnet_training.data.file_tree import Tree
from spatialnet_training.data.labelled_dataset import OBJECTS as OBJECTS_FILE
from spatialnet_training.data.labelled_dataset import SPLITS, TRAIN, LabelledImages, class_of
from spatialnet_training.data.measured_sets import MEASURED, scene_of
from spatialnet_training.data.samples import Collector, Samples, load_image, part_of, shrunk
from spatialnet_training.data.taxonomy import OBJECTS, SETTLEMENT, Taxonomy, load_taxonomy
from spatialnet_training.data.tiles import pyramid, structured
from spatialnet_training.losses.multitask import UNLABELLED


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Images and heads of a training run.

    Attributes:
        heads: of the model, not yet calibrated.
        holdout: held-out training images, for calibration and for monitoring the run.
        grant: the licence of weights trained on it.
        terms: owner and licence of the images, one entry per data set.
        unseen: number of unused images per split, of a user's own data.
        val: a user's own validation images; reported after every epoch, never used for selection.
        own: interpretation of a user's own data set; None for published ones.
        own_path: its path.
        ground_sides: head to the metres on the ground along a side of its training images, smallest and largest; heads without
            known scale are absent.
    """

    heads: tuple[Head, ...]
    train: Samples
    holdout: Samples
    grant: str
    terms: tuple[str, ...]
    unseen: Mapping[str, int] = field(default_factory=dict[str, int])
    val: Samples | None = None
    own: LabelledImages | None = None
    own_path: Path = Path()
    ground_sides: Mapping[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])

    @property
    def summary(self) -> tuple[str, ...]:
        counts = [(self.train.data_set == k).sum() for k in range(len(self.train.data_sets))]
        return tuple(f"{name}: {count} images" for name, count in zip(self.train.data_sets, counts, strict=True))

    @property
    def groups_of_training(self) -> tuple[str, ...]:
        """The group of each training image; an independent image is its own group."""
        return self._groups(self.train, "train")

    @property
    def groups_of_holdout(self) -> tuple[str, ...]:
        """The group of each held-out training image."""
        return self._groups(self.holdout, "holdout")

    def _groups(self, samples: Samples, split: str) -> tuple[str, ...]:
        if self.own is None or not samples.names:
            return tuple(f"{split} {index}" for index in range(len(samples)))
        groups = dict(zip(self.own.files, self.own.groups, strict=True))
        return tuple(groups[name] for name in samples.names)

    @property
    def broken(self) -> list[str]:
        return [*self.train.broken, *self.holdout.broken, *(self.val.broken if self.val else ())]


def published_heads(taxonomy: Taxonomy, data_sets: Sequence[str]) -> tuple[Head, ...]:
    """The heads that a model trained on these data sets may have."""
    named = [taxonomy_name(name) for name in data_sets if name not in MEASURED or MEASURED[name].head is None]
    return (
        Multiclass(name="land_use", labels=taxonomy.land_use_labels),
        *(Multiclass(name=f"land_use_{name}", labels=taxonomy.classes_with_land_use(name)) for name in dict.fromkeys(named)),
        *(row.head for name, row in MEASURED.items() if name in data_sets and row.head is not None),
        Multilabel(name="objects", labels=OBJECTS, thresholds=(0.5,) * len(OBJECTS)),
        Multiclass(name="settlement", labels=SETTLEMENT),
        # number of object kinds in an image: the count of these labels
        Regression(name="object_kinds", unit="kinds of object", low=0, high=len(OBJECTS)),
    )


def terms_of(data_set: str) -> str:
    """Owners and licences of the images."""
    return MEASURED[data_set].terms if data_set in MEASURED else TERMS[data_set]


def taxonomy_name(data_set: str) -> str:
    """The name of a data set's classes in the taxonomy."""
    row = MEASURED.get(data_set)
    return row.taxonomy if row is not None and row.taxonomy is not None else data_set


def load_published(sources: Mapping[str, Path], longest: int, groups: tuple[BandGroup, ...] = (RGB,)) -> TrainingData:
    """Load several published data sets, with their labels joined by the taxonomy.

    A head without any label is removed: its output would be random and would be distilled.

    Args:
        sources: data set name, as in the taxonomy, to its zip or folder.
        longest: images are kept no larger than this, in pixels.

    Raises:
        UsageError: the taxonomy has no such data set.
        DataRefused: a file is missing.
    """
    taxonomy = load_taxonomy()
    if unknown := sorted(set(sources) - set(taxonomy.data_sets) - set(MEASURED)):
        known = ", ".join((*taxonomy.data_sets, *MEASURED))
        raise UsageError(f"no data set '{unknown[0]}'; available: {known}")
    for path in sources.values():
        if not path.exists():
            raise DataRefused(f"{path}: no such data set; give the folder that holds it with --data-root")
    parts = [load_split(sources, taxonomy, split, longest, groups) for split in ("train", "holdout")]
    taught = {name for name, values in parts[0].targets.items() if (values != UNLABELLED).any()}
    heads = tuple(head for head in published_heads(taxonomy, tuple(sources)) if head.name in taught)
    train, holdout = (replace(p, targets={name: p.targets[name] for name in p.targets if name in taught}) for p in parts)
    return TrainingData(
        heads,
        train,
        holdout,
        "Apache-2.0",
        tuple(terms_of(name) for name in sources),
        ground_sides=ground_sides(train, tuple(sources)),
    )


def ground_sides(samples: Samples, taught: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Of each head, the metres on the ground along a side of the images that have labels of it; see `GROUND_SIDE`.

    Args:
        taught: data sets that count.
    """
    found: dict[str, tuple[float, float]] = {}
    for head, values in samples.targets.items():
        labelled = (values != UNLABELLED).reshape(len(samples), -1).any(axis=1)
        names = [samples.data_sets[owner] for owner in np.unique(samples.data_set[labelled])]
        sides = [GROUND_SIDE[name] for name in names if name in taught and name in GROUND_SIDE]
        if sides:
            found[head] = (min(low for low, _ in sides), max(high for _, high in sides))
    return found


def with_gsd(head: Head, sides: Mapping[str, tuple[float, float]], size: int) -> Head:
    """A head that states the ground sampling distance it was taught at, in metres per pixel of an input of `size` pixels."""
    if head.name not in sides:
        return head
    low, high = sides[head.name]
    return replace_head(head, gsd=(round(low / size, 3), round(high / size, 3)))


def load_split(
    sources: Mapping[str, Path], taxonomy: Taxonomy, split: str, longest: int, groups: tuple[BandGroup, ...] = (RGB,)
) -> Samples:
    """Load one split of several data sets with their partial labels.

    Object labels derived from a class (`Taxonomy.objects`) are used for training only, not for calibration or evaluation.

    Args:
        sources: data set name, as in the taxonomy, to its zip or folder.
        split: `train` (without the held-out images), `holdout` (the held-out training images) or `val`.
        longest: images are kept no larger than this, in pixels.
    """
    data_sets = tuple(sources)
    collector = Collector(published_heads(taxonomy, data_sets), data_sets)
    for owner, (name, path) in enumerate(sources.items()):
        tree = Tree(path)
        files = tree.names()
        published = {row["path"]: row["split"] for row in tree.table(SPLITS, ["split"], files)}
        objects = {row["path"]: row for row in (tree.table(OBJECTS_FILE, OBJECTS, files) if OBJECTS_FILE in files else [])}
        row, known_as = MEASURED.get(name), taxonomy_name(name)
        unit = scene_of if row is not None else str  # split by complete scenes
        chosen = [file for file in files if file in published and part_of(unit(file), published[file]) == split]
        if row is None or row.head is None:
            chosen = [file for file in chosen if taxonomy.land_use[known_as, class_of(file)]]
        for file, encoded in zip(chosen, tree.read(chosen), strict=True):
            if row is None:
                image = load_image(encoded, longest, groups)
            else:
                image = decode(encoded, groups, row.layout, row.metres_per_pixel)
            if image is None:
                collector.broken.append(f"{path}: {file}")
                continue
            kind = class_of(file)
            if row is not None and row.head is not None:
                collector.add(image, {row.head.name: kind}, owner, file)
                continue
            labels: dict[str, object] = {
                "land_use": taxonomy.land_use[known_as, kind],
                f"land_use_{known_as}": kind,
                "settlement": taxonomy.settlement[known_as, kind],
            }
            if file in objects:
                present = {label: float(objects[file][label]) for label in OBJECTS}
                labels |= {"objects": present, "object_kinds": sum(present.values())}
            elif split == TRAIN and (known_as, kind) in taxonomy.objects:
                labels["objects"] = taxonomy.objects[known_as, kind]
            collector.add(image, labels, owner, file)
    return collector.samples()


def load_unlabelled(path: Path, longest: int, groups: tuple[BandGroup, ...] = (RGB,), tile: int = 0) -> Samples:
    """Load all images of a folder or a zip, at any depth.

    Args:
        longest: images are kept no larger than this, in pixels.
        tile: side of tiles in pixels. Each image is cut into tiles at every scale; tiles without structure are removed. 0: no
            tiles.

    Raises:
        DataRefused: none can be read, or none is as large as a tile.
    """
    tree = Tree(path)
    files = [name for name in tree.names() if Path(name).suffix.lower() in SUFFIXES]
    collector = Collector((), (path.stem,))
    for file, encoded in zip(files, tree.read(files), strict=True):
        picture = decode(encoded, groups)
        if picture is None:
            collector.broken.append(f"{path}: {file}")
            continue
        for image in structured(pyramid(picture, tile)) if tile else [picture]:
            collector.add(shrunk(image, longest), {})
    if not collector.images:
        large = f", {tile} pixels high and wide or more" if tile else ""
        raise DataRefused(f"{path}: no usable image among {len(files)} files; expected images at any depth{large}")
    samples = collector.samples()
    return Samples(samples.images, {}, np.zeros(len(samples), np.int64), samples.data_sets, samples.broken)
