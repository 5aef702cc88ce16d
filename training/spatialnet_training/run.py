"""One training run from a configuration to a student: load, train, calibrate, save."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from spatialnet_edge import __version__
from spatialnet_edge.errors import UsageError, first_line
from spatialnet_edge.manifest import Provenance
from spatialnet_edge.spec import RGB, InputSpec, ModelSpec, Multiclass, Multilabel, Task
from spatialnet_training.calibration import abstention, fit_temperature
from spatialnet_training.checkpoint import load_student, save_student
from spatialnet_training.config import TrainConfig
from spatialnet_training.datasets import Samples, TrainingData
from spatialnet_training.model import PRESETS, SpatialNetStudent
from spatialnet_training.trainer import Trainer, accuracies, predict

Report = Callable[[dict[str, float]], None]

STORED_SIDE = 128
"""Images wait in memory no larger than this, in pixels: 25,000 of them take about one gigabyte."""


def stored_side(config: TrainConfig) -> int:
    return max(STORED_SIDE, config.size)


def train(
    config: TrainConfig,
    data: TrainingData,
    out: Path,
    command: str,
    report: Report = lambda figures: None,
    start: Path | None = None,
) -> Path:
    """Train, resuming from `out/last.ckpt` when it is there.

    Args:
        command: what the user typed, for the record.
        report: told the figures of each epoch.
        start: a student checkpoint whose weights, but for the heads, are where training starts; None for from scratch.

    Returns:
        The path of `student.pt`: averaged weights, calibrated temperatures, the model's contract.

    Raises:
        UsageError: an unknown preset.
    """
    if config.preset not in PRESETS:
        raise UsageError(f"no preset '{config.preset}'; there are {', '.join(PRESETS)}")
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    heads = {task: len(names) for task, names in data.labels.items()}
    network = SpatialNetStudent(PRESETS[config.preset], heads, config.size)
    if start is not None:
        transfer(network, start)
    trainer = Trainer(config, network, data.train)
    last = out / "last.ckpt"
    if last.exists():
        trainer.load(last)
    while trainer.epoch < config.epochs:
        figures = trainer.train_epoch()
        held_out = accuracies(predict(trainer.averaged.module, data.tune, config.size_at(trainer.epoch - 1)), data.tune)
        figures |= {f"tune/{task}": value for task, value in held_out.items()}
        with (out / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps({key: round(value, 5) for key, value in figures.items()}) + "\n")
        trainer.save(last)
        report(figures)
    network.load_state_dict(trainer.averaged.module.state_dict())
    spec = calibrated_spec(config, data.labels, predict(network, data.tune, config.size), data.tune)
    provenance = Provenance(
        created=time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
        tool=f"spatialnet-edge {__version__}, torch {torch.__version__}",
        source="from scratch" if start is None else f"started from {start.name}",
        command=command,
        data=data.summary,
        licence=data.licence,
    )
    save_student(out / "student.pt", network, config.preset, spec, provenance)
    return out / "student.pt"


def transfer(network: SpatialNetStudent, start: Path) -> None:
    """Take over every weight but those of the heads and their queries, which belong to other tasks.

    Raises:
        UsageError: the checkpoint is of another shape.
    """
    source, _, _ = load_student(start)
    kept = {k: v for k, v in source.state_dict().items() if not k.startswith("heads.") and k != "pooling.query"}
    own = network.state_dict()
    if kept["positions"].shape != own["positions"].shape:
        grid = own["positions"].shape[-2:]
        kept["positions"] = F.interpolate(kept["positions"], grid, mode="bicubic", align_corners=False)
    try:
        network.load_state_dict(own | kept)
    except RuntimeError as error:
        raise UsageError(
            f"{start}: not of this preset's shape ({first_line(error)}); choose the preset it was made with"
        ) from error


def calibrated_spec(
    config: TrainConfig, labels: dict[str, tuple[str, ...]], logits: dict[str, Tensor], tune: Samples
) -> ModelSpec:
    """The model's contract, with temperature and abstention of each head from the held-out training images."""
    tasks: list[Task] = []
    for name, names in labels.items():
        target = torch.from_numpy(tune.targets[name])
        temperature = fit_temperature(logits[name], target)
        if target.ndim == 1:
            probabilities = (logits[name] / temperature).softmax(dim=1)
            least = abstention(probabilities, target)
            tasks.append(Multiclass(name=name, labels=names, temperature=temperature, abstain_below=least))
        else:
            tasks.append(Multilabel(name=name, labels=names, temperature=temperature, thresholds=(0.5,) * len(names)))
    given = InputSpec(height=config.size, width=config.size, groups=(RGB,))
    return ModelSpec(name=config.name, input=given, tasks=tuple(tasks))
