"""One training run from a configuration to a student: load, train, calibrate, save."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from spatialnet_edge import __version__
from spatialnet_edge.errors import DataRefused, UsageError
from spatialnet_edge.manifest import Provenance
from spatialnet_edge.spec import RGB, InputSpec, ModelSpec, Multiclass, Multilabel, Task
from spatialnet_training.calibration import abstention, fit_temperature
from spatialnet_training.checkpoint import save_student
from spatialnet_training.config import TrainConfig
from spatialnet_training.datasets import Samples, load_split, task_labels
from spatialnet_training.model import PRESETS, SpatialNetStudent
from spatialnet_training.taxonomy import load_taxonomy
from spatialnet_training.trainer import Trainer, accuracies, predict

Report = Callable[[dict[str, float]], None]

STORED_SIDE = 128
"""Images wait in memory no larger than this, in pixels: 25,000 of them take about one gigabyte."""


def train(config: TrainConfig, data_root: Path, out: Path, command: str, report: Report = lambda figures: None) -> Path:
    """Train, resuming from `out/last.ckpt` when it is there.

    Args:
        command: what the user typed, for the record.
        report: told the figures of each epoch.

    Returns:
        The path of `student.pt`: averaged weights, calibrated temperatures, the model's contract.

    Raises:
        UsageError: an unknown preset or data set.
        DataRefused: a data set is missing.
    """
    out.mkdir(parents=True, exist_ok=True)
    taxonomy = load_taxonomy()
    if config.preset not in PRESETS:
        raise UsageError(f"no preset '{config.preset}'; there are {', '.join(PRESETS)}")
    if unknown := sorted(set(config.data) - set(taxonomy.data_sets)):
        raise UsageError(f"the taxonomy has no data set '{unknown[0]}'; it has {', '.join(taxonomy.data_sets)}")
    sources = {name: data_root / file for name, file in config.data.items()}
    for path in sources.values():
        if not path.exists():
            raise DataRefused(f"{path}: no such data set; give the folder that holds it with --data-root")
    longest = max(STORED_SIDE, config.size)
    training = load_split(sources, taxonomy, "train", longest)
    tune = load_split(sources, taxonomy, "tune", longest)
    labels = task_labels(taxonomy, tuple(sources))
    torch.manual_seed(config.seed)
    network = SpatialNetStudent(PRESETS[config.preset], {task: len(names) for task, names in labels.items()}, config.size)
    trainer = Trainer(config, network, training)
    last = out / "last.ckpt"
    if last.exists():
        trainer.load(last)
    while trainer.epoch < config.epochs:
        figures = trainer.train_epoch()
        held_out = accuracies(predict(trainer.averaged.module, tune, config.size_at(trainer.epoch - 1)), tune)
        figures |= {f"tune/{task}": value for task, value in held_out.items()}
        with (out / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps({key: round(value, 5) for key, value in figures.items()}) + "\n")
        trainer.save(last)
        report(figures)
    network.load_state_dict(trainer.averaged.module.state_dict())
    spec = calibrated_spec(config, labels, predict(network, tune, config.size), tune)
    provenance = Provenance(
        created=time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
        tool=f"spatialnet-edge {__version__}, torch {torch.__version__}",
        source="from scratch",
        command=command,
        data=tuple(f"{name}: {(training.data_set == k).sum()} images" for k, name in enumerate(sources)),
        licence="Apache-2.0; trained on EuroSAT (MIT), UC Merced (public domain), RSSCN7 and AID (for research)",
    )
    save_student(out / "student.pt", network, config.preset, spec, provenance)
    return out / "student.pt"


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
