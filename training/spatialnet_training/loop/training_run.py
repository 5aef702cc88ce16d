"""One training run from a configuration to a network: load, train, calibrate, save."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch
from msgspec.structs import replace
from torch import Tensor, nn

from spatialnet_edge import __version__
from spatialnet_edge.bundle.manifest import Provenance
from spatialnet_edge.core.errors import RunError, UsageError
from spatialnet_edge.core.spec import BandGroup, Head, InputSpec, ModelSpec, Multiclass, Multilabel, Regression
from spatialnet_training.config import SELF, TaughtBy, TrainConfig
from spatialnet_training.data.bands import groups_named
from spatialnet_training.data.dataset_record import write_record
from spatialnet_training.data.datasets import TrainingData, load_unlabelled, with_gsd
from spatialnet_training.data.samples import Samples
from spatialnet_training.distillation.teachers import Teacher, as_teacher, taken_bands
from spatialnet_training.loop.best_epoch import BEST, LINEAR_HEAD, BestEpoch, Candidate, held_out_loss
from spatialnet_training.loop.licensing import licence
from spatialnet_training.loop.linear_head import LinearFit, fit_linear_heads, larger_size
from spatialnet_training.loop.run_card import Outcome, write_card
from spatialnet_training.loop.run_fingerprint import fingerprint, require_same, write_identity
from spatialnet_training.loop.selection import Selection, selection_of, should_fine_tune, training_images_seem_known
from spatialnet_training.loop.trainer import Trainer, accuracies, epochs_of, newest_readable, predict
from spatialnet_training.loop.verdict import Verdict, verdict_of
from spatialnet_training.losses.class_balance import log_shares
from spatialnet_training.losses.temperature_scaling import abstention, fit_temperature
from spatialnet_training.networks.checkpoint import load_network, load_spec, save_network
from spatialnet_training.networks.checkpoint_paths import NETWORK, located, run_name
from spatialnet_training.networks.model import SpatialNet
from spatialnet_training.networks.transfer import answers, transfer

LAST, LOG = "last.ckpt", "log.csv"

MOST_EVERY_EPOCH = 1000
"""So many of a user's validation images are judged after each epoch; at the end, all."""


def stored_side(config: TrainConfig) -> int:
    """Side that images are kept at, in pixels: enough for every stage and every teacher.

    Raises:
        UsageError: a teacher is not there.
        Refused: a teacher cannot be read.
    """
    seen = [each.size or load_spec(located(each.checkpoint)).input.height for each in other_teachers(config)]
    larger = [larger_size(config.size)] if config.linear_head else []
    return max(config.stored_side, *(stage.size for stage in config.stages), *larger, *seen)


def other_teachers(config: TrainConfig) -> list[TaughtBy]:
    """Those that are checkpoints, which a run's own averaged weights are not."""
    settings = config.distillation
    return [each for each in settings.taught_by if each.checkpoint != SELF] if settings else []


def starting_point(config: TrainConfig) -> Path | None:
    """The checkpoint that a run's weights start from; None for random or pretrained ones.

    Raises:
        UsageError: there is no such checkpoint.
    """
    try:
        return located(config.start) if config.start else None
    except UsageError as error:
        raise UsageError(f"{error}; or give --start scratch") from error


class Watcher:
    """What a run tells of itself; this one is silent."""

    def steps(self, epoch: int, count: int) -> AbstractContextManager[Callable[[], None]]:
        """Entered for every epoch; what it gives is called after each of `count` steps."""
        return nullcontext(lambda: None)

    def epoch(self, figures: dict[str, float]) -> None:
        """The figures of an epoch; epoch 0 is the linear head's."""

    def note(self, text: str) -> None:
        """What a user should know while the run goes on."""

    def finished(self, selection: Selection | None, verdict: Verdict) -> None:
        """What was compared, where something was, and what the network reaches."""


def train(
    config: TrainConfig,
    data: TrainingData,
    out: Path,
    command: str,
    watcher: Watcher | None = None,
) -> Path:
    """Train, resuming from `out/last.ckpt` when it is there.

    Args:
        command: what the user typed, for the record.

    Returns:
        The path of `model.safetensors`: averaged weights. `config.json` beside it has the heads and their calibration; `log.csv`,
            `card.html` and its plots stand there, too, and of a user's own data `dataset.json` and `splits.csv`.

    Raises:
        UsageError: an unknown backbone or group, no such checkpoint to start from, a teacher of other labels, a count of
            what cannot be counted, or `out` holds another run's checkpoint.
        RunError: the training diverged, or a checkpoint cannot be written.
    """
    watcher = watcher or Watcher()
    start = starting_point(config)
    groups = groups_named(config.groups)
    check_counts(config.counts, data.heads)
    torch.manual_seed(config.seed)
    outputs = {head.name: head.width for head in data.heads}
    network = SpatialNet(config.backbone, outputs, config.size, groups, config.weights)
    inherited = transfer(network, data.heads, start).licence if start else None
    settings = config.distillation
    teachers = [load_teacher(each, data, groups) for each in other_teachers(config)]
    unlabelled, seen, terms = None, data.summary, [*data.terms]
    if settings and settings.unlabelled:
        unlabelled = load_unlabelled(Path(settings.unlabelled), stored_side(config), groups, settings.unlabelled_tile)
        seen = (*seen, f"{unlabelled.data_sets[0]}: {len(unlabelled)} unlabelled")
        terms.append(settings.unlabelled_terms)
    terms.append(config.weights_terms)
    out.mkdir(parents=True, exist_ok=True)
    resumed = newest_readable(out / LAST) is not None
    if (out / LAST).exists() and not resumed:
        raise RunError(f"{out / LAST}: damaged, and no earlier checkpoint can be read; remove it to train from the beginning")
    identity = fingerprint(config, start, seen, data.heads, data.train)
    if resumed:
        require_same(out, identity, epochs_of(out / LAST))
    fit = None
    value_range = data.own.options.value_range if data.own else None
    given = InputSpec(height=config.size, width=config.size, groups=groups, value_range=value_range)
    if config.linear_head and not resumed:
        fit = fit_linear_heads(
            network, data.train, given, config.flips, data.groups_of_training, queries_of(start), config.class_balance
        )
    best = BestEpoch(out / BEST, fresh=not resumed) if config.keep_best else None
    if best and fit:
        best.balanced_heads = fit.balanced_heads
    trainer = Trainer(config, network, data.train, teachers, unlabelled, log_shares=adjustments(config, data, best))
    if not trainer.fabric.is_global_zero:
        watcher = Watcher()  # one of several processes speaks
    if resumed:
        trainer.load(out / LAST)
    trainer.fabric.barrier()
    judge = EpochJudge(config, data, groups)
    if best:
        best.writes = trainer.fabric.is_global_zero
    if trainer.fabric.is_global_zero:
        write_identity(out, identity)
    linear_loss = float("inf")
    if fit is not None and best is not None:
        figures = linear_figures(fit, config) | judge.figures(trainer.network, 0)
        best.offer(Candidate(LINEAR_HEAD, figures["holdout_loss"]), trainer.network)
        trainer.history.append(figures)
        watcher.epoch(figures)
        linear_loss = figures["holdout_loss"]
        if (known := training_images_seem_known(fit, figures)) is not None:
            watcher.note(known)
    tune, why = should_fine_tune(config, fit, linear_loss) if not resumed else (True, "resumed")
    if fit is not None and tune:
        watcher.note(f"fine-tuning: {why}")
    while tune and trainer.epoch < config.epochs:
        if best and config.patience and best.epochs_without_gain(trainer.epoch) >= config.patience:
            watcher.note(f"stopped after epoch {trainer.epoch}: no lower held-out loss in {config.patience} epochs")
            break
        with watcher.steps(trainer.epoch, len(trainer.loader)) as advance:
            figures = trainer.train_epoch(advance)
        figures |= judge.figures(trainer.averaged.module, trainer.epoch)
        if best:
            best.offer(Candidate(trainer.epoch, figures["holdout_loss"]), trainer.averaged.module)
        trainer.history.append(figures)
        trainer.save(out / LAST)
        if trainer.fabric.is_global_zero:
            write_log(out / LOG, trainer.history)
            watcher.epoch(figures)
    trainer.fabric.barrier()
    network.load_state_dict(best.weights() if best else trainer.averaged.module.state_dict())
    selection = selection_of(best, trainer.history, None if tune else why) if best else None
    logits = predict(network, data.holdout, config.size, groups)
    spec = ModelSpec(
        name=config.name,
        input=given,
        heads=tuple(
            with_gsd(calibrated(head, logits[head.name], data.holdout), data.ground_sides, config.size) for head in data.heads
        ),
    )
    provenance = Provenance(
        created=time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
        tool=f"spatialnet-edge {__version__}, torch {torch.__version__}",
        source=origin(config, start),
        command=command,
        data=seen,
        licence=licence(data.grant, terms, inherited),
    )
    if trainer.fabric.is_global_zero:
        save_network(out, network, config.backbone, spec, provenance)
        write_log(out / LOG, trainer.history)  # also when there was nothing left to train
        if data.own is not None:
            write_record(out, data.own_path, data.own)
        verdict = verdict_of(network, spec, data, config, logits)
        outcome = Outcome(
            config=config,
            spec=spec,
            provenance=provenance,
            parameters=sum(parameter.numel() for parameter in network.parameters()),
            seconds=sum(figures["seconds"] for figures in trainer.history),
            verdict=verdict,
            selection=selection,
        )
        write_card(out, outcome, out / LOG)
        watcher.finished(selection, verdict)
    trainer.fabric.barrier()
    return out / NETWORK


def adjustments(config: TrainConfig, data: TrainingData, best: BestEpoch | None) -> dict[str, Tensor]:
    """What is added to the logits of each head in training; see `TrainConfig.class_balance`."""
    if config.class_balance in ("none", "sampling"):
        return {}
    chosen = best.balanced_heads if config.class_balance == "auto" and best else tuple(head.name for head in data.heads)
    found: dict[str, Tensor] = {}
    for head in data.heads:
        if head.name in chosen and isinstance(head, Multiclass):
            found[head.name] = log_shares(torch.from_numpy(data.train.targets[head.name].astype(np.int64)), head.width)
    return found


def queries_of(start: Path | None) -> Tensor | None:
    """The pooling queries of a checkpoint: float32 `[heads, width]`; None without one."""
    return None if start is None else load_network(start)[0].pooling.query.detach()


def linear_figures(fit: LinearFit, config: TrainConfig) -> dict[str, float]:
    """The row of the log for the linear head, which is epoch 0; what it has none of is no number."""
    return {
        "epoch": LINEAR_HEAD,
        "size": config.size,
        "loss": math.nan,
        "learning_rate": 0.0,
        "seconds": fit.seconds,
        "images_per_second": math.nan,
    }


class EpochJudge:
    """What weights reach after an epoch: on held-out training images, and on a user's own validation images."""

    def __init__(self, config: TrainConfig, data: TrainingData, groups: tuple[BandGroup, ...]) -> None:
        self.config, self.data, self.groups = config, data, groups
        self.val = spread(data.val, MOST_EVERY_EPOCH) if data.val is not None else None

    def figures(self, network: nn.Module, epoch: int) -> dict[str, float]:
        """Accuracies by `holdout/HEAD` and `val/HEAD`, and the held-out loss where weights are chosen by it.

        Args:
            epoch: counted from 1; 0 for the linear head.
        """
        size = self.config.size if epoch == LINEAR_HEAD else self.config.stage_at(epoch - 1).size
        logits = predict(network, self.data.holdout, size, self.groups)
        found = {f"holdout/{head}": value for head, value in accuracies(logits, self.data.holdout).items()}
        if self.config.keep_best:
            found["holdout_loss"] = held_out_loss(
                self.data.heads, logits, self.data.holdout, balanced=self.config.class_balance != "none"
            )
        if self.val is not None:
            reached = accuracies(predict(network, self.val, size, self.groups), self.val)
            found |= {f"val/{head}": value for head, value in reached.items()}
        return found


def spread(samples: Samples, most: int) -> Samples:
    """At most so many images, evenly chosen."""
    rows = np.unique(np.linspace(0, len(samples) - 1, min(most, len(samples))).astype(int))
    return samples.subset(rows.tolist())


def check_counts(counts: Mapping[str, str], heads: Sequence[Head]) -> None:
    """Find a count that is none.

    Raises:
        UsageError: a head is not there, is no quantity of 0 to the number of labels, or has no labels that may be true together.
    """
    by_name = {head.name: head for head in heads}
    for quantity, labels in counts.items():
        count, counted = by_name.get(quantity), by_name.get(labels)
        right = (
            isinstance(count, Regression)
            and isinstance(counted, Multilabel)
            and count.low == 0
            and count.high == counted.width
        )
        if not right:
            raise UsageError(
                f"counts: '{quantity}' cannot count '{labels}'; expected a quantity from 0 to the number of labels of a head whose "
                f"labels may be true together; this run's heads are {', '.join(by_name)}"
            )


def origin(config: TrainConfig, start: Path | None) -> str:
    """Where the weights come from, in words."""
    source = f"started from {run_name(start)}" if start else "from scratch"
    if config.weights and not start:
        source = f"started from {Path(config.weights).name}"
    if config.distillation:
        source += f", distilled from {', '.join(named(each) for each in config.distillation.taught_by)}"
    return source


def named(teacher: TaughtBy) -> str:
    """A teacher in words."""
    name = "itself" if teacher.checkpoint == SELF else run_name(Path(teacher.checkpoint))
    return f"{name} (of {' and '.join(teacher.datasets)})" if teacher.datasets else name


def load_teacher(teacher: TaughtBy, data: TrainingData, groups: tuple[BandGroup, ...]) -> Teacher:
    """A checkpoint whose heads mean what the student's mean, and which takes bands that the student has.

    Args:
        groups: the student's.

    Raises:
        UsageError: it is not there; it has no head in common, or one with other labels; or it is to know a data set that is not
            there.
        Refused: it cannot be read.
    """
    path = located(teacher.checkpoint)
    network, spec, _ = load_network(path)
    wanted = dict(answers(head) for head in data.heads)
    shared = [head for head in spec.heads if head.name in wanted]
    if not shared:
        raise UsageError(f"{path}: teaches {', '.join(t.name for t in spec.heads)}; the student learns {', '.join(wanted)}")
    if other := [head.name for head in shared if wanted[head.name] != answers(head)[1]]:
        raise UsageError(f"{path}: its labels of '{other[0]}' are not the student's, or in another order")
    bands = taken_bands(spec.input.groups, groups)
    return as_teacher(network, teacher.size or spec.input.height, teacher, data.train.data_sets, bands)


def write_log(log: Path, history: Sequence[dict[str, float]]) -> None:
    """One row an epoch, as the checkpoint has them: a run that was killed and resumed has no row twice."""
    with log.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(history[-1]))
        writer.writeheader()
        writer.writerows({key: round(value, 5) for key, value in figures.items()} for figures in history)


def calibrated(head: Head, logits: Tensor, holdout: Samples) -> Head:
    """The head with temperature and abstention from the held-out training images."""
    target = torch.from_numpy(holdout.targets[head.name])
    if isinstance(head, Multiclass):
        temperature = fit_temperature(logits, target)
        least = abstention((logits / temperature).softmax(dim=1), target)
        return replace(head, temperature=temperature, abstain_below=least)
    if isinstance(head, Multilabel):
        return replace(head, temperature=fit_temperature(logits, target))
    return head
