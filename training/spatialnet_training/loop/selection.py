"""Selection of the final weights by held-out loss: the linear head, or the best epoch of fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from spatialnet_training.config import TrainConfig
from spatialnet_training.loop.best_epoch import LINEAR_HEAD, BestEpoch
from spatialnet_training.loop.linear_head import LinearFit

GOOD_ENOUGH = 0.95
"""Cross-validated accuracy from which fine-tuning is skipped by default."""


@dataclass(frozen=True, slots=True)
class Option:
    """A candidate: one row of the table.

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
    """The candidates, and the reason for the choice."""

    options: tuple[Option, ...]
    reason: str


def should_fine_tune(config: TrainConfig, fit: LinearFit | None) -> tuple[bool, str]:
    """Whether to train all weights, and the reason."""
    if fit is None:
        return True, "no linear head was requested"
    accuracy = float(np.mean(list(fit.accuracies.values())))
    if config.fine_tune == "always":
        return True, "asked for"
    if config.fine_tune == "never":
        return False, "not requested"
    if accuracy >= GOOD_ENOUGH:
        return False, (
            f"the linear head has a cross-validated accuracy of {accuracy:.1%}, {GOOD_ENOUGH:.0%} or more; give "
            "--fine-tune always to fine-tune anyway"
        )
    return True, f"the linear head has a cross-validated accuracy of {accuracy:.1%}, less than {GOOD_ENOUGH:.0%}"


def selection_of(best: BestEpoch, history: Sequence[Mapping[str, float]], why_not_tuned: str | None) -> Selection:
    """The selection of a finished run.

    Args:
        history: metrics of each epoch; epoch 0 is the linear head.
        why_not_tuned: None if all weights were trained.
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
        return Selection(options, f"fine-tuning was skipped: {why_not_tuned}")
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
