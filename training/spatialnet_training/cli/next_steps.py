"""The next commands after a run, or after an interrupted run."""

from __future__ import annotations

import shlex
from pathlib import Path

from spatialnet_training.data.dataset_record import RECORD
from spatialnet_training.data.datasets import TrainingData
from spatialnet_training.loop.training_run import LAST


def next_commands(out: Path, data: TrainingData) -> list[str]:
    """The commands that build the network and, for a user's own data, evaluate the bundle."""
    bundle, run, record = (shlex.quote(str(each)) for each in (f"{out.name}.snb", out, out / RECORD))
    if data.own is None:
        return [f"next: spatialnet-edge build {run} -o {bundle}"]
    lines = [f"next: spatialnet-edge build {run} --labelled {record} -o {bundle}"]
    if "val" in data.own.splits:
        lines.append(f"then: spatialnet-edge evaluate {bundle} {record} --split val")
    lines.append(f"then: spatialnet-edge run {bundle} FOLDER_OR_VIDEO")
    return lines


def after_interrupt(out: Path, command: str) -> str:
    """The message after Ctrl-C: how to resume the run."""
    if (out / LAST).exists():
        return f"interrupted; the last epoch is saved in {out / LAST}. To resume, run the same command again: {command}"
    return f"interrupted before the first epoch was saved. To start again: {command}"
