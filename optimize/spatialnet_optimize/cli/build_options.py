"""The options of the command `build`: one annotated type with a help text per option."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from spatialnet_edge.core.output_paths import bundle_to_be_written, to_be_written

Model: TypeAlias = Annotated[str, typer.Argument(help="A bundle, the folder of a training run, or builtin:spatialnet-s.")]
TargetName: TypeAlias = Annotated[
    str, typer.Option("--target", help="A device of 'spatialnet-edge targets'; 'here' is this computer.")
]
Output: TypeAlias = Annotated[
    Path,
    typer.Option("--output", "-o", help="The bundle to write: a .snb file or a directory.", callback=bundle_to_be_written),
]
Labelled: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option(
        help="Labelled images for the accuracy gate: a folder, a zip or a CSV; may be repeated. Default: shipped samples."
    ),
]
Budget: TypeAlias = Annotated[
    float, typer.Option(min=0, help="Percentage points of accuracy that a variant may lose on any head.")
]
Heads: TypeAlias = Annotated[str, typer.Option(help="Keep only these heads, separated by commas.")]
CalibrationFolder: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        help="Folder of real images for static INT8. Default: the labelled training images, or a third of all labelled images."
    ),
]
Precision: TypeAlias = Annotated[str, typer.Option(help="Try only this precision besides FP32: fp16, bf16, int8 or fp8.")]
Dla: TypeAlias = Annotated[bool, typer.Option("--dla", help="Build for the device's deep-learning accelerator.")]
Batches: TypeAlias = Annotated[
    str, typer.Option(help="Batch sizes of a plan's profiles, such as 1,2,4,8; for NVIDIA's builders.")
]
OptimizationLevel: TypeAlias = Annotated[
    int | None, typer.Option(min=0, max=5, help="Optimisation level of NVIDIA's builder.")
]
WorkspaceMb: TypeAlias = Annotated[
    int | None, typer.Option(min=1, help="Limit of scratch memory per kernel. Default on a Jetson: an eighth of its memory.")
]
VersionCompatible: TypeAlias = Annotated[
    bool, typer.Option("--version-compatible", help="Let later releases of TensorRT load the plan; slower.")
]
StripWeights: TypeAlias = Annotated[
    bool, typer.Option("--strip-weights", help="Build the plan without weights; the device loads them from the graph.")
]
TargetsFile: TypeAlias = Annotated[Path | None, typer.Option(help="A TOML file with your own devices.")]
Search: TypeAlias = Annotated[
    bool,
    typer.Option("--search", help="Rank the layers by their sensitivity to INT8, and quantise as many as the gates allow."),
]
Qat: TypeAlias = Annotated[
    int,
    typer.Option(
        min=0,
        help="Of a checkpoint, for TensorRT: train so many epochs with INT8 rounding on the calibration images, and keep the "
        "result if it passes the gates better.",
    ),
]
NoCache: TypeAlias = Annotated[bool, typer.Option("--no-cache", help="Build again even if the same build was done before.")]
Report: TypeAlias = Annotated[
    Path | None,
    typer.Option(help="Write the build report to this file (.json or .html).", callback=to_be_written),
]
