"""The options of `train`, one frozen dataclass for each panel of its help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import typer
from msgspec.structs import replace

from spatialnet_edge.cli.option_values import names
from spatialnet_edge.core.deep_still import parse_range
from spatialnet_edge.core.errors import UsageError
from spatialnet_training.cli.configs import read_config
from spatialnet_training.config import TrainConfig
from spatialnet_training.data.dataset_options import DatasetOptions
from spatialnet_training.loop.run_inputs import starting_point
from spatialnet_training.networks.checkpoint import load_checkpoint_config

SCRATCH = "scratch"
"""Value of `--start` for random weights."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Settings of the configuration, and options that override them. None: as in the configuration."""

    config: Annotated[
        str,
        typer.Option(help="A TOML file, or the name of a shipped configuration. Default: folder with --data, else student."),
    ] = ""
    start: Annotated[
        str, typer.Option(help="A checkpoint to start from: a path, a shipped name, or 'scratch' for random weights.")
    ] = ""
    backbone: Annotated[str, typer.Option(help="A preset, timm:NAME or timm-trunk:NAME.")] = ""
    epochs: Annotated[int | None, typer.Option(min=1, metavar="N", help="Largest number of fine-tuning epochs.")] = None
    batch: Annotated[int | None, typer.Option(min=2, metavar="N", help="Images per batch.")] = None
    size: Annotated[int | None, typer.Option(min=16, metavar="PIXELS", help="Side of the network's input, in pixels.")] = None
    lr: Annotated[float | None, typer.Option(metavar="RATE", help="Peak learning rate.")] = None
    seed: Annotated[int | None, typer.Option(min=0, metavar="N", help="Random seed.")] = None
    fine_tune: Annotated[
        Literal["auto", "always", "never"] | None,
        typer.Option(
            metavar="WHEN",
            help="Train all weights after the linear head: always, never, or auto (if the linear head is not good enough).",
        ),
    ] = None
    flips: Annotated[
        Literal["all", "horizontal", "none"] | None,
        typer.Option(
            metavar="WHICH",
            help="Symmetries of your images: all (seen from above), horizontal (seen from the side), or none.",
        ),
    ] = None
    balance: Annotated[
        Literal["none", "sampling", "logits", "auto"] | None,
        typer.Option(
            metavar="HOW",
            help="For classes of unequal size: sampling draws them equally often, logits adjusts the logits, auto chooses by "
            "cross-validated loss, none.",
        ),
    ] = None
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Another setting: key=value or section.key=value.")
    ] = None

    def read(self, own: bool) -> TrainConfig:
        """The configuration with the overridden settings.

        With `--start` alone, the backbone is that of the checkpoint.

        Args:
            own: whether the user's own images are trained on.

        Raises:
            UsageError: no such configuration or checkpoint, or an invalid value.
            Refused: the checkpoint cannot be read.
        """
        read = read_config(self.config or ("folder" if own else "student"), (*(self.set_ or ()), *self.overrides()))
        chosen = with_stage(read, self.epochs, self.size)
        if not (self.start or self.backbone):
            return chosen
        # another backbone cannot start from the configured weights
        chosen = replace(chosen, start="" if self.start == SCRATCH else self.start)
        begun = starting_point(chosen)
        if begun is None or self.config or self.names_backbone():
            return chosen
        return replace(chosen, backbone=load_checkpoint_config(begun).backbone)

    def names_backbone(self) -> bool:
        settings = [each.partition("=")[0].strip() for each in self.set_ or ()]
        return bool(self.backbone) or "backbone" in settings

    def overrides(self) -> tuple[str, ...]:
        """The given options in the notation of `--set`."""
        settings = {
            "batch": self.batch,
            "learning_rate": self.lr,
            "seed": self.seed,
            "flips": self.flips,
            "fine_tune": self.fine_tune,
            "class_balance": self.balance,
            "backbone": self.backbone or None,
        }
        return tuple(f"{name}={quoted(value)}" for name, value in settings.items() if value is not None)


@dataclass(frozen=True, slots=True)
class OwnImages:
    """How the images of `--data` are interpreted."""

    classes_from: Annotated[
        Literal["first", "deepest"],
        typer.Option(
            metavar="WHICH",
            help="The folder that names the class: the first one below the split, or the deepest one, directly above the "
            "image.",
        ),
    ] = "first"
    group: Annotated[
        str | None,
        typer.Option(help="Keep images of one flight or site in the same split: a regular expression, a column, or 'none'."),
    ] = None
    labels: Annotated[str, typer.Option(metavar="NAMES", help="The allowed labels, separated by commas. Default: any.")] = ""
    value_range: Annotated[
        str,
        typer.Option(
            "--range",
            metavar="LOW,HIGH",
            help="For images of more than 8 bits: values of black and white, such as 0,4095.",
        ),
    ] = ""
    columns: Annotated[
        str, typer.Option(metavar="NAMES", help="For a table: the columns to learn, separated by commas. Default: all.")
    ] = ""
    ignore: Annotated[
        str, typer.Option(metavar="NAMES", help="For a table: columns that are not labels, separated by commas.")
    ] = ""
    regression: Annotated[
        str, typer.Option(metavar="NAMES", help="For a table: columns that are quantities, separated by commas.")
    ] = ""
    tile: Annotated[
        int, typer.Option(min=8, metavar="PIXELS", help="For rasters with polygons: side of a tile in pixels.")
    ] = 128
    gsd: Annotated[
        float | None,
        typer.Option(metavar="METRES", help="For rasters with polygons: metres per pixel. Default: the raster's."),
    ] = None

    def options(self) -> DatasetOptions:
        """The options of the data set.

        Raises:
            UsageError: an invalid range.
        """
        return DatasetOptions(
            classes_from=self.classes_from,
            group=self.group,
            value_range=parse_range(self.value_range, "--range") if self.value_range else None,
            columns=names(self.columns),
            ignore=names(self.ignore),
            regression=names(self.regression),
            labels=names(self.labels),
            tile=self.tile,
            metres_per_pixel=self.gsd,
        )


def with_stage(config: TrainConfig, epochs: int | None, size: int | None) -> TrainConfig:
    """The configuration with another number of epochs or another image size.

    Raises:
        UsageError: it has several stages, or a value is out of range.
    """
    if epochs is None and size is None:
        return config
    if len(config.stages) != 1:
        raise UsageError(
            f"the configuration has {len(config.stages)} stages; give --set stages=[…] instead of --epochs or --size"
        )
    stage = config.stages[0]
    stage = replace(stage, epochs=epochs or stage.epochs, size=size or stage.size)
    try:
        return replace(config, stages=(stage,))
    except ValueError as error:
        raise UsageError(f"--size {size}: {error}") from error


def quoted(value: object) -> str:
    """A value in TOML notation."""
    return f'"{value}"' if isinstance(value, str) else str(value)
