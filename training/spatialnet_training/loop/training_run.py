"""A training run, from a configuration to a network: load, train, calibrate, save.

Each stage is one function: `open_inputs` → `resumes` → `start_training` → `fine_tune` → `calibrated_result` → `write_result`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spatialnet_edge.core.errors import RunError
from spatialnet_edge.core.spec import InputSpec, Multiclass
from spatialnet_training.config import TrainConfig
from spatialnet_training.data.datasets import TrainingData
from spatialnet_training.loop.best_epoch import BEST, LINEAR_HEAD, BestEpoch, Candidate
from spatialnet_training.loop.epoch_judge import EpochJudge
from spatialnet_training.loop.linear_head import LinearFit, fit_linear_heads
from spatialnet_training.loop.run_fingerprint import RunFingerprint, fingerprint, require_same, write_identity
from spatialnet_training.loop.run_inputs import RunInputs, open_inputs
from spatialnet_training.loop.run_result import LOG, calibrated_result, uncalibrated, write_log, write_result
from spatialnet_training.loop.selection import selection_of, should_fine_tune, training_images_seem_known
from spatialnet_training.loop.trainer import Trainer, epochs_of, newest_readable
from spatialnet_training.loop.watcher import Watcher
from spatialnet_training.losses.class_balance import log_shares
from spatialnet_training.networks.checkpoint import load_network
from spatialnet_training.networks.checkpoint_file import load_checkpoint
from spatialnet_training.networks.checkpoint_paths import NETWORK

LAST = "last.ckpt"


def train(
    config: TrainConfig,
    data: TrainingData,
    out: Path,
    command: str,
    watcher: Watcher | None = None,
) -> Path:
    """Train, or resume from `out/last.ckpt` if it exists.

    Args:
        command: the user's command line, for the provenance.

    Returns:
        The path of `model.safetensors` with the averaged weights. The same folder has `config.json` (heads and calibration),
            `log.csv`, `card.html` and its plots, and for a user's own data `dataset.json` and `splits.csv`.

    Raises:
        UsageError: an unknown backbone or group, an unknown initial checkpoint, a teacher with other labels, an invalid count,
            or `out` holds another run's checkpoint.
        RunError: the training diverged, or a checkpoint cannot be written.
    """
    torch.manual_seed(config.seed)
    inputs = open_inputs(config, data)
    identity = fingerprint(config, inputs.start, inputs.seen, data.heads, data.train)
    resumed = resumes(out, identity)
    value_range = data.own.options.value_range if data.own else None
    given = InputSpec(height=config.size, width=config.size, groups=inputs.groups, value_range=value_range)
    run = start_training(config, data, inputs, given, out, resumed)
    first = run.trainer.fabric.is_global_zero
    watcher = watcher if watcher and first else Watcher()  # only one of several processes prints
    if first:
        write_identity(out, identity)
    if resumed:
        watcher.note(resumed_from(out, run.trainer.epoch))
    linear_loss = math.inf
    if run.fit is not None and run.best is not None:
        linear_loss = keep_linear_head(run, config, run.fit, run.best, watcher)
    tune, why = should_fine_tune(config, run.fit, linear_loss) if not resumed else (True, "resumed")
    if tune:
        if run.fit is not None:
            watcher.note(f"fine-tuning: {why}")
        fine_tune(config, run, out, watcher)
    run.trainer.fabric.barrier()
    inputs.network.load_state_dict(run.best.weights() if run.best else run.trainer.averaged.module.state_dict())
    result = calibrated_result(config, data, inputs, given, command)
    for name in uncalibrated(data):
        watcher.note(f"{name}: no training image is held out, so its probabilities are not calibrated")
    if run.fit is not None and not tune:  # after the calibration, which needs images that the heads were not fitted to
        run.fit.use_all_images(inputs.network)
        run.trainer.history[LINEAR_HEAD] |= run.judge.on_val(inputs.network, config.size)
    selection = selection_of(run.best, run.trainer.history, None if tune else why) if run.best else None
    if first:
        out_of_fold = run.fit.out_of_fold if run.fit is not None else {}
        verdict = write_result(out, config, data, result, run.trainer.history, selection, out_of_fold)
        watcher.finished(selection, verdict)
    run.trainer.fabric.barrier()
    return out / NETWORK


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """A run that is ready to train.

    Attributes:
        best: the weights of the best epoch so far; None where the last ones are taken.
        fit: the linear head that was fitted on frozen features; None without one, and where the run goes on from a checkpoint.
    """

    trainer: Trainer
    judge: EpochJudge
    best: BestEpoch | None
    fit: LinearFit | None


def resumes(out: Path, identity: RunFingerprint) -> bool:
    """Whether the folder has a checkpoint of this run to resume from. A missing folder is created.

    Raises:
        RunError: it holds a checkpoint that cannot be read.
        UsageError: it holds another run's.
    """
    out.mkdir(parents=True, exist_ok=True)
    if newest_readable(out / LAST) is not None:
        require_same(out, identity, epochs_of(out / LAST))
        return True
    if (out / LAST).exists():
        raise RunError(f"{out / LAST}: damaged, and no earlier checkpoint can be read; remove it to train from the beginning")
    return False


def resumed_from(out: Path, epoch: int) -> str:
    """Where a run resumes, for people."""
    damaged = f"; {LAST} is damaged, so the checkpoint before it is used" if load_checkpoint(out / LAST) is None else ""
    return f"resumed after epoch {epoch}{damaged}"


def start_training(
    config: TrainConfig, data: TrainingData, inputs: RunInputs, given: InputSpec, out: Path, resumed: bool
) -> TrainingRun:
    """Fit the linear head of a new run, or load the checkpoint of a resumed one.

    Args:
        given: the input of the network.
    """
    fit = None
    if config.linear_head and not resumed:
        balance, frames = config.class_balance, data.groups_of_training
        queries = queries_of(inputs.start)
        heldout = None if config.fine_tune == "always" else data.holdout  # only a final head is fitted to them too
        fit = fit_linear_heads(
            inputs.network, data.train, given, config.flips, frames, queries, balance, heldout, data.groups_of_holdout
        )
    best = BestEpoch(out / BEST, fresh=not resumed) if config.keep_best else None
    if best and fit:
        best.balanced_heads = fit.balanced_heads
    shares = adjustments(config, data, best)
    trainer = Trainer(config, inputs.network, data.train, inputs.teachers, inputs.unlabelled, log_shares=shares)
    if resumed:
        trainer.load(out / LAST)
    trainer.fabric.barrier()
    if best:
        best.writes = trainer.fabric.is_global_zero
    return TrainingRun(trainer, EpochJudge(config, data, inputs.groups), best, fit)


def keep_linear_head(run: TrainingRun, config: TrainConfig, fit: LinearFit, best: BestEpoch, watcher: Watcher) -> float:
    """Record the linear head as epoch 0, the first candidate. Returns its held-out loss."""
    network = run.trainer.network
    figures = linear_figures(fit, config) | run.judge.figures(network, LINEAR_HEAD)
    best.offer(Candidate(LINEAR_HEAD, figures["holdout_loss"]), network)
    run.trainer.history.append(figures)
    watcher.epoch(figures)
    if (known := training_images_seem_known(fit, figures)) is not None:
        watcher.note(known)
    return figures["holdout_loss"]


def fine_tune(config: TrainConfig, run: TrainingRun, out: Path, watcher: Watcher) -> None:
    """Train the remaining epochs, or until the held-out loss stops decreasing. Each epoch writes a checkpoint and a row of the
    log."""
    trainer, best = run.trainer, run.best
    while trainer.epoch < config.epochs:
        if best and config.patience and best.epochs_without_gain(trainer.epoch) >= config.patience:
            watcher.note(f"stopped after epoch {trainer.epoch}: no lower held-out loss in {config.patience} epochs")
            return
        with watcher.steps(trainer.epoch, len(trainer.loader)) as advance:
            figures = trainer.train_epoch(advance)
        averaged = trainer.averaged.module
        figures |= run.judge.figures(averaged, trainer.epoch)
        if best:
            best.offer(Candidate(trainer.epoch, figures["holdout_loss"]), averaged)
        trainer.history.append(figures)
        trainer.save(out / LAST)
        if trainer.fabric.is_global_zero:
            write_log(out / LOG, trainer.history)
            watcher.epoch(figures)


def adjustments(config: TrainConfig, data: TrainingData, best: BestEpoch | None) -> dict[str, Tensor]:
    """Logit offsets per head during training; see `TrainConfig.class_balance`."""
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
    """The log row of the linear head, which is epoch 0; missing values are NaN."""
    return {
        "epoch": LINEAR_HEAD,
        "size": config.size,
        "loss": math.nan,
        "learning_rate": 0.0,
        "seconds": fit.seconds,
        "images_per_second": math.nan,
    }
