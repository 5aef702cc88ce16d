"""Selection of the final weights by held-out loss: the linear head, or the best epoch of fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spatialnet_training.config import TrainConfig
from spatialnet_training.loop.best_epoch import LINEAR_HEAD, BestEpoch
from spatialnet_training.loop.linear_head import LinearFit

LITTLE_LOSS = 0.2
"""With a held-out loss of the linear head no higher than this, `auto` leaves fine-tuning out: about one wrong answer in twenty."""

CLEARLY_LESS = 0.03
"""A validation accuracy lower by this than the cross-validated one is worth a word."""


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


def should_fine_tune(config: TrainConfig, fit: LinearFit | None, holdout_loss: float) -> tuple[bool, str]:
    """Whether to train all weights, and why.

    Args:
        fit: the linear head; None without one.
        holdout_loss: its loss on held-out training images, which were not fitted.
    """
    if fit is None:
        return True, "no linear head was asked for"
    if config.fine_tune == "always":
        return True, "asked for"
    if config.fine_tune == "never":
        return False, "not asked for"
    if holdout_loss <= LITTLE_LOSS:
        return False, (
            f"the linear head's loss on held-out training images is {holdout_loss:.3f}, not more than {LITTLE_LOSS:g}; "
            f"--fine-tune always trains on"
        )
    return True, f"the linear head's loss on held-out training images is {holdout_loss:.3f}, more than {LITTLE_LOSS:g}"


def training_images_seem_known(fit: LinearFit, figures: Mapping[str, float]) -> str | None:
    """What to tell where validation images are answered clearly worse than training images that a fold left out; else None.

    A start that was trained on these very images makes every figure of training images too good, the held-out loss too. Nothing
    is chosen by validation images, so this is only said.

    Args:
        figures: of the linear head, with `val/HEAD` where there are validation images.
    """
    for head, crossed in fit.accuracies.items():
        reached = figures.get(f"val/{head}")
        if reached is not None and crossed - reached >= CLEARLY_LESS:
            return (
                f"{head}: {crossed:.1%} of training images when cross-validated, {reached:.1%} of validation images; the start may "
                f"have been trained on these training images, or validation images differ from them: judge by the validation "
                f"images"
            )
    return None


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
        options, f"{winner.name} has the lower loss on held-out training images: {winner.loss:.3g}, against {loser.loss:.3g}"
    )


def name_of(epoch: int, epochs: int) -> str:
    return "linear head on frozen features" if epoch == LINEAR_HEAD else f"fine-tuned, epoch {epoch} of {epochs}"


def accuracies_of(row: Mapping[str, float]) -> dict[str, float]:
    return {key: value for key, value in row.items() if key.startswith(("holdout/", "val/"))}
