"""Training curves for TensorBoard and MLflow, beside the run's own `log.csv`; each library is an extra."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from spatialnet_edge.core.errors import MissingExtra, UsageError

TENSORBOARD, MLFLOW = "tensorboard", "mlflow"


class Tracker(Protocol):
    """Takes the figures of each epoch."""

    def epoch(self, figures: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Writes event files to `OUT/tensorboard`, which `tensorboard --logdir OUT` shows.

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
    """Logs to the tracking server that MLFLOW_TRACKING_URI names, or to a local folder; the run is called as `OUT` is.

    Raises:
        MissingExtra: mlflow is not installed.
    """

    def __init__(self, out: Path) -> None:
        try:
            import mlflow  # pyright: ignore[reportMissingImports]
        except ModuleNotFoundError as error:
            raise MissingExtra("mlflow", "mlflow") from error
        self.mlflow: Any = mlflow
        mlflow.start_run(run_name=out.name)

    def epoch(self, figures: Mapping[str, float]) -> None:
        self.mlflow.log_metrics(finite(figures), step=int(figures["epoch"]))

    def close(self) -> None:
        self.mlflow.end_run()


TRACKERS: dict[str, type[TensorBoard] | type[MLflow]] = {TENSORBOARD: TensorBoard, MLFLOW: MLflow}


def finite(figures: Mapping[str, float]) -> dict[str, float]:
    """The figures that are numbers, without the epoch."""
    return {name: value for name, value in figures.items() if name != "epoch" and math.isfinite(value)}


def open_trackers(names: tuple[str, ...], out: Path) -> list[Tracker]:
    """The trackers of these names.

    Raises:
        UsageError: there is no such tracker.
        MissingExtra: its library is not installed.
    """
    if unknown := [name for name in names if name not in TRACKERS]:
        raise UsageError(f"--track {unknown[0]}: no such tracker; there are {', '.join(TRACKERS)}")
    return [TRACKERS[name](out) for name in names]
