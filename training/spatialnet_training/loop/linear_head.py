"""Regularised linear head on frozen features: fitted in seconds, and strong with a few dozen images per class.

The backbone computes the features of every image once. For each head, cross-validation over the training images chooses the
pooling query and the regularisation strength. The result replaces the network's own linear layer, so the network is exported
and built like any other. (Kornblith et al. 2019, arXiv 1805.08974, compare such heads with fine-tuning.)
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from msgspec.structs import replace
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from spatialnet_edge.core.frames import preprocess
from spatialnet_edge.core.spec import InputSpec
from spatialnet_training.data.augmentation import normalise, oriented
from spatialnet_training.data.samples import Samples
from spatialnet_training.data.splits import order
from spatialnet_training.loop.prediction import accuracies, batch_of
from spatialnet_training.losses.class_balance import balanced_cross_entropy, log_shares
from spatialnet_training.losses.multitask import head_loss, labelled_rows
from spatialnet_training.networks.layers import HeadPooling
from spatialnet_training.networks.model import SpatialNet

FOLDS = 5
STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""Candidate values of C, the inverse regularisation strength, from strong to weak regularisation."""

FIRST_STRENGTH = 0.1
"""The C for comparing queries."""

MOST_FOR_QUERIES = 2000
"""Number of images for comparing queries; more cost time."""

ORIENTATIONS = {"all": (0, 5), "horizontal": (0, 4), "none": (0,)}
"""The orientations of each image; see `augmentation.oriented`."""

LARGER = 1.4
"""Features are also computed at this multiple of the input size: on classes that the start had not seen, the cross-validated loss
fell from 0.33 to 0.30."""

MOST_FOR_LARGER = 2000
"""With more images, features are computed at the input size only: a larger view takes twice the time."""


def larger_size(size: int) -> int:
    """The side of the larger views in pixels, a multiple of 16."""
    return round(LARGER * size / 16) * 16


@dataclass(frozen=True, slots=True)
class LinearFit:
    """Result of fitting the linear heads.

    Attributes:
        strengths: head to the chosen C.
        accuracies: head to the cross-validated accuracy on training images, 0 to 1.
        balanced_heads: heads fitted with adjusted logits; see `losses/class_balance.py`.
        on_all: head to weight `[outputs, width]` and bias `[outputs]`, fitted to the held-out images too, with a C that was
            chosen by cross-validation over all of them.
        out_of_fold: head to the logits of every training image, then of every held-out one, each from a head that was not fitted
            to it: float64 `[N, outputs]`; zeros for images without a label.
    """

    strengths: dict[str, float]
    accuracies: dict[str, float]
    seconds: float
    balanced_heads: tuple[str, ...] = ()
    on_all: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    out_of_fold: Mapping[str, Tensor] = field(default_factory=dict)

    def use_all_images(self, network: SpatialNet) -> None:
        """Replace the heads by those fitted to all training images. Held-out images no longer judge them."""
        for name, (weight, bias) in self.on_all.items():
            assign(network.heads[name], weight, bias)


@dataclass(frozen=True, slots=True)
class Features:
    """Features of a frozen backbone.

    Attributes:
        values: float32 `[views, N, queries, width]`; the first view is upright and of the input size.
        queries: float32 `[queries, width]`.
    """

    values: Tensor
    queries: Tensor

    def of(self, query: int, rows: NDArray[np.int64]) -> Tensor:
        """The features of one query for some images: float64 `[views × rows, width]`, grouped by view."""
        return self.values[:, torch.from_numpy(rows), query].flatten(0, 1).double()


def fit_linear_heads(
    network: SpatialNet,
    samples: Samples,
    spec: InputSpec,
    flips: str,
    groups: Sequence[str],
    queries: Tensor | None = None,
    balance: str = "none",
    heldout: Samples | None = None,
    groups_of_heldout: Sequence[str] = (),
) -> LinearFit:
    """Replace the network's linear layers by regularised ones fitted to these images; the backbone does not change.

    Args:
        spec: the network's input.
        flips: see `TrainConfig.flips`.
        groups: of each image; all images of a group are in the same fold.
        queries: float32 `[queries, width]`, candidate pooling queries, in addition to the mean over the tokens.
        balance: see `TrainConfig.class_balance`; `sampling` is treated as `logits`.
        heldout: images that judge the heads. `LinearFit.on_all` are the heads fitted to them, too.
        groups_of_heldout: their groups.
    """
    begun = time.monotonic()
    network.to("cuda" if torch.cuda.is_available() else "cpu")
    candidates = torch.zeros(1, network.pooling.query.shape[1])
    if queries is not None and network.backbone.head_queries:
        candidates = torch.cat([candidates, queries]).unique(dim=0)
    views = views_of(network, samples, spec)
    features = extract(network, samples, views, ORIENTATIONS[flips], candidates)
    everything = None
    if heldout is not None and len(heldout):
        more = extract(network, heldout, views, ORIENTATIONS[flips], candidates)
        everything = Features(torch.cat([features.values, more.values], dim=1), candidates)
    on_all: dict[str, tuple[Tensor, Tensor]] = {}
    strengths: dict[str, float] = {}
    reached: dict[str, float] = {}
    balanced: list[str] = []
    out_of_fold: dict[str, Tensor] = {}
    for index, (name, layer) in enumerate(network.heads.items()):
        assert isinstance(layer, nn.Linear)
        target = torch.from_numpy(samples.targets[name])
        rows = np.flatnonzero(labelled_rows(target).numpy())
        folds = folds_of(target, rows, groups)
        query = best_query(features, target, rows, folds)
        fits = [best_strength(features, query, target, rows, folds, name, each) for each in offsets(balance, target, layer)]
        best = min(fits, key=lambda each: each.loss)
        strengths[name], reached[name] = best.strength, best.accuracy
        if best.shares is not None:
            balanced.append(name)
        x, y = features.of(query, rows), repeated(target[rows], features)
        weight, bias = solve(x, y, len(rows), best.strength, layer.out_features, shares=best.shares)
        assign(layer, weight, bias)
        with torch.no_grad():
            network.pooling.query[index] = features.queries[query]
        if heldout is not None and everything is not None:
            target = torch.cat([target, torch.from_numpy(heldout.targets[name])])
            rows = np.flatnonzero(labelled_rows(target).numpy())
            folds = folds_of(target, rows, [*groups, *groups_of_heldout])
            # chosen again: with one wrong label among them, the C of the training images fitted it at the cost of all others
            best = best_strength(everything, query, target, rows, folds, name, best.shares)
            x, y = everything.of(query, rows), repeated(target[rows], everything)
            on_all[name] = solve(x, y, len(rows), best.strength, layer.out_features, (weight, bias), best.shares)
        out_of_fold[name] = torch.zeros(len(target), layer.out_features, dtype=torch.float64)
        out_of_fold[name][rows, : best.logits.shape[1]] = best.logits
    network.to("cpu")
    return LinearFit(strengths, reached, time.monotonic() - begun, tuple(balanced), on_all, out_of_fold)


@torch.no_grad()
def assign(layer: nn.Module, weight: Tensor, bias: Tensor) -> None:
    """Give a linear layer these weights."""
    assert isinstance(layer, nn.Linear)
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)


def views_of(network: SpatialNet, samples: Samples, spec: InputSpec) -> list[InputSpec]:
    """The inputs at which features are computed: the network's own, and a larger one where that is affordable."""
    if not network.backbone.any_size or len(samples) > MOST_FOR_LARGER:
        return [spec]
    return [spec, replace(spec, height=larger_size(spec.height), width=larger_size(spec.width))]


@torch.inference_mode()
def extract(
    network: SpatialNet, samples: Samples, views: Sequence[InputSpec], orientations: Sequence[int], queries: Tensor
) -> Features:
    """Compute the backbone's features of every image at every input size, in every orientation."""
    network.eval()
    device = next(network.parameters()).device
    pooling = HeadPooling(len(queries), queries.shape[1])
    pooling.load_state_dict({**network.pooling.state_dict(), "query": queries})
    pooling.to(device)
    parts: list[Tensor] = []
    for view in views:
        found: list[list[Tensor]] = [[] for _ in orientations]
        batch = batch_of(view.height)
        for first in range(0, len(samples), batch):
            x = normalise(np.stack([preprocess(image, view) for image in samples.images[first : first + batch]])).to(device)
            for each, orientation in zip(found, orientations, strict=True):
                each.append(pooling(network.backbone(oriented(x, orientation))).float().cpu())
        parts += [torch.cat(each) for each in found]
    return Features(torch.stack(parts).clone(), queries)


def folds_of(target: Tensor, rows: NDArray[np.int64], groups: Sequence[str]) -> NDArray[np.int64]:
    """The fold of each row: complete groups, stratified by class, deterministic."""
    labels = target[rows]
    kinds = labels.numpy() if target.ndim == 1 else (labels > 0.5).numpy().argmax(axis=1)
    members: dict[str, list[int]] = {}
    for position, row in enumerate(rows):
        members.setdefault(groups[int(row)], []).append(position)
    folds = np.zeros(len(rows), np.int64)
    by_class = sorted(members, key=lambda group: (int(kinds[members[group][0]]), order(group)))
    for turn, group in enumerate(by_class):
        folds[members[group]] = turn % FOLDS
    return folds


def repeated(target: Tensor, features: Features) -> Tensor:
    """The targets repeated for each orientation."""
    return target.repeat(len(features.values), *([1] * (target.ndim - 1)))


def best_query(features: Features, target: Tensor, rows: NDArray[np.int64], folds: NDArray[np.int64]) -> int:
    """The query with the lowest cross-validated loss."""
    if len(features.queries) == 1:
        return 0
    some = np.arange(0, len(rows), -(-len(rows) // MOST_FOR_QUERIES))
    losses: list[float] = []
    for query in range(len(features.queries)):
        logits = out_of_fold(features, query, target, rows[some], folds[some], (FIRST_STRENGTH,))[0]
        losses.append(float(head_loss(logits, as_double(target[rows[some]]), 0.0)))
    return int(np.argmin(losses))


def offsets(balance: str, target: Tensor, layer: nn.Linear) -> list[Tensor | None]:
    """The candidate logit offsets: none, the logarithms of the class shares, or both candidates."""
    if balance == "none" or target.ndim != 1:
        return [None]
    shares = log_shares(target, layer.out_features)
    return [None, shares] if balance == "auto" else [shares]


@dataclass(frozen=True, slots=True)
class Fit:
    """A cross-validated fit of a head.

    Attributes:
        loss: averaged over the classes if classes may be balanced, otherwise over the images.
        shares: logit offsets during fitting.
        logits: out of fold, of the labelled images: float64 `[N, outputs]`.
    """

    strength: float
    accuracy: float
    loss: float
    shares: Tensor | None
    logits: Tensor


def best_strength(
    features: Features,
    query: int,
    target: Tensor,
    rows: NDArray[np.int64],
    folds: NDArray[np.int64],
    name: str,
    shares: Tensor | None,
) -> Fit:
    """The regularisation with the lowest cross-validated loss.

    Fits with and without `shares` are compared by losses averaged over the classes of a categorical head.
    """
    logits = out_of_fold(features, query, target, rows, folds, STRENGTHS, shares)
    known = target[rows]
    losses = [float(head_loss(each, as_double(known), 0.0)) for each in logits]
    if target.ndim == 1 and shares is not None:
        losses = [balanced_cross_entropy(each, known) for each in logits]
    best = int(np.argmin(losses))
    if target.ndim == 1 and shares is None:
        best = strongest_within_error(logits, known)
    loss = balanced_cross_entropy(logits[best], known) if target.ndim == 1 else losses[best]
    samples = Samples([], {name: known.numpy()}, np.zeros(len(rows), np.int64), ())
    return Fit(STRENGTHS[best], accuracies({name: logits[best]}, samples)[name], loss, shares, logits[best])


def strongest_within_error(logits: Sequence[Tensor], target: Tensor) -> int:
    """The strongest regularisation whose loss is within one standard error of the lowest (Breiman et al. 1984, section 3.4.3).

    A start that was trained on these images answers them too well, and the lowest loss then asks for too little regularisation.

    Args:
        logits: out of fold, for each C of `STRENGTHS`: float64 `[N, classes]`.
    """
    each = torch.stack([functional.cross_entropy(some, target, reduction="none") for some in logits])
    lowest = int(each.mean(dim=1).argmin())
    limit = each[lowest].mean() + each[lowest].std() / len(target) ** 0.5
    return int((each.mean(dim=1) <= limit).nonzero()[0, 0])


def out_of_fold(
    features: Features,
    query: int,
    target: Tensor,
    rows: NDArray[np.int64],
    folds: NDArray[np.int64],
    strengths: Sequence[float],
    shares: Tensor | None = None,
) -> list[Tensor]:
    """Per strength, the logits of every row from a head fitted without the row's fold; for the first orientation."""
    width = outputs_of(target) if shares is None else len(shares)
    found = [torch.zeros(len(rows), width, dtype=torch.float64) for _ in strengths]
    for fold in range(FOLDS):
        inside, outside = rows[folds != fold], rows[folds == fold]
        if not len(outside) or not len(inside):
            continue
        x, y = features.of(query, inside), repeated(target[inside], features)
        upright = features.of(query, outside)[: len(outside)]
        before: tuple[Tensor, Tensor] | None = None
        for logits, strength in zip(found, strengths, strict=True):
            before = solve(x, y, len(inside), strength, width, before, shares)
            logits[torch.from_numpy(folds == fold)] = upright @ before[0].T + before[1]
    return found


def solve(
    x: Tensor,
    target: Tensor,
    images: int,
    strength: float,
    outputs: int,
    before: tuple[Tensor, Tensor] | None = None,
    shares: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Minimise the head's mean loss plus an L2 penalty on standardised features, with L-BFGS.

    Args:
        x: float64 `[M, width]`, possibly of several orientations.
        images: number of images; the penalty has the weight 1 / (2 · C · images), as in scikit-learn.
        outputs: number of outputs of the head.
        before: initial solution.
        shares: logit offsets during fitting, not part of the solution; see `losses/class_balance.py`.

    Returns:
        Weight `[outputs, width]` and bias `[outputs]` for features before standardisation, float64.
    """
    mean, scale = x.mean(dim=0), x.std(dim=0).clamp(min=1e-6)
    standard, wanted = (x - mean) / scale, as_double(target)
    weight, bias = torch.zeros(outputs, x.shape[1], dtype=torch.float64), torch.zeros(outputs, dtype=torch.float64)
    offset = 0.0 if shares is None else shares.double()
    if before is not None:
        weight, bias = before[0] * scale, before[1] + before[0] @ mean
    weight, bias = weight.requires_grad_(), bias.requires_grad_()
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=100, tolerance_grad=1e-5, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = head_loss(standard @ weight.T + bias + offset, wanted, 0.0) + weight.square().sum() / (2 * strength * images)
        loss.backward()
        return loss

    optimiser.step(closure)
    raw = weight.detach() / scale
    return raw, bias.detach() - raw @ mean


def outputs_of(target: Tensor) -> int:
    """Number of outputs of a head for these targets."""
    return int(target.max()) + 1 if target.ndim == 1 else target.shape[1]


def as_double(target: Tensor) -> Tensor:
    """Convert numbers to float64; class indices are kept."""
    return target if target.ndim == 1 else target.double()
