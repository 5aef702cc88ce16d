"""Splits: their names, and the choice of held-out images."""

from __future__ import annotations

import os
import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence

TRAIN, VAL, TEST = "train", "val", "test"
SPLIT_NAMES = {
    TRAIN: ("train", "training", "trn"),
    VAL: ("val", "valid", "validation", "validate", "dev", "development", "eval", "evaluation", "holdout"),
    TEST: ("test", "testing", "tst"),
}
"""Common names of the splits, in lower case."""

KNOWN = {name: split for split, names in SPLIT_NAMES.items() for name in names}
ADDED = re.compile(r"[\s_\-.]*(sets?|images?|imgs?|data|splits?|\d{4})$")
"""Suffixes of split names, as in `val_set`, `train-images` and `val2017`."""

VAL_SHARE = 0.1
"""Share of each class for validation if no split is given."""

MOST_OF_A_CLASS = 1 / 3
"""A group is not held out if that would take more than this share of a class."""


def known_split(word: str) -> str | None:
    """`train`, `val` or `test` for a common name; None for other words."""
    text = word.strip().casefold()
    return KNOWN.get(text) or KNOWN.get(ADDED.sub("", text))


def split_name(word: str) -> str:
    """The canonical name of a split; unknown names are kept."""
    return known_split(word) or word


def order(text: str) -> tuple[int, str]:
    """A deterministic pseudo-random sorting key."""
    return zlib.crc32(os.fsencode(text)), text


def hold_out(kinds: Sequence[str], groups: Sequence[str], quota: Mapping[str, int]) -> frozenset[int]:
    """Choose rows to hold out, class by class, in complete groups.

    Groups are visited in the order of a hash of their names, so that the same data always give the same choice. A group is
    taken while one of its classes needs rows, unless that would take more than a third of a class, or more than `quota` if
    that is larger.

    Args:
        kinds: the class of each row.
        groups: the group of each row; an independent row is its own group.
        quota: wanted number of rows per class.
    """
    members: dict[str, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    sizes = Counter(kinds)
    limit = {kind: max(quota.get(kind, 0), int(size * MOST_OF_A_CLASS)) for kind, size in sizes.items()}
    held: Counter[str] = Counter()
    chosen: list[int] = []
    for group in sorted(members, key=order):
        counts = Counter(kinds[row] for row in members[group])
        wanted = any(held[kind] < quota.get(kind, 0) for kind in counts)
        if wanted and all(held[kind] + count <= limit[kind] for kind, count in counts.items()):
            held.update(counts)
            chosen += members[group]
    return frozenset(chosen)


def val_quota(kinds: Sequence[str]) -> dict[str, int]:
    """Validation images per class: one in ten, and at least one of a class with five or more."""
    return {kind: max(round(size * VAL_SHARE), int(size >= 5)) for kind, size in Counter(kinds).items()}


def calibration_quota(kinds: Sequence[str]) -> dict[str, int]:
    """Training images per class held out for calibration: one in twenty, but in total at least ten or three times the number of
    classes; of a small data set at most a quarter.

    A class of at least four images has one, unless that exceeds a quarter of all images.
    """
    sizes = Counter(kinds)
    total = max(len(kinds) // 20, min(max(10, 3 * len(sizes)), len(kinds) // 4))
    exact = {kind: total * size / len(kinds) for kind, size in sizes.items()}
    quota = {kind: min(int(value), size // 2) for (kind, value), size in zip(exact.items(), sizes.values(), strict=True)}
    by_need = sorted(sizes, key=lambda kind: (quota[kind] > 0, quota[kind] - exact[kind], order(kind)))
    for kind in by_need:
        if sum(quota.values()) < total and sizes[kind] >= 4:
            quota[kind] += 1
    return quota
