"""Final evaluation of a network: accuracy, confused classes and the worst mistakes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spatialnet_edge.core.spec import Head, ModelSpec, Multiclass
from spatialnet_training.config import TrainConfig
from spatialnet_training.data.bands import groups_named
from spatialnet_training.data.datasets import TrainingData
from spatialnet_training.data.samples import Samples
from spatialnet_training.loop.prediction import accuracies, predict
from spatialnet_training.losses.multitask import labelled_rows
from spatialnet_training.networks.model import SpatialNet

MOST_PAIRS, MOST_MISTAKES = 5, 12
SURE = 0.9
"""Without a linear head, a training image may be mislabelled if the network contradicts its label with this probability."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A confused pair of classes."""

    truth: str
    answer: str
    count: int
    of: int


@dataclass(frozen=True, slots=True)
class Mistake:
    """An image with a prediction other than its label.

    Attributes:
        image: uint8 `[H, W, bands]`.
        probability: of the prediction.
        split: of the image.
    """

    name: str
    head: str
    truth: str
    answer: str
    probability: float
    split: str
    image: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class HeadVerdict:
    """Evaluation of one head.

    Attributes:
        accuracy: see `prediction.accuracies`, 0 to 1.
        per_class: label to the number of images and the accuracy; empty for heads that are not categorical.
    """

    head: Head
    images: int
    accuracy: float
    per_class: dict[str, tuple[int, float]]
    pairs: tuple[Pair, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Evaluation of a network.

    Attributes:
        judged_by: `validation` or `held-out training`: the images used for `heads`.
        samples: these images; `logits`: head to `[N, outputs]`.
        mistakes: the wrong predictions with the highest confidence.
        suspects: training images that may be mislabelled.
    """

    judged_by: str
    samples: Samples
    logits: dict[str, Tensor]
    heads: tuple[HeadVerdict, ...]
    mistakes: tuple[Mistake, ...]
    suspects: tuple[Mistake, ...]


def verdict_of(
    network: SpatialNet,
    spec: ModelSpec,
    data: TrainingData,
    config: TrainConfig,
    holdout: dict[str, Tensor],
    out_of_fold: Mapping[str, Tensor],
) -> Verdict:
    """Evaluate a network on the user's own validation images, or on the held-out ones if there are none.

    Args:
        spec: with calibrated temperatures.
        holdout: logits of the held-out images.
        out_of_fold: logits of training images from linear heads that were not fitted to them; empty without such heads.
    """
    groups = groups_named(config.groups)
    samples, logits, judged_by = data.holdout, holdout, "held-out training"
    if data.val is not None:
        samples, judged_by = data.val, "validation"
        logits = predict(network, samples, config.size, groups)
    figures = accuracies(logits, samples)
    heads = tuple(head_verdict(head, logits[head.name], samples, figures) for head in spec.heads if head.name in figures)
    suspects: tuple[Mistake, ...] = ()
    if data.own is not None:
        if out_of_fold:
            suspects = doubtful(spec, data, out_of_fold)
        else:
            sure = {head.name: torch.full((head.width,), SURE) for head in spec.heads}
            suspects = mistakes_of(spec, predict(network, data.train, config.size, groups), data.train, "train", sure)
    split = "val" if data.val is not None else "holdout"
    mistakes = mistakes_of(spec, logits, samples, split) if data.own is not None else ()
    return Verdict(judged_by, samples, logits, heads, mistakes, suspects)


def head_verdict(head: Head, logits: Tensor, samples: Samples, figures: dict[str, float]) -> HeadVerdict:
    target = samples.targets[head.name]
    known = labelled_rows(torch.from_numpy(target)).numpy()
    if not isinstance(head, Multiclass):
        return HeadVerdict(head, int(known.sum()), figures[head.name], {}, ())
    truth, answers = target[known].astype(np.int64), logits.argmax(1).numpy()[known]
    per_class = {
        head.labels[index]: (int((truth == index).sum()), float((answers[truth == index] == index).mean()))
        for index in np.unique(truth)
    }
    wrong, counts = np.unique(np.stack([truth, answers], axis=1)[truth != answers], axis=0, return_counts=True)
    sizes = np.bincount(truth, minlength=head.width)
    pairs = [
        Pair(head.labels[a], head.labels[b], int(count), int(sizes[a])) for (a, b), count in zip(wrong, counts, strict=True)
    ]
    pairs.sort(key=lambda pair: (-pair.count, pair.truth, pair.answer))
    return HeadVerdict(head, int(known.sum()), figures[head.name], per_class, tuple(pairs[:MOST_PAIRS]))


def doubtful(spec: ModelSpec, data: TrainingData, out_of_fold: Mapping[str, Tensor]) -> tuple[Mistake, ...]:
    """The training images, held out or not, whose labels are contradicted by heads that were not fitted to them.

    Args:
        out_of_fold: see `LinearFit.out_of_fold`.
    """
    usual: dict[str, Tensor] = {}
    for head in spec.heads:
        if isinstance(head, Multiclass):  # from the images of both parts: the held-out ones alone are few
            logits = out_of_fold[head.name]
            truth = np.concatenate([data.train.targets[head.name], data.holdout.targets[head.name]])[: len(logits)]
            labels = torch.from_numpy(truth.astype(np.int64))
            usual[head.name] = usual_probabilities((logits / head.temperature).softmax(dim=1), labels)
    parts = [(data.train, "train", slice(len(data.train)))]
    if all(len(logits) > len(data.train) for logits in out_of_fold.values()):
        parts.append((data.holdout, "holdout", slice(len(data.train), None)))
    found: list[Mistake] = []
    for samples, split, rows in parts:
        found += mistakes_of(spec, {name: values[rows] for name, values in out_of_fold.items()}, samples, split, usual)
    return tuple(sorted(found, key=lambda each: -each.probability)[:MOST_MISTAKES])


def usual_probabilities(probabilities: Tensor, truth: Tensor) -> Tensor:
    """The mean probability of each class over the images with that label: `[classes]`; 1 for classes without images.

    A label is doubtful if another class is as probable as it usually is for its own images (confident learning, Northcutt et al.
    2021, arXiv 1911.00068). The probabilities must be of a model that was not trained on the image.
    """
    own = [probabilities[truth == index, index] for index in range(probabilities.shape[1])]
    return torch.stack([each.mean() if len(each) else probabilities.new_tensor(1.0) for each in own])


def mistakes_of(
    spec: ModelSpec,
    logits: Mapping[str, Tensor],
    samples: Samples,
    split: str,
    least: Mapping[str, Tensor] | None = None,
) -> tuple[Mistake, ...]:
    """The wrong predictions of categorical heads with the highest probability.

    Args:
        least: head to the lowest probability that counts, `[classes]`; by default every one does.
    """
    found: list[Mistake] = []
    for head in spec.heads:
        if not isinstance(head, Multiclass):
            continue
        truth = torch.from_numpy(samples.targets[head.name].astype(np.int64))
        probabilities = (logits[head.name] / head.temperature).softmax(dim=1)
        surest, answers = probabilities.max(dim=1)
        counts = (truth >= 0) & (answers != truth)
        if least is not None:
            counts &= surest >= least[head.name][answers]
        wrong = counts.nonzero().flatten().tolist()
        for row in sorted(wrong, key=lambda row: -float(surest[row]))[:MOST_MISTAKES]:
            labels = head.labels[int(truth[row])], head.labels[int(answers[row])]
            name = samples.names[row] if samples.names else f"image {row}"
            found.append(Mistake(name, head.name, *labels, float(surest[row]), split, samples.images[row]))
    return tuple(sorted(found, key=lambda each: -each.probability)[:MOST_MISTAKES])
