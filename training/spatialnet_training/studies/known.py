"""Train the output `known` of a finished network: a small head on its frozen features (`networks.known`).

Positive examples are the training images of every data set: unmodified, degraded as by cameras, weather and transmission, and
corrupted at any severity. Each data set and each class has the same weight, so that the head does not depend on the sharpness of a
set and does not reject flat water. A degraded or corrupted image that the network classifies wrongly is a negative example: it is
too poor. The other negative examples are real pictures without land (`not_land.zip`, the clouds of NWPU-RESISC45) and generated
ones. The threshold is the highest one that rejects at most `REFUSED` of the held-out training images of every data set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace as replace_fields
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
from msgspec.structs import replace
from numpy.typing import NDArray
from rich.table import Table
from torch import Tensor

from spatialnet_edge.cli.printer import printer
from spatialnet_edge.core.bands import present_groups
from spatialnet_edge.core.errors import DataRefused, UsageError
from spatialnet_edge.core.frames import preprocess
from spatialnet_edge.core.spec import RGB, BandGroup, InputSpec, Known
from spatialnet_training.data.augmentation import normalise
from spatialnet_training.data.dataset_registry import FILES, TERMS
from spatialnet_training.data.labelled_dataset import TRAIN
from spatialnet_training.data.measured_sets import MEASURED
from spatialnet_training.data.samples import judging_side
from spatialnet_training.lineage import continued
from spatialnet_training.loop.licensing import with_known
from spatialnet_training.losses.multitask import UNLABELLED
from spatialnet_training.networks.checkpoint import load_checkpoint_config, load_network, save_network
from spatialnet_training.networks.checkpoint_paths import checkpoint_to_be_written, located
from spatialnet_training.networks.known import KnownHead, features
from spatialnet_training.networks.model import SpatialNet
from spatialnet_training.studies.known_pictures import NOT_LAND, NWPU, WIDER, Image, Pictures, gather

REFUSED = 0.03
NOT_LAND_TERMS = "clouds of RSI-CB256 (for research), frames of CubeSats (MIT, C. T. Doloriel 2021)"
UNITS = 64
"""Hidden units of the head."""
EPOCHS, BATCH, RATE, DECAY = 40, 256, 1e-3, 0.05
EMPHASIS = 6.0
DROPPED = 0.3
"""Dropout of the features: there are thousands of features but only some thousand pictures."""


def emphasised(pictures: Pictures, scores: NDArray[np.float32]) -> Pictures:
    """The same pictures with more weight on the classes that a first head rejects: open water is nearly flat, but it is land
    cover.

    The weight of a class is multiplied by up to `EMPHASIS`, in proportion to the share of its unmodified pictures below the
    threshold that rejects `REFUSED` of all positives.
    """
    plain, known = pictures.unmodified, pictures.known > 0
    refused = scores < np.quantile(scores[plain & known], REFUSED)
    labels = np.array(pictures.classes)
    weights = pictures.weights.copy()
    for label in np.unique(labels[known]):
        of_class = labels == label
        weights[of_class & known] *= 1 + (EMPHASIS - 1) * min(1.0, 4 * float(refused[of_class & plain].mean()))
    weights[known] *= pictures.weights[known].sum() / weights[known].sum()
    return replace_fields(pictures, weights=weights)


def without_too_poor(pictures: Pictures, answers: NDArray[np.int64]) -> Pictures:
    """The same pictures; a degraded or corrupted one that the network classifies wrongly becomes a negative example.

    Args:
        answers: index of the predicted land use, int64 `[N]`.
    """
    poor = ~pictures.unmodified & (pictures.land_use != UNLABELLED) & (answers != pictures.land_use)
    known = np.where(poor, 0, pictures.known).astype(np.float32)
    weights = pictures.weights.copy()
    for side in (known > 0, known == 0):
        weights[side] /= max(float(weights[side].sum()), 1e-9)
    return replace_fields(pictures, known=known, weights=weights)


@torch.inference_mode()
def extract(
    network: SpatialNet, images: Sequence[Image], size: int, groups: tuple[BandGroup, ...] = (RGB,), batch: int = 64
) -> tuple[Tensor, NDArray[np.int64]]:
    """`networks.known.features` of every image, with the deployed resize, and the index of the predicted land use.

    Args:
        images: with the bands of all groups, or colour pictures, whose other groups are then absent.

    Returns:
        float32 `[N, features]`, and int64 `[N]`.
    """
    given = InputSpec(height=size, width=size, groups=groups)
    parts, answers = list[Tensor](), list[Tensor]()
    for start in range(0, len(images), batch):
        pixels = np.stack([preprocess(image, given) for image in images[start : start + batch]])
        present = torch.from_numpy(present_groups(pixels, groups)) if len(groups) > 1 else None
        tokens = network.backbone(normalise(pixels).contiguous(memory_format=torch.channels_last), present)
        pooled = network.pooling(tokens)
        parts.append(features(pooled, tokens))
        answers.append(network.answer(pooled)["land_use"].argmax(dim=1))
    return torch.cat(parts), torch.cat(answers).numpy()


def fit(head: KnownHead, found: Tensor, pictures: Pictures, seed: int) -> None:
    """Train the head on features, with binary cross-entropy."""
    torch.manual_seed(seed)
    head.centre.copy_(found.mean(dim=0))
    head.scale.copy_(1 / found.std(dim=0).clamp(min=1e-3))
    target, weight = torch.from_numpy(pictures.known), torch.from_numpy(pictures.weights)
    weight = weight / weight.mean()
    steps = EPOCHS * max(1, len(found) // BATCH)
    optimiser = torch.optim.AdamW(head.layers.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3 * RATE, total_steps=steps)
    for _ in range(steps):
        rows = torch.randint(len(found), (BATCH,))
        seen = F.dropout((found[rows] - head.centre) * head.scale, DROPPED)
        loss = F.binary_cross_entropy_with_logits(head.layers(seen)[:, 0], 0.98 * target[rows] + 0.01, weight[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()


def choose_threshold(scores: NDArray[np.float32], groups: Sequence[str], sets: Sequence[str] = ()) -> float:
    """The highest threshold that rejects at most `REFUSED` of the unmodified pictures of every data set in `FILES` and `sets`."""
    of_group = [np.sort(scores[[group == name for group in groups]]) for name in (*FILES, *sets)]
    return float(
        min(each[int(REFUSED * len(each))] for each in of_group if len(each))
    )  # no scene of a small set may be held out


def refusals(scores: NDArray[np.float32], groups: Sequence[str], threshold: float) -> dict[str, float]:
    """The share below the threshold per group."""
    names = np.array(groups)
    return {name: float((scores[names == name] < threshold).mean()) for name in dict.fromkeys(groups)}


@torch.inference_mode()
def scores_of(head: KnownHead, found: Tensor) -> NDArray[np.float32]:
    """The output `known` of each picture, 0 to 1: float32 `[N]`."""
    return head(found)[:, 0].sigmoid().numpy()


def teach_known(
    checkpoint: Annotated[Path, typer.Argument(help="The folder of a training run, or the name of a shipped checkpoint.")],
    data_root: Annotated[Path, typer.Option(help="The folder that holds the data sets and not_land.zip.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder to write the checkpoint to.", callback=checkpoint_to_be_written)
    ] = Path("known"),
    seed: Annotated[int, typer.Option(help="Seed of the generated pictures, the degradations and the head's weights.")] = 0,
    units: Annotated[int, typer.Option(min=1, help="Hidden units of the head.")] = UNITS,
) -> None:
    """Train a network's output 'known', for abstention. Its other outputs do not change."""
    threshold, refused = with_known_head(located(str(checkpoint)), data_root, output, seed, units)
    table = Table("pictures", "refused", title=f"held-out pictures below {threshold:.3f}")
    for name, share in refused.items():
        table.add_row(name, f"{share:.1%}")
    printer().print(table)
    print(output)


def with_known_head(
    checkpoint: Path, root: Path, output: Path, seed: int, units: int = UNITS
) -> tuple[float, Mapping[str, float]]:
    """Write the checkpoint with the output `known`.

    Returns:
        The threshold, and the share below it per held-out group.

    Raises:
        DataRefused: a data set is not there.
        UsageError: the network has no head `land_use`.
    """
    old, spec, provenance = load_network(checkpoint)
    sets = tuple(name for name, row in MEASURED.items() if row.head and row.head.name in old.heads)
    needed = (*WIDER.values(), NOT_LAND, *(MEASURED[name].file for name in sets))
    if missing := [file for file in needed if not (root / file).exists()]:
        raise DataRefused(f"{root / missing[0]}: no such file; give the folder that holds the data sets with --data-root")
    if "land_use" not in old.heads:
        raise UsageError(f"{checkpoint}: has no head 'land_use', by which pictures that are too poor are found")
    size, side, groups = spec.input.height, judging_side(spec.input), spec.input.groups
    outputs = {head.name: head.width for head in spec.heads}
    backbone = load_checkpoint_config(checkpoint).backbone
    torch.manual_seed(seed)
    network = SpatialNet(
        backbone, outputs, size, groups, known=units, image_temperature=old.image_temperature is not None
    ).eval()
    network.load_state_dict({k: v for k, v in old.state_dict().items() if not k.startswith("known.")}, strict=False)
    assert network.known is not None
    pictures = gather(root, TRAIN, side, seed, groups, sets)
    found, answers = extract(network, pictures.images, size, groups)
    unknown = int((pictures.known == 0).sum())
    pictures = without_too_poor(pictures, answers)
    fit(network.known, found, pictures, seed)
    fit(network.known, found, emphasised(pictures, scores_of(network.known, found)), seed)
    held_out = gather(root, "holdout", side, seed + 1, groups, sets)
    scores = scores_of(network.known, extract(network, held_out.images, size, groups)[0])
    threshold = round(choose_threshold(scores, held_out.groups, sets), 4)
    provenance = replace(
        continued(provenance, "output 'known' taught on its features"),
        data=(*provenance.data, f"pictures without land, real and generated, for 'known' alone: {unknown}"),
        licence=with_known(provenance.licence, [TERMS[NWPU], NOT_LAND_TERMS]),
    )
    spec = replace(spec, known=Known(threshold=threshold))
    save_network(output, network, backbone, spec, provenance)
    return threshold, refusals(scores, held_out.groups, threshold)
