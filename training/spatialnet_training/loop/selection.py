"""Which weights a run ends with: the linear head, or the best epoch of fine-tuning, by the loss on held-out training images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from spatialnet_training.config import TrainConfig
from spatialnet_training.loop.best_epoch import LINEAR_HEAD, BestEpoch
from spatialnet_training.loop.linear_head import LinearFit

GOOD_ENOUGH = 0.95
"""Cross-validated accuracy from which on fine-tuning is not worth its time by default."""


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the table.

    Attributes:
        loss: on held-out training images.
        figures: `holdout/HEAD` and `val/HEAD` to accuracy, 0 to 1.
    """

    name: str
    loss: float
    figures: Mapping[str, float]
    chosen: bool


@dataclass(frozen=True, slots=True)
class Selection:
    """What was compared, and why the chosen one was."""

    options: tuple[Option, ...]
    reason: str


def should_fine_tune(config: TrainConfig, fit: LinearFit | None) -> tuple[bool, str]:
    """Whether to train all weights, and why."""
    if fit is None:
        return True, "no linear head was asked for"
    accuracy = float(np.mean(list(fit.accuracies.values())))
    if config.fine_tune == "always":
        return True, "asked for"
    if config.fine_tune == "never":
        return False, "not asked for"
    if accuracy >= GOOD_ENOUGH:
        return False, (
            f"the linear head is right on {accuracy:.1%} of cross-validated training images, {GOOD_ENOUGH:.0%} or more; "
            f"--fine-tune always trains on"
        )
    return True, f"the linear head is right on {accuracy:.1%} of cross-validated training images, less than {GOOD_ENOUGH:.0%}"


def selection_of(best: BestEpoch, history: Sequence[Mapping[str, float]], why_not_tuned: str | None) -> Selection:
    """The table of a finished run.

    Args:
        history: figures of each epoch; the row of epoch 0 is the linear head's.
        why_not_tuned: None where all weights were trained.
    """
    assert best.best is not None
    chosen = best.best.epoch
    tuned = [row for row in history if row["epoch"] != LINEAR_HEAD]
    rows = [row for row in history if row["epoch"] == LINEAR_HEAD]
    rows += [min(tuned, key=lambda row: row["holdout_loss"])] if tuned else []
    options = tuple(
        Option(name_of(int(row["epoch"]), len(tuned)), row["holdout_loss"], accuracies_of(row), row["epoch"] == chosen)
        for row in rows
    )
    if why_not_tuned is not None:
        return Selection(options, f"fine-tuning was left out: {why_not_tuned}")
    if len(options) < 2:
        return Selection(options, "the epoch with the lowest loss on held-out training images")
    winner, loser = sorted(options, key=lambda option: not option.chosen)
    return Selection(
        options, f"{winner.name} has the lower loss on held-out training images: {winner.loss:.3f}, against {loser.loss:.3f}"
    )


def name_of(epoch: int, epochs: int) -> str:
    return "linear head on frozen features" if epoch == LINEAR_HEAD else f"fine-tuned, epoch {epoch} of {epochs}"


def accuracies_of(row: Mapping[str, float]) -> dict[str, float]:
    return {key: value for key, value in row.items() if key.startswith(("holdout/", "val/"))}
