"""The options of `build`, one frozen dataclass for each panel of its help."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from spatialnet_edge.core.errors import UsageError
from spatialnet_optimize.compilers.plan_builder import PlanOptions
from spatialnet_optimize.quantization.scheme import QatRequest
from spatialnet_training.networks.checkpoint_paths import is_checkpoint


@dataclass(frozen=True, slots=True)
class Gates:
    """What a variant must reach."""

    labelled: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            help="Labelled images: a folder, a zip or a CSV; may be repeated. Default: shipped samples.",
        ),
    ] = None
    budget: Annotated[
        float,
        typer.Option(min=0, metavar="POINTS", help="Percentage points of accuracy that a variant may lose on any head."),
    ] = 0.5
    heads: Annotated[str, typer.Option(metavar="NAMES", help="Keep only these heads, separated by commas. Default: all.")] = ""


@dataclass(frozen=True, slots=True)
class Variants:
    """Which variants are made."""

    precision: Annotated[str, typer.Option(help="Only this one besides FP32: fp16, bf16, int8 or fp8. Default: all.")] = ""
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Real images for static INT8. Default: the labelled training images, or a third of all labelled ones.",
        ),
    ] = None
    search: Annotated[
        bool,
        typer.Option(
            "--search", help="Rank the layers by their sensitivity to INT8, and quantise as many as the gates allow."
        ),
    ] = False
    qat: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="EPOCHS",
            help="Of a checkpoint, for TensorRT: train with INT8 rounding on the calibration images, and keep the result if it "
            "passes the gates better.",
        ),
    ] = 0

    def qat_request(self, model: str) -> QatRequest | None:
        """The request for quantisation-aware training; None for 0 epochs.

        Raises:
            UsageError: the model is a bundle, whose weights cannot be trained.
        """
        if not self.qat:
            return None
        if not is_checkpoint(Path(model)):
            raise UsageError(f"--qat: {model} is no checkpoint; give the folder of a training run")
        return QatRequest(Path(model), self.qat)


@dataclass(frozen=True, slots=True)
class Builder:
    """Settings of TensorRT's and TensorRT-RTX's builders."""

    dla: Annotated[bool, typer.Option("--dla", help="Build for the device's deep-learning accelerator.")] = False
    batch: Annotated[
        str, typer.Option(metavar="N,N", help="Images per batch: one profile of the plan for each, such as 1,2,4,8.")
    ] = "1"
    optimization_level: Annotated[
        int | None, typer.Option(min=0, max=5, metavar="N", help="Optimisation level of the builder.")
    ] = None
    workspace_mb: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="MB", help="Limit of scratch memory per kernel. Default on a Jetson: an eighth of its memory."
        ),
    ] = None
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="Let later releases of TensorRT load the plan; slower.")
    ] = False
    strip_weights: Annotated[
        bool, typer.Option("--strip-weights", help="Build the plan without weights; the device loads them from the graph.")
    ] = False

    def plan(self) -> PlanOptions:
        """The options of the plan.

        Raises:
            UsageError: batch sizes that are not whole numbers from 1 on.
        """
        return PlanOptions(
            batches_of(self.batch),
            self.optimization_level,
            self.workspace_mb,
            self.version_compatible,
            self.strip_weights,
            dla_core=0 if self.dla else None,
        )


def batches_of(text: str) -> tuple[int, ...]:
    """Parse `1,2,4,8` as distinct numbers.

    Raises:
        UsageError: not whole numbers from 1 on.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise UsageError(f"--batch {text}: give whole numbers from 1 on, such as 1,2,4,8")
    return tuple(sorted({int(part) for part in parts}))
