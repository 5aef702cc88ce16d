"""Label checks before training: misspelt classes, classes without training images, unknown splits."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from spatialnet_edge.core.errors import DataRefused
from spatialnet_edge.core.spec import RGB, Head, InputSpec, ModelSpec
from spatialnet_training.data.labelled_dataset import TEST, TRAIN, VAL, LabelledImages

ALIKE = 0.8
"""Two names with at least this difflib ratio may be one name and a typo …"""

RARE = 0.05
"""… if one of them has less than this share of the other's images."""


def check_splits(images: LabelledImages) -> None:
    """Refuse a split that would be silently ignored.

    Raises:
        DataRefused: a split is not training, validation or test, or there are no training images.
    """
    if unknown := sorted(set(images.splits) - {TRAIN, VAL, TEST}):
        count = images.splits.count(unknown[0])
        raise DataRefused(f"{images.tree.path}: {count} images are of the split '{unknown[0]}'; expected train, val or test")
    if TRAIN not in images.splits:
        raise DataRefused(
            f"{images.tree.path}: none of its {len(images)} images is of the split train, so nothing can be learnt"
        )


def check_heads(path: Path, heads: Sequence[Head]) -> None:
    """Refuse heads that a manifest cannot represent, before hours of training.

    Raises:
        DataRefused: a head or label has an invalid name, two heads have the same name, or a quantity has no range.
    """
    for label in [label for head in heads for label in getattr(head, "labels", ())]:
        if label != label.encode("utf-8", "replace").decode():
            raise DataRefused(f"{path}: the class {label!r} has a name that is not UTF-8; rename its folder")
    try:
        spec = ModelSpec(name="own", input=InputSpec(height=16, width=16, groups=(RGB,)), heads=tuple(heads))
        msgspec.convert(msgspec.to_builtins(spec), ModelSpec)
    except ValueError as error:
        raise DataRefused(
            f"{path}: its columns cannot be heads: {error}; a column is named with letters a to z, digits and underscores, "
            f"beginning with a letter; a label has at most 80 characters"
        ) from error


def check_labels(path: Path, head: str, counts: Mapping[str, Counter[str]], allowed: Sequence[str] = ()) -> None:
    """Refuse labels that are probably mistakes, before hours of training.

    Args:
        counts: split to the number of images of each label.
        allowed: the allowed labels; if given, spelling is not checked.

    Raises:
        DataRefused: a label is not allowed, has no training images, differs from another one only in case, or is rare and spelt
            almost like a common one.
    """
    total = Counter[str]()
    for each in counts.values():
        total.update(each)
    if allowed:
        if unknown := sorted(set(total) - set(allowed)):
            raise DataRefused(f"{path}: '{head}' has {total[unknown[0]]} images of '{unknown[0]}', which is not in --labels")
    else:
        check_spelling(path, head, total)
    train = counts.get(TRAIN, Counter[str]())
    for label in sorted(total):
        if not train[label]:
            others = ", ".join(f"{count[label]} in {split}" for split, count in sorted(counts.items()) if count[label])
            near = difflib.get_close_matches(label, list(train), 1, ALIKE)
            same = f"; train has {train[near[0]]} images of '{near[0]}', perhaps the same class" if near else ""
            raise DataRefused(
                f"{path}: '{head}' has 0 images of '{label}' in train and {others}{same}; give it training images, or "
                "remove it"
            )


def check_spelling(path: Path, head: str, counts: Counter[str]) -> None:
    """Refuse one class with two spellings; see `check_labels`."""
    for name, count in sorted(counts.items()):
        for other in sorted(set(counts) - {name}):
            same = folded(name) == folded(other)
            ratio = difflib.SequenceMatcher(None, name.casefold(), other.casefold()).ratio()
            if same or (count < RARE * counts[other] and ratio >= ALIKE and not is_numbered(name, other)):
                raise DataRefused(
                    f"{path}: '{head}' has {count} images of '{name}' and {counts[other]} of '{other}'; if that is a "
                    "typo, fix it; if not, list every label with --labels"
                )


def folded(name: str) -> str:
    """Normalise a name: remove differences in case, blanks, underscores and hyphens."""
    return "".join(c for c in name.casefold() if c not in " _-.")


def is_numbered(name: str, other: str) -> bool:
    """Whether two names differ only in their digits, like numbered classes."""
    digits = "".maketrans("", "", "0123456789")
    return name != other and name.translate(digits) == other.translate(digits)
