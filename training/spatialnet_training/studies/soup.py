"""Model soup: average the weights of two related networks. Often better than either, and not slower (Wortsman et al. 2022,
arXiv 2203.05482).

One network must have been trained further from the other; then the loss between them is
low. The mixing share is chosen on held-out training images.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from msgspec.structs import replace
from rich.table import Table
from torch import Tensor

from spatialnet_edge.bundle.manifest import Provenance
from spatialnet_edge.cli.printer import echo, printer
from spatialnet_edge.core.errors import UsageError
from spatialnet_edge.core.spec import ModelSpec
from spatialnet_training.data.custom_dataset import load_own
from spatialnet_training.data.dataset_registry import data_sets, learnt
from spatialnet_training.data.datasets import load_split
from spatialnet_training.data.samples import Samples, judging_side
from spatialnet_training.data.taxonomy import load_taxonomy
from spatialnet_training.lineage import command_line
from spatialnet_training.loop.evaluation import Judgement, judge
from spatialnet_training.networks.checkpoint import load_checkpoint_config, load_network, load_spec, save_network
from spatialnet_training.networks.checkpoint_paths import checkpoint_to_be_written, located, run_name
from spatialnet_training.networks.model import SpatialNet
from spatialnet_training.networks.transfer import answers
from spatialnet_training.studies.study_data import DataRoot, OwnData

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
QUERY = "pooling.query"
"""The pooling queries, one row for each head."""


@dataclass(frozen=True, slots=True)
class Mixture:
    """A mixture of the two networks.

    Attributes:
        share: weight of the second network.
        reached: evaluation on held-out images.
    """

    share: float
    network: SpatialNet
    reached: Judgement


Weights = dict[str, Tensor]


def related(first: Path, second: Path) -> tuple[SpatialNet, ModelSpec, Weights]:
    """The first network, and the weights of the second for the same heads. Heads that only the second has are left out.

    Raises:
        UsageError: they differ in shape or input, or the second lacks a head of the first.
    """
    network, spec, _ = load_network(first)
    other, other_spec, _ = load_network(second)
    # fitted to the features of one network: train `known` of the mean again, and recalibrate it
    network.image_temperature = other.image_temperature = network.known = other.known = None
    # the mean keeps the first network's resizing
    same_input = spec.input == replace(other_spec.input, resize=spec.input.resize)
    theirs = [answers(head) for head in other_spec.heads]
    if not same_input or any(answers(head) not in theirs for head in spec.heads):
        raise UsageError(
            f"{first} and {second} have different heads or inputs; give a network and one that was trained further from it"
        )
    own, weights = (
        network.state_dict(),
        of_heads(other.state_dict(), spec, [theirs.index(answers(head)) for head in spec.heads]),
    )
    if own.keys() != weights.keys() or any(own[key].shape != weights[key].shape for key in own):
        raise UsageError(
            f"{first} and {second} are networks of different shape; give a network and one that was trained further from it"
        )
    return network, replace(spec, known=None), weights


def of_heads(weights: Weights, spec: ModelSpec, rows: Sequence[int]) -> Weights:
    """The weights without heads that `spec` does not have.

    Args:
        rows: the place of each head of `spec` in the network of the weights.
    """
    names = {head.name for head in spec.heads}
    kept = {key: value for key, value in weights.items() if not key.startswith("heads.") or key.split(".")[1] in names}
    return kept | {QUERY: weights[QUERY][list(rows)]}


def mixed(network: SpatialNet, towards: Weights, share: float) -> SpatialNet:
    """A network with weights interpolated by `share` between the two.

    The statistics of batch norms are averaged like the weights. Statistics recomputed from images without augmentation gave
    worse results, because both networks were trained with augmentation.
    """
    made = deepcopy(network)
    own = made.state_dict()
    made.load_state_dict({key: torch.lerp(own[key].float(), towards[key].float(), share).to(own[key].dtype) for key in own})
    return made.eval()


def best_of(first: Path, second: Path, holdout: Samples, shares: Sequence[float] = SHARES) -> tuple[Mixture, list[Mixture]]:
    """The mixture with the lowest held-out loss, and all mixtures."""
    network, spec, towards = related(first, second)
    made = [(share, mixed(network, towards, share)) for share in shares]
    found = [Mixture(share, mixture, judge(mixture, spec, holdout)) for share, mixture in made]
    return min(found, key=lambda each: each.reached.loss), found


def held_out_images(spec: ModelSpec, own: Path | None, root: Path | None) -> Samples:
    """The held-out training images for choosing a mixture.

    Raises:
        UsageError: both or neither of `own` and `root`, or the user's own labels are not the network's.
        DataRefused: the images cannot be used.
    """
    if (own is None) == (root is None):
        raise UsageError("give either --data with your own images, or --data-root with the published data sets")
    if own is not None:
        data = load_own(own, judging_side(spec.input), spec.input.groups)
        if [answers(head) for head in data.heads] != [answers(head) for head in spec.heads]:
            raise UsageError(f"{own}: its labels are not those of {spec.name}; give the data that it was trained on")
        return data.holdout
    assert root is not None
    paths = data_sets(root, ",".join(learnt([spec])))
    return load_split(paths, load_taxonomy(), "holdout", judging_side(spec.input))


def soup(
    first: Annotated[Path, typer.Argument(help="The folder of a training run, or the name of a shipped checkpoint.")],
    second: Annotated[Path, typer.Argument(help="The folder of the run that was trained further from it.")],
    data: OwnData = None,
    data_root: DataRoot = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder to write the checkpoint to.", callback=checkpoint_to_be_written)
    ] = Path("soup"),
    share: Annotated[
        float | None, typer.Option(min=0, max=1, help="Use this share of the second network. Default: the best of five.")
    ] = None,
) -> None:
    """Average the weights of two related networks; held-out training images select the share."""
    first, second = located(str(first)), located(str(second))
    spec = load_spec(first)
    holdout = held_out_images(spec, data, data_root)
    best, found = best_of(first, second, holdout, SHARES if share is None else (share,))
    heads = [name for name in best.reached.figures if data is not None or name.startswith("land_use_")]
    columns = [name.removeprefix("land_use_") for name in heads]
    table = Table("share of the second", "held-out loss", *columns, title=f"{len(holdout)} held-out training images")
    for each in found:
        mark = " ←" if each is best else ""
        figures = (f"{each.reached.figures[name]:.1%}" for name in heads)
        table.add_row(f"{each.share:.2f}{mark}", f"{each.reached.loss:.4f}", *figures)
    printer().print(table)
    config = load_checkpoint_config(second)
    before = config.provenance
    provenance = Provenance(
        created=time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
        tool=before.tool,
        source=f"{best.share:.2f} of {run_name(second)} ({before.source}), the rest of {run_name(first)}",
        command=command_line(),
        data=before.data,
        licence=before.licence,
    )
    save_network(output, best.network, config.backbone, best.reached.spec, provenance)
    echo(output)
