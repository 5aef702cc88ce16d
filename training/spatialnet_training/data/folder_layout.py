"""Folder layouts: the split and the class of each image, and the unused files.

    <class>/<image>      <split>/<class>/<image>      images/<class>/<image>      <split>/images/<class>/<image>

The first folder below the split is the class, as in torchvision's ImageFolder and Ultralytics. Folders below it (cameras'
`100MEDIA`, dates, sites) are ignored. A layout in which validation images could be taken for training images is refused.
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
"""Suffixes of image formats that are not supported."""

CAMERA_FOLDER = re.compile(r"\d{3}\w{5}$")
"""Folder names of cameras (DCF, JEITA CP-3461, section 3.2.1)."""


@dataclass(frozen=True, slots=True)
class Placed:
    """An image with its class and split.

    Attributes:
        kind: its class.
        split: None if no folder gives it.
        inner: the folders below the class folder.
    """

    file: str
    kind: str
    split: str | None
    inner: tuple[str, ...] = ()


def rooted(tree: Tree) -> Tree:
    """The tree below the folder with the classes or splits: a zip often has a single folder at its top.

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
            return Tree(tree.path, top)  # a single class in a camera's folder
        top = f"{top}{only}/"


def place(tree: Tree, names: Sequence[str], options: DatasetOptions) -> tuple[list[Placed], list[Unused]]:
    """The class and split of every image, and the unused files.

    Raises:
        DataRefused: split folders are next to or below folders that may be classes, or have no class folders.
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
            f"{tree.path}: split folders without class folders in them; expected {folders[files[0]][0]}/<class>/<image>"
        )
    placed: list[Placed] = []
    for file in files:
        split = known_split(folders[file][0]) if in_splits else None
        below = below_images(folders[file][1:]) if in_splits else folders[file]
        if not below:
            unused.append(Unused(file, "in a split folder without a class folder"))
        elif options.classes_from == "first":
            placed.append(Placed(file, below[0], split, below[1:]))
        else:
            placed.append(Placed(file, below[-1], split or next(filter(None, map(known_split, below[:-1])), None)))
    check_all_have_splits(tree, placed)
    check_inner_splits(tree, placed)
    return placed, unused


def images_among(names: Sequence[str]) -> tuple[list[str], list[Unused]]:
    """The images, and the reason for each other file; our own tables are ignored."""
    files: list[str] = []
    unused: list[Unused] = []
    for name in names:
        suffix = Path(name).suffix.lower()
        if suffix in IMAGE_SUFFIXES:
            files.append(name)
        elif suffix in OTHER_IMAGES:
            unused.append(Unused(name, f"the format {suffix} is not supported; convert it to JPEG, PNG or TIFF"))
        elif name not in (SPLITS, OBJECTS):
            unused.append(Unused(name, "no image"))
    return files, unused


def below_images(folders: tuple[str, ...]) -> tuple[str, ...]:
    """The folders without a leading `images`."""
    return folders[1:] if folders and folders[0].casefold() == IMAGES else folders


def check_lists(tree: Tree, names: Sequence[str]) -> None:
    """Refuse lists of splits that would be ignored.

    Raises:
        DataRefused: `splits.csv` is in a subfolder, or there is one list per split.
    """
    if inner := [name for name in names if PurePosixPath(name).name == SPLITS and name != SPLITS and not left_behind(name)]:
        raise DataRefused(
            f"{tree.path}: has {inner[0]}, which is not at the top, so its splits would be ignored; give the folder "
            "that contains it, or move it to the top with paths relative to that"
        )
    lists = [name for name in names if Path(name).suffix.lower() in (".txt", ".csv") and "/" not in name]
    of_splits = {split: name for name in lists if (split := known_split(Path(name).stem))}
    if len(of_splits) > 1 and SPLITS not in names:
        raise DataRefused(
            f"{tree.path}: {' and '.join(sorted(of_splits.values()))} look like lists of splits, which are not supported; "
            f"write them as {SPLITS} with the columns path and split"
        )


def check_tops(tree: Tree, folders: Sequence[tuple[str, ...]]) -> None:
    """Refuse a folder next to the split folders that might be a split with an unknown name.

    Raises:
        DataRefused: there is one.
    """
    tops = Counter(each[0] for each in folders)
    known = {top: count for top, count in tops.items() if known_split(top)}
    if other := sorted(set(tops) - set(known)):
        known_text = ", ".join(f"{top} ({count} images)" for top, count in sorted(known.items()))
        raise DataRefused(
            f"{tree.path}: '{other[0]}' ({tops[other[0]]} images) is next to split folders: {known_text}; rename it to train, "
            f"val or test if it is a split, otherwise move it out of this folder"
        )


def check_inner_splits(tree: Tree, placed: Sequence[Placed]) -> None:
    """Refuse split folders below a class folder.

    Raises:
        DataRefused: there is one.
    """
    found = [(part, each.kind) for each in placed for part in each.inner if known_split(part)]
    if found:
        part, kind = found[0]
        raise DataRefused(
            f"{tree.path}: {len(found)} images are in split folders below a class, the first in '{part}' below "
            f"'{kind}', so that split would be ignored; expected {part}/{kind}/<image>"
        )


def check_all_have_splits(tree: Tree, placed: Sequence[Placed]) -> None:
    """Refuse images outside of split folders if others are inside.

    Raises:
        DataRefused: there is one.
    """
    unsaid = [each.file for each in placed if each.split is None]
    if unsaid and len(unsaid) < len(placed):
        raise DataRefused(
            f"{tree.path}: {len(unsaid)} images are in no split folder, the first {unsaid[0]}, but "
            f"{len(placed) - len(unsaid)} are; put all of them into train, val or test"
        )


def folders_that_may_be_classes(placed: Sequence[Placed]) -> tuple[str, ...]:
    """Subfolder names that every class folder has (two or more, not a camera's): perhaps these are the classes."""
    below: dict[str, set[str]] = {}
    for each in placed:
        below.setdefault(each.kind, set()).add(each.inner[0] if each.inner else "")
    shared = set.intersection(*below.values()) if below else set[str]()
    same = all(names == shared for names in below.values()) and "" not in shared and len(shared) > 1
    return tuple(sorted(shared)) if same and not any(map(CAMERA_FOLDER.match, shared)) else ()
