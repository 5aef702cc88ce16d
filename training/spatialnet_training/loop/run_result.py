"""The result of a run: the calibrated network, its provenance, the log and the card."""

from __future__ import annotations

import csv
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from msgspec.structs import replace
from torch import Tensor

from spatialnet_edge import __version__
from spatialnet_edge.bundle.manifest import Provenance
from spatialnet_edge.core.spec import Head, InputSpec, ModelSpec, Multiclass, Multilabel
from spatialnet_training.config import SELF, TaughtBy, TrainConfig
from spatialnet_training.data.dataset_record import write_record
from spatialnet_training.data.datasets import TrainingData, with_gsd
from spatialnet_training.data.samples import Samples
from spatialnet_training.loop.licensing import licence
from spatialnet_training.loop.prediction import predict
from spatialnet_training.loop.run_card import Outcome, write_card
from spatialnet_training.loop.run_inputs import RunInputs
from spatialnet_training.loop.selection import Selection
from spatialnet_training.loop.verdict import Verdict, verdict_of
from spatialnet_training.losses.multitask import labelled_rows
from spatialnet_training.losses.temperature_scaling import abstention, fit_temperature
from spatialnet_training.networks.checkpoint import save_network
from spatialnet_training.networks.checkpoint_paths import run_name

LOG = "log.csv"


@dataclass(frozen=True, slots=True)
class RunResult:
    """A trained network with its calibration.

    Attributes:
        logits: of the held-out training images, by head: float32 `[N, outputs]`.
    """

    inputs: RunInputs
    spec: ModelSpec
    provenance: Provenance
    logits: dict[str, Tensor]


def calibrated_result(config: TrainConfig, data: TrainingData, inputs: RunInputs, given: InputSpec, command: str) -> RunResult:
    """Calibrate the network on the held-out training images, and record its provenance.

    Args:
        given: the input of the network.
        command: the user's command line.
    """
    logits = predict(inputs.network, data.holdout, config.size, inputs.groups)
    fitted = [calibrated(head, logits[head.name], data.holdout) for head in data.heads]
    heads = tuple(with_gsd(head, data.ground_sides, config.size) for head in fitted)
    provenance = Provenance(
        created=time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
        tool=f"spatialnet-edge {__version__}, torch {torch.__version__}",
        source=origin(config, inputs.start),
        command=command,
        data=inputs.seen,
        licence=licence(data.grant, inputs.terms, inputs.inherited),
    )
    return RunResult(inputs, ModelSpec(name=config.name, input=given, heads=heads), provenance, logits)


def write_result(
    out: Path,
    config: TrainConfig,
    data: TrainingData,
    result: RunResult,
    history: Sequence[dict[str, float]],
    selection: Selection | None,
    out_of_fold: Mapping[str, Tensor],
) -> Verdict:
    """Write checkpoint, log, card and, for a user's own data, its record; and report the evaluation.

    Args:
        out_of_fold: see `LinearFit.out_of_fold`; empty without a linear head.
    """
    network = result.inputs.network
    save_network(out, network, config.backbone, result.spec, result.provenance)
    write_log(out / LOG, history)  # also if there was nothing left to train
    if data.own is not None:
        write_record(out, data.own_path, data.own)
    verdict = verdict_of(network, result.spec, data, config, result.logits, out_of_fold)
    outcome = Outcome(
        config=config,
        spec=result.spec,
        provenance=result.provenance,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        seconds=sum(figures["seconds"] for figures in history),
        verdict=verdict,
        selection=selection,
    )
    write_card(out, outcome, out / LOG)
    return verdict


def origin(config: TrainConfig, start: Path | None) -> str:
    """Description of the weights' origin."""
    source = f"started from {run_name(start)}" if start else "from scratch"
    if config.weights and not start:
        source = f"started from {Path(config.weights).name}"
    if config.distillation:
        source += f", distilled from {', '.join(named(each) for each in config.distillation.taught_by)}"
    return source


def named(teacher: TaughtBy) -> str:
    """Description of a teacher."""
    name = "itself" if teacher.checkpoint == SELF else run_name(Path(teacher.checkpoint))
    return f"{name} (of {' and '.join(teacher.datasets)})" if teacher.datasets else name


def write_log(log: Path, history: Sequence[dict[str, float]]) -> None:
    """Write one row per epoch from the checkpoint's history, so that a resumed run has no duplicate rows."""
    with log.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(history[-1]))
        writer.writeheader()
        writer.writerows({key: round(value, 5) for key, value in figures.items()} for figures in history)


def uncalibrated(data: TrainingData) -> list[str]:
    """The heads with a temperature for which no image is held out. Sets of few scenes may have none."""
    targets = {head.name: data.holdout.targets[head.name] for head in data.heads if isinstance(head, Multiclass | Multilabel)}
    return [name for name, target in targets.items() if not labelled_rows(torch.from_numpy(target)).any()]


def calibrated(head: Head, logits: Tensor, holdout: Samples) -> Head:
    """The head with temperature and abstention threshold from the held-out training images."""
    target = torch.from_numpy(holdout.targets[head.name])
    if isinstance(head, Multiclass):
        temperature = fit_temperature(logits, target)
        least = abstention((logits / temperature).softmax(dim=1), target)
        return replace(head, temperature=temperature, abstain_below=least)
    if isinstance(head, Multilabel):
        return replace(head, temperature=fit_temperature(logits, target))
    return head
