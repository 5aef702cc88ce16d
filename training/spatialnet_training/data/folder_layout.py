"""What the folders of a data set mean: which names a split, which names a class, and which files are no labelled images.

    <class>/<image>      <split>/<class>/<image>      images/<class>/<image>      <split>/images/<class>/<image>

The first folder below the split is the class, as torchvision's ImageFolder and Ultralytics have it; folders below it (cameras'
`100MEDIA`, dates, sites) mean nothing. A layout in which validation images could be taken for training images is refused.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from spatialnet_edge.core.errors import DataRefused
from spatialnet_edge.sources.registry import IMAGE_SUFFIXES
from spatialnet_training.data.dataset_options import DatasetOptions
from spatialnet_training.data.file_tree import Tree, Unused, left_behind
from spatialnet_training.data.splits import known_split

SPLITS, OBJECTS = "splits.csv", "objects.csv"
IMAGES = "images"
OTHER_IMAGES = frozenset({".heic", ".heif", ".avif", ".gif", ".jp2", ".j2k", ".jfif", ".dng", ".raw", ".ppm", ".npy", ".svg"})
"""Suffixes of pictures that are not read."""

CAMERA_FOLDER = re.compile(r"\d{3}\w{5}$")
"""What cameras call their folders (DCF, JEITA CP-3461, section 3.2.1)."""


@dataclass(frozen=True, slots=True)
class Placed:
    """An image with what its folders say.

    Attributes:
        kind: its class.
        split: None where no folder says it.
        inner: the folders below that of the class.
    """

    file: str
    kind: str
    split: str | None
    inner: tuple[str, ...] = ()


def rooted(tree: Tree) -> Tree:
    """The tree from the folder that holds the classes or the splits: a zip often has one folder at its top that holds all.

    Raises:
        DataRefused: no such path, or not a zip.
    """
    top = tree.top
    names = tree.names()
    while True:
        below = [name.removeprefix(top) for name in names if name.startswith(top)]
        images = [PurePosixPath(name).parts for name in below if Path(name).suffix.lower() in IMAGE_SUFFIXES]
        tops = {parts[0] if len(parts) > 1 else "" for parts in images}
        if {SPLITS, OBJECTS} & set(below) or len(tops) != 1 or "" in tops:
            return Tree(tree.path, top)
        (only,) = tops
        inner = {parts[1] for parts in images if len(parts) > 2}
        if not inner or only.casefold() == IMAGES or known_split(only):
            return Tree(tree.path, top)
        if len(inner) == 1 and f"{only}/{SPLITS}" not in below and not any(len(parts) > 3 for parts in images):
            return Tree(tree.path, top)  # one class in one camera's folder
        top = f"{top}{only}/"


def place(tree: Tree, names: Sequence[str], options: DatasetOptions) -> tuple[list[Placed], list[Unused]]:
    """The class and the split of every image, and the files that are not used.

    Raises:
        DataRefused: folders of splits stand beside folders that may be classes, below them, or without classes in them.
    """
    check_lists(tree, names)
    files, unused = images_among(names)
    folders = {file: below_images(PurePosixPath(file).parts[:-1]) for file in files}
    unused += [Unused(file, "no class folder above it") for file in files if not folders[file]]
    files = [file for file in files if folders[file]]
    in_splits = any(known_split(folders[file][0]) and len(folders[file]) > 1 for file in files)
    if in_splits:
        check_tops(tree, [folders[file] for file in files])
    elif files and all(known_split(folders[file][0 if options.classes_from == "first" else -1]) for file in files):
        raise DataRefused(
            f"{tree.path}: folders of splits without folders of classes in them; expected {folders[files[0]][0]}/<class>/<image>"
        )
    placed: list[Placed] = []
    for file in files:
        split = known_split(folders[file][0]) if in_splits else None
        below = below_images(folders[file][1:]) if in_splits else folders[file]
        if not below:
            unused.append(Unused(file, "in a folder of a split without a class folder"))
        elif options.classes_from == "first":
            placed.append(Placed(file, below[0], split, below[1:]))
        else:
            placed.append(Placed(file, below[-1], split or next(filter(None, map(known_split, below[:-1])), None)))
    check_all_have_splits(tree, placed)
    check_inner_splits(tree, placed)
    return placed, unused


def images_among(names: Sequence[str]) -> tuple[list[str], list[Unused]]:
    """The images, and why each other file is none; our own tables are left out."""
    files: list[str] = []
    unused: list[Unused] = []
    for name in names:
        suffix = Path(name).suffix.lower()
        if suffix in IMAGE_SUFFIXES:
            files.append(name)
        elif suffix in OTHER_IMAGES:
            unused.append(Unused(name, f"the format {suffix} is not read; convert it to JPEG, PNG or TIFF"))
        elif name not in (SPLITS, OBJECTS):
            unused.append(Unused(name, "no image"))
    return files, unused


def below_images(folders: tuple[str, ...]) -> tuple[str, ...]:
    """The folders without a first one that is called `images`."""
    return folders[1:] if folders and folders[0].casefold() == IMAGES else folders


def check_lists(tree: Tree, names: Sequence[str]) -> None:
    """Find lists of splits that would not be seen.

    Raises:
        DataRefused: `splits.csv` lies in a folder of its own, or each split has a list of its own.
    """
    if inner := [name for name in names if PurePosixPath(name).name == SPLITS and name != SPLITS and not left_behind(name)]:
        raise DataRefused(
            f"{tree.path}: has {inner[0]}, which is not at the top, so its splits would not be seen; give the folder that holds "
            f"it, or move it to the top with paths relative to that"
        )
    lists = [name for name in names if Path(name).suffix.lower() in (".txt", ".csv") and "/" not in name]
    of_splits = {split: name for name in lists if (split := known_split(Path(name).stem))}
    if len(of_splits) > 1 and SPLITS not in names:
        raise DataRefused(
            f"{tree.path}: {' and '.join(sorted(of_splits.values()))} look like lists of splits, which are not read; write them as "
            f"{SPLITS} with the columns path and split"
        )


def check_tops(tree: Tree, folders: Sequence[tuple[str, ...]]) -> None:
    """Find a folder beside those of the splits that might be a split under another name.

    Raises:
        DataRefused: there is one.
    """
    tops = Counter(each[0] for each in folders)
    known = {top: count for top, count in tops.items() if known_split(top)}
    if other := sorted(set(tops) - set(known)):
        known_text = ", ".join(f"{top} ({count} images)" for top, count in sorted(known.items()))
        raise DataRefused(
            f"{tree.path}: '{other[0]}' ({tops[other[0]]} images) lies beside folders of splits: {known_text}; rename it to train, "
            f"val or test if it is a split, else move it out of this folder"
        )


def check_inner_splits(tree: Tree, placed: Sequence[Placed]) -> None:
    """Find folders of splits below a class's folder.

    Raises:
        DataRefused: there is one.
    """
    found = [(part, each.kind) for each in placed for part in each.inner if known_split(part)]
    if found:
        part, kind = found[0]
        raise DataRefused(
            f"{tree.path}: {len(found)} images lie in folders of splits below a class, the first in '{part}' below '{kind}', so "
            f"that split would not be seen; expected {part}/{kind}/<image>"
        )


def check_all_have_splits(tree: Tree, placed: Sequence[Placed]) -> None:
    """Find images that lie below no folder of a split where others do.

    Raises:
        DataRefused: there is one.
    """
    unsaid = [each.file for each in placed if each.split is None]
    if unsaid and len(unsaid) < len(placed):
        raise DataRefused(
            f"{tree.path}: {len(unsaid)} images lie in no folder of a split, the first {unsaid[0]}, and "
            f"{len(placed) - len(unsaid)} do; put all of them into train, val or test"
        )


def folders_that_may_be_classes(placed: Sequence[Placed]) -> tuple[str, ...]:
    """Folders that every class has below it, two or more, other than a camera's: perhaps those are the classes."""
    below: dict[str, set[str]] = {}
    for each in placed:
        below.setdefault(each.kind, set()).add(each.inner[0] if each.inner else "")
    shared = set.intersection(*below.values()) if below else set[str]()
    same = all(names == shared for names in below.values()) and "" not in shared and len(shared) > 1
    return tuple(sorted(shared)) if same and not any(map(CAMERA_FOLDER.match, shared)) else ()
