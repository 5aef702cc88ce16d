"""Ground truth: targets for a model's heads from labelled images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.core.errors import DataRefused
from spatialnet_edge.core.spec import Head, ModelSpec, Multiclass, Multilabel
from spatialnet_training.data.labelled_dataset import OBJECTS, LabelledImages, head_name
from spatialnet_training.data.taxonomy import load_taxonomy

OBJECT_COUNT = "object_kinds"
"""The head that counts the columns of `objects.csv` that an image has."""


@dataclass(frozen=True, slots=True)
class Truth:
    """Targets of one head: int64 `[N]` of label indices, or float32 `[N, labels]` of 0 and 1.

    Attributes:
        rows: indices of the labelled images.
    """

    head: str
    rows: NDArray[np.int64]
    values: NDArray[np.int64] | NDArray[np.float32]


def truths(images: LabelledImages, spec: ModelSpec, *names: str) -> list[Truth]:
    """The targets for every head of a model that these labels match.

    A multiclass head matches if the class folders are among its labels, or are classes of a data set that the taxonomy maps to
    them (`land_use`, `settlement`). A multilabel head matches if `objects.csv` has its labels. Any head matches a table with
    its column, or its labels' columns.

    Args:
        names: only these heads; none: every matching head.

    Raises:
        DataRefused: a named head, or no head at all, matches; the message has the difference.
        KeyError: the model has no such head.
    """
    wanted = [spec.head(name) for name in names] or list(spec.heads)
    found: list[Truth] = []
    reasons: list[str] = []
    for head in wanted:
        truth = from_columns(images, head) if images.columns else from_folders(images, head)
        if isinstance(truth, str):
            reasons.append(truth)
        elif isinstance(head, Multilabel) and not truth.values.any():
            reasons.append(f"'{head.name}': none of these images has any of its labels, so it cannot be evaluated")
        else:
            found.append(truth)
    if not found or (names and reasons):
        raise DataRefused(
            f"{images.tree.path}: its {len(images.class_names)} classes match no head of {spec.name}: {'; '.join(reasons)}"
        )
    return found


def from_folders(images: LabelledImages, head: Head) -> Truth | str:
    """The targets of one head from class folders and `objects.csv`, or the reason why there are none."""
    if isinstance(head, Multiclass):
        if unknown := [name for name in images.class_names if name not in head.labels]:
            if (mapped := from_taxonomy(images, head)) is not None:
                return mapped
            return f"'{head.name}' has no label {', '.join(repr(name) for name in unknown[:3])}"
        index = {label: position for position, label in enumerate(head.labels)}
        values = np.array([index[kind] for kind in images.classes], np.int64)
        return Truth(head.name, np.arange(len(images), dtype=np.int64), values)
    if isinstance(head, Multilabel):
        rows = [i for i, name in enumerate(images.files) if head.labels[0] in images.objects.get(name, {})]
        if not rows or any(label not in images.objects[images.files[rows[0]]] for label in head.labels):
            return f"'{head.name}' needs {OBJECTS} with its {head.width} labels as columns"
        table = [[images.objects[images.files[i]][label] for label in head.labels] for i in rows]
        return Truth(head.name, np.array(rows, np.int64), np.array(table, np.float32))
    counted = [(i, sum(images.objects[name].values())) for i, name in enumerate(images.files) if name in images.objects]
    if head.name == OBJECT_COUNT and counted:
        return Truth(head.name, np.array([i for i, _ in counted]), np.array([[count] for _, count in counted], np.float32))
    return f"'{head.name}' is a regression head, which class folders cannot evaluate"


def from_taxonomy(images: LabelledImages, head: Multiclass) -> Truth | None:
    """The targets of a shared head from the taxonomy; None if none of its data sets has all these class folders.

    If several data sets have all of them, each class must have the same meaning in these. Images of unmapped classes are
    excluded.
    """
    taxonomy = load_taxonomy()
    table = {"land_use": taxonomy.land_use, "settlement": taxonomy.settlement}.get(head.name)
    if table is None:
        return None
    owners = [name for name in taxonomy.data_sets if set(images.class_names) <= set(taxonomy.classes(name))]
    meanings = [{kind: table[owner, kind] for kind in images.class_names} for owner in owners]
    if not meanings or any(each != meanings[0] for each in meanings) or not set(meanings[0].values()) <= {*head.labels, ""}:
        return None
    rows = [row for row, kind in enumerate(images.classes) if meanings[0][kind]]
    values = [head.labels.index(meanings[0][images.classes[row]]) for row in rows]
    return Truth(head.name, np.array(rows, np.int64), np.array(values, np.int64)) if rows else None


def from_columns(images: LabelledImages, head: Head) -> Truth | str:
    """The targets of one head from the table rows in which all its cells are filled, or the reason why there are none."""
    names = [head_name(label) for label in head.labels] if isinstance(head, Multilabel) else [head.name]
    if absent := [name for name in names if name not in images.columns[images.files[0]]]:
        return f"'{head.name}' needs a column '{absent[0]}'"
    rows = [i for i, file in enumerate(images.files) if all(images.columns[file][name] for name in names)]
    cells = [[images.columns[images.files[i]][name] for name in names] for i in rows]
    if not rows:
        needed = "its column is" if len(names) == 1 else f"its {len(names)} columns are all"
        return f"'{head.name}' has no row in which {needed} filled"
    if isinstance(head, Multiclass):
        if unknown := sorted({cell for (cell,) in cells} - set(head.labels)):
            return f"'{head.name}' has no label {', '.join(repr(name) for name in unknown[:3])}"
        return Truth(head.name, np.array(rows, np.int64), np.array([head.labels.index(cell) for (cell,) in cells], np.int64))
    try:
        values = np.array([[float(cell) for cell in row] for row in cells], np.float32)
    except ValueError as error:
        return f"'{head.name}' needs numbers: {error}"
    if isinstance(head, Multilabel) and not np.isin(values, (0, 1)).all():
        return f"'{head.name}' needs columns of 0 and 1"
    if not np.isfinite(values).all():
        return f"'{head.name}' has a quantity that is not a number"
    return Truth(head.name, np.array(rows, np.int64), values)
