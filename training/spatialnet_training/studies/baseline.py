"""Baseline without learned features: the methods that SpatialNet-ViT (arXiv 2506.22501) is compared with.

Colour histogram, HOG (Dalal and Triggs 2005), LBP (Ojala et al. 2002) and Haralick's texture features (1973) from
scikit-image, with a support vector machine with an RBF kernel from scikit-learn. Images and splits are the same as for the
networks.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from numpy.typing import NDArray
from rich.table import Table

from spatialnet_edge.cli.json_file import console_beside, json_option, write_json
from spatialnet_edge.cli.printer import printer
from spatialnet_edge.core.errors import MissingExtra, UsageError
from spatialnet_edge.core.hardware_info import cores
from spatialnet_training.data.samples import STORED_SIDE, Samples
from spatialnet_training.studies.by_place import FOLDS, ByPlace, compare
from spatialnet_training.studies.study_data import DataRoot, DataSets, OwnData, StudySet, joined, study_sets

HOG_SIDE = 64
PENALTY = 10.0
"""C of the support vector machine; not tuned on `val`."""


def features(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """All features of one image, uint8 `[H, W, 3]`: float32 `[610]`."""
    from skimage.feature import graycomatrix, graycoprops, hog, local_binary_pattern

    grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
    colours = np.histogramdd(image.reshape(-1, 3), bins=(6, 6, 6), range=[(0, 256)] * 3)[0].ravel() / grey.size
    gradients = hog(cv2.resize(grey, (HOG_SIDE, HOG_SIDE)), orientations=9, pixels_per_cell=(16, 16), cells_per_block=(2, 2))
    patterns = [
        np.bincount(local_binary_pattern(grey, points, radius, "uniform").astype(int).ravel(), minlength=points + 2)
        / grey.size
        for points, radius in ((8, 1), (16, 2))
    ]
    angles = [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4]
    matrix = graycomatrix(grey // 8, distances=[1, 2, 4], angles=angles, levels=32, symmetric=True, normed=True)
    names = ("contrast", "dissimilarity", "homogeneity", "ASM", "energy", "correlation", "entropy")
    texture = [statistic(graycoprops(matrix, name), axis=1) for name in names for statistic in (np.mean, np.std)]
    return np.concatenate([np.sqrt(colours), gradients, *map(np.sqrt, patterns), *texture]).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Result:
    """Result of the baseline on one data set.

    Attributes:
        accuracy: on the validation images, 0 to 1.
    """

    data_set: str
    trained_on: int
    judged_on: int
    accuracy: float


def judge(name: str, head: str, train: Samples, val: Samples) -> Result:
    """Train on the classes of one head and evaluate on the validation images."""
    from sklearn.metrics import accuracy_score

    x_train, x_val = features_of(train), features_of(val)
    found = classifier().fit(x_train, train.targets[head]).predict(x_val)
    return Result(name, len(train), len(val), float(accuracy_score(val.targets[head], found)))


def features_of(samples: Samples) -> NDArray[np.float32]:
    """The features of every image: `[N, 610]`."""
    from joblib import Parallel, delayed

    return np.array(Parallel(n_jobs=cores())(delayed(features)(each) for each in samples.images), np.float32)


def classifier() -> Any:
    """The scaler and support vector machine, not fitted."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    return make_pipeline(StandardScaler(), SVC(C=PENALTY, kernel="rbf", gamma="scale", cache_size=2000))


def judge_by_place(each: StudySet, group: str) -> ByPlace:
    """Judge all images of a data set by cross-validation, split at random and by place."""
    whole = joined([each.train, each.val], each.head)
    known, classes = features_of(whole), np.asarray(whole.targets[each.head], np.int64)

    def predicted(train: NDArray[np.int64], test: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.asarray(classifier().fit(known[train], classes[train]).predict(known[test]), np.int64)

    return compare(whole.names, classes, predicted, group or None)


def baseline(
    data: OwnData = None,
    data_root: DataRoot = None,
    names: DataSets = "",
    by_place: Annotated[
        bool,
        typer.Option("--by-place", help="Cross-validate with images of one place kept together, and with random folds."),
    ] = False,
    group: Annotated[
        str,
        typer.Option(
            help="With --by-place: regular expression; images with the same match in their path are of one place. Default: "
            "neighbours by name are."
        ),
    ] = "",
    json: Annotated[Path | None, json_option("the results")] = None,
) -> None:
    """Evaluate colour, HOG, LBP and Haralick features with a support vector machine on the same splits."""
    try:
        import skimage  # noqa: F401  # fail before minutes of work
    except ModuleNotFoundError as error:
        raise MissingExtra("skimage", "training") from error
    if group and not by_place:
        raise UsageError("--group goes with --by-place")
    if by_place:
        show_by_place(study_sets(data, data_root, names, STORED_SIDE), group, json)
        return
    results: list[Result] = []
    console = printer(stderr=True)
    for each in study_sets(data, data_root, names, STORED_SIDE):
        with console.status(f"{each.name}: features and support vector machine"):
            results.append(judge(each.name, each.head, each.train, each.val))
    table = Table("data set", "train", "val", "accuracy", title="colour + HOG + LBP + Haralick, RBF support vector machine")
    for each in results:
        table.add_row(each.data_set, str(each.trained_on), str(each.judged_on), f"{each.accuracy:.2%}")
    console_beside(json).print(table)
    write_json(json, {each.data_set: round(each.accuracy, 5) for each in results})


def show_by_place(sets: list[StudySet], group: str, json: Path | None) -> None:
    """Print the accuracy of each data set, split at random and by place."""
    console, found = printer(stderr=True), dict[str, ByPlace]()
    for each in sets:
        with console.status(f"{each.name}: features and support vector machines"):
            found[each.name] = judge_by_place(each, group)
    table = Table("data set", "images", "split at random", "split by place", "difference")
    for name, each in found.items():
        table.add_row(name, str(each.images), str(each.random), str(each.place), str(each.difference))
        beside = " and ".join(f"{share:.0%}" for share in each.neighbours)
        table.caption = f"{FOLDS} folds; 95 % intervals; neighbours by name in training: {beside}"
    console_beside(json).print(table)
    write_json(json, {name: asdict(each) for name, each in found.items()})
