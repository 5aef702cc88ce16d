"""Networks and random forests trained only on a subset of a data set's bands, for comparison with withheld bands.

Every run and every result is kept in a folder, so that an interrupted study resumes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace as altered
from numpy.typing import NDArray

from spatialnet_edge.core.hardware_info import cores
from spatialnet_edge.core.spec import BandGroup
from spatialnet_training.config import TrainConfig
from spatialnet_training.data.bands import groups_named
from spatialnet_training.data.datasets import TrainingData
from spatialnet_training.data.samples import Samples
from spatialnet_training.loop.prediction import predict
from spatialnet_training.loop.training_run import train
from spatialnet_training.networks.checkpoint import load_network

TREES = 300
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Quantiles of each band's levels, in addition to mean and standard deviation."""

Right = NDArray[np.bool_]
"""The correctly classified validation images: `[seeds, images]`."""


@dataclass(frozen=True, slots=True)
class Study:
    """A data set, and how its subsets are trained.

    Attributes:
        name: of the data set.
        data: its training images, with every part.
        val: its validation images, with every part, and targets for one head.
        parts: band groups that are withheld, in channel order.
        config: of the runs; data, groups and seed are replaced.
        folder: for the runs and their results.
        seeds: number of runs per subset.
    """

    name: str
    data: TrainingData
    val: Samples
    parts: tuple[BandGroup, ...]
    config: TrainConfig
    folder: Path
    seeds: int

    @property
    def truth(self) -> NDArray[np.int64]:
        """The label of each validation image: int64 `[images]`."""
        (values,) = self.val.targets.values()
        return values.astype(np.int64)

    @property
    def head(self) -> str:
        (name,) = self.val.targets
        return name


def sliced(samples: Samples, parts: Sequence[BandGroup], kept: Sequence[str]) -> Samples:
    """The same samples with only the bands of some parts."""
    names = [part.name for part in parts for _ in part.bands]
    channels = [index for index, name in enumerate(names) if name in kept]
    return replace(samples, images=[np.ascontiguousarray(image[..., channels]) for image in samples.images])


def networks_alone(study: Study, kept: tuple[str, ...]) -> Right:
    """Results of networks trained only on these parts, one per seed."""
    return each_seed(study, kept, "network", one_network)


def forests_alone(study: Study, kept: tuple[str, ...]) -> Right:
    """Results of random forests on statistics of these parts' bands (traditional features)."""
    return each_seed(study, kept, "forest", one_forest)


def each_seed(study: Study, kept: tuple[str, ...], kind: str, make: Callable[[Study, tuple[str, ...], int], Right]) -> Right:
    """One row per seed; results of an earlier call are read from the folder."""
    rows: list[Right] = []
    for seed in range(study.seeds):
        path = run_folder(study, kept) / f"{kind}-{seed}.json"
        if path.exists():
            rows.append(np.array(json.loads(path.read_text(encoding="utf-8")), np.bool_))
            continue
        rows.append(make(study, kept, seed))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(rows[-1].astype(int).tolist()) + "\n", encoding="utf-8")
    return np.stack(rows)


def run_folder(study: Study, kept: tuple[str, ...]) -> Path:
    return study.folder / study.name / "+".join(kept)


def one_network(study: Study, kept: tuple[str, ...], seed: int) -> Right:
    """Train on a subset. Returns the correctly classified validation images: bool `[images]`."""
    config = altered(study.config, name=f"{study.name} {'+'.join(kept)}", groups=kept, group_dropout=0.0, seed=seed)
    train_images, holdout = (sliced(each, study.parts, kept) for each in (study.data.train, study.data.holdout))
    data = replace(study.data, train=train_images, holdout=holdout)
    checkpoint = train(config, data, run_folder(study, kept) / f"seed-{seed}", "modalities --train-alone")
    network, spec, _ = load_network(checkpoint)
    logits = predict(network, sliced(study.val, study.parts, kept), spec.input.height, groups_named(kept))
    return np.asarray(logits[study.head].argmax(dim=1).numpy() == study.truth)


def one_forest(study: Study, kept: tuple[str, ...], seed: int) -> Right:
    """The same with a random forest."""
    parts = [
        np.stack([statistics(image) for image in sliced(each, study.parts, kept).images])
        for each in (study.data.train, study.val)
    ]
    return forest_right(parts[0], study.data.train.targets[study.head], parts[1], study.truth, seed)


def forest_right(
    train: NDArray[np.float32], labels: NDArray[Any], val: NDArray[np.float32], truth: NDArray[Any], seed: int
) -> Right:
    """Train a random forest (Breiman 2001). Returns the correctly classified validation images: bool `[images]`.

    Args:
        train, val: features, `[images, features]`.
        labels, truth: the class of each image of `train` and of `val`.
    """
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(TREES, random_state=seed, n_jobs=cores()).fit(train, labels)
    return np.asarray(forest.predict(val) == truth)


def statistics(image: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean, deviation and quantiles of each band: float32 `[7 × bands]`, for uint8 or float32 `[H, W, bands]`."""
    pixels = image.reshape(-1, image.shape[2]).astype(np.float32)
    return np.concatenate([pixels.mean(axis=0), pixels.std(axis=0), *np.quantile(pixels, QUANTILES, axis=0)]).astype(
        np.float32
    )
