"""Experiment trackers: TensorBoard and MLflow, in addition to `log.csv`; each library is an extra."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from spatialnet_edge.core.errors import MissingExtra, UsageError, first_line

TENSORBOARD, MLFLOW = "tensorboard", "mlflow"


class Tracker(Protocol):
    """Receives the metrics of each epoch."""

    def epoch(self, figures: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Writes event files to `OUT/tensorboard`; `tensorboard --logdir OUT` shows them.

    Raises:
        MissingExtra: tensorboard is not installed.
    """

    def __init__(self, out: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError as error:
            raise MissingExtra("tensorboard", "tensorboard") from error
        self.writer: Any = SummaryWriter(str(out / "tensorboard"))

    def epoch(self, figures: Mapping[str, float]) -> None:
        for name, value in finite(figures).items():
            self.writer.add_scalar(name, value, int(figures["epoch"]))
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class MLflow:
    """Logs to the store that MLFLOW_TRACKING_URI names, or to files in `OUT/mlflow`; the run's name is that of `OUT`.

    Raises:
        MissingExtra: mlflow is not installed.
        UsageError: the store cannot be used.
    """

    def __init__(self, out: Path) -> None:
        try:
            import mlflow  # pyright: ignore[reportMissingImports]
        except ModuleNotFoundError as error:
            raise MissingExtra("mlflow", "mlflow") from error
        self.mlflow: Any = mlflow
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # else new versions of mlflow refuse to write files
        if "MLFLOW_TRACKING_URI" not in os.environ:
            mlflow.set_tracking_uri((out / "mlflow").absolute().as_uri())
        try:
            mlflow.start_run(run_name=out.name)
        except Exception as error:  # of mlflow, of the network, or of a database's driver
            raise UsageError(
                f"--track mlflow: its store cannot be used: {first_line(error)}; MLFLOW_TRACKING_URI names the store"
            ) from error

    def epoch(self, figures: Mapping[str, float]) -> None:
        self.mlflow.log_metrics(finite(figures), step=int(figures["epoch"]))

    def close(self) -> None:
        self.mlflow.end_run()


TRACKERS: dict[str, type[TensorBoard] | type[MLflow]] = {TENSORBOARD: TensorBoard, MLFLOW: MLflow}


def finite(figures: Mapping[str, float]) -> dict[str, float]:
    """The finite metrics, without the epoch."""
    return {name: value for name, value in figures.items() if name != "epoch" and math.isfinite(value)}


def open_trackers(names: tuple[str, ...], out: Path) -> list[Tracker]:
    """Open the trackers with these names.

    Raises:
        UsageError: unknown tracker.
        MissingExtra: its library is not installed.
    """
    if unknown := [name for name in names if name not in TRACKERS]:
        raise UsageError(f"--track {unknown[0]}: no such tracker; available: {', '.join(TRACKERS)}")
    return [TRACKERS[name](out) for name in names]
