"""Several views of each held-out training image, as it is, degraded and corrupted, and what a network gives for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.random import default_rng
from numpy.typing import NDArray
from torch import Tensor

from spatialnet_edge.core.errors import DataRefused
from spatialnet_edge.core.frames import preprocess
from spatialnet_edge.core.spec import RGB, Head, ModelSpec
from spatialnet_training.data.augmentation import normalise
from spatialnet_training.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from spatialnet_training.data.dataset_registry import learnt
from spatialnet_training.data.datasets import load_split
from spatialnet_training.data.degradation import degrade
from spatialnet_training.data.samples import Samples
from spatialnet_training.data.taxonomy import load_taxonomy
from spatialnet_training.losses.multitask import labelled_rows
from spatialnet_training.networks.known import features
from spatialnet_training.networks.model import SpatialNet
from spatialnet_training.studies.known_pictures import WIDER

AS_IT_IS, DEGRADED = 0, -1
"""Severity of a view that is not corrupted, and of one that `degrade` made."""
PER_SET, LONGEST = 300, 600
"""Images of a data set at most, and their longer side in pixels."""


@dataclass(frozen=True, slots=True)
class Views:
    """What a network gives for several views of each held-out image.

    Attributes:
        found: `networks.known.features`, float32 `[N, features]`.
        logits: head to float32 `[N, outputs]`.
        targets: head to the labels of each view; `UNLABELLED` where there is none.
        severity: of each view, `AS_IT_IS`, `DEGRADED` or one of `SEVERITIES`: int64 `[N]`.
        image: of which image each is a view, int64 `[N]`.
        answered: bool `[N]`: the view is not refused as unknown.
    """

    found: Tensor
    logits: Mapping[str, Tensor]
    targets: Mapping[str, Tensor]
    severity: Tensor
    image: Tensor
    answered: Tensor

    def judge(self, head: Head) -> bool:
        """Whether any view has a label of a head."""
        return head.name in self.targets and bool(labelled_rows(self.targets[head.name]).any())

    def subset(self, rows: Tensor) -> Views:
        def of(each: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {name: values[rows] for name, values in each.items()}

        return Views(
            self.found[rows],
            of(self.logits),
            of(self.targets),
            self.severity[rows],
            self.image[rows],
            self.answered[rows],
        )


def views_of(image: NDArray[np.uint8], seed: int) -> list[tuple[int, NDArray[np.uint8]]]:
    """An image as it is, degraded, and with one corruption of each severity: severity and picture."""
    rng = default_rng([seed, 41])
    names = rng.permutation(list(CORRUPTIONS))
    made = [(severity, corrupt(image, str(name), severity, seed)) for severity, name in zip(SEVERITIES, names, strict=False)]
    return [(AS_IT_IS, image), (DEGRADED, degrade(image, rng)), *made]


@torch.inference_mode()
def observe(network: SpatialNet, spec: ModelSpec, samples: Samples, seed: int) -> Views:
    """Run a network on `views_of` every image, with the deployed resize."""
    found, severities, images = list[Tensor](), list[int](), list[int]()
    logits: dict[str, list[Tensor]] = {head.name: [] for head in spec.heads}
    batch: list[NDArray[np.uint8]] = []

    def flush() -> None:
        x = normalise(np.stack(batch)).contiguous(memory_format=torch.channels_last)
        tokens = network.backbone(x)
        pooled = network.pooling(tokens)
        found.append(features(pooled, tokens))
        for name, values in network.answer(pooled).items():
            logits[name].append(values)
        batch.clear()

    for index, image in enumerate(samples.images):
        for severity, picture in views_of(image, seed + index):
            batch.append(preprocess(picture, spec.input))
            severities.append(severity)
            images.append(index)
        if len(batch) >= 64 or index == len(samples) - 1:
            flush()
    rows, every = torch.tensor(images), torch.cat(found)
    answered = torch.ones(len(every), dtype=torch.bool)
    if network.known is not None and spec.known is not None:
        answered = network.known(every)[:, 0].sigmoid() >= spec.known.threshold
    targets = {name: torch.from_numpy(values)[rows] for name, values in samples.targets.items() if name in logits}
    return Views(
        every, {name: torch.cat(values) for name, values in logits.items()}, targets, torch.tensor(severities), rows, answered
    )


def held_out(spec: ModelSpec, root: Path) -> Samples:
    """At most `PER_SET` held-out training images of each data set that the network learnt, and of `nwpu_resisc45` where it is.

    Raises:
        DataRefused: a file is missing, or the network takes other bands than colour.
    """
    if spec.input.groups != (RGB,):
        raise DataRefused(
            f"{spec.name}: takes other bands than colour; the corruptions are those of colour pictures; keep its calibration"
        )
    paths = {name: root / WIDER[name] for name in learnt([spec])}
    if missing := [path for path in paths.values() if not path.exists()]:
        raise DataRefused(f"{missing[0]}: not there; give the folder that holds the data sets with --data-root")
    paths |= {name: root / file for name, file in WIDER.items() if name not in paths and (root / file).exists()}
    samples = load_split(paths, load_taxonomy(), "holdout", LONGEST)
    chosen: list[int] = []
    for owner in range(len(samples.data_sets)):
        own = np.flatnonzero(samples.data_set == owner)
        chosen += own[np.linspace(0, len(own) - 1, min(PER_SET, len(own))).astype(int)].tolist()
    return samples.subset(chosen)
