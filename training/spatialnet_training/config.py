"""One TOML file says everything that a training run depends on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

Positive = Annotated[int, msgspec.Meta(gt=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Stage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A number of epochs at one image size (progressive resizing); the last ones may augment, mix and sample otherwise."""

    size: Positive
    epochs: Positive
    augmentation: Share = 1.0
    mixup_share: Share | None = None
    sampling_power: Share | None = None


class TrainConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """See `configs/` for commented examples."""

    name: str
    preset: str
    data: dict[str, str]
    stages: Annotated[tuple[Stage, ...], msgspec.Meta(min_length=1)]
    seed: int = 0
    epoch_images: Positive = 20_000
    sampling_power: Share = 0.6
    batch: Positive = 128
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05
    warmup_share: Share = 0.05
    label_smoothing: Share = 0.1
    mixup_alpha: float = 0.2
    mixup_share: Share = 0.5
    ema_decay: Share = 0.998
    task_weights: dict[str, float] = {}
    compile: bool = False

    @property
    def size(self) -> int:
        """Side of the deployed input, in pixels: that of the last stage."""
        return self.stages[-1].size

    @property
    def epochs(self) -> int:
        return sum(stage.epochs for stage in self.stages)

    def stage_at(self, epoch: int) -> Stage:
        """The stage of an epoch counted from 0, with what it does not say taken from the run."""
        stage = self.stages[-1]
        for stage in self.stages:
            if epoch < stage.epochs:
                break
            epoch -= stage.epochs
        return msgspec.structs.replace(
            stage,
            mixup_share=self.mixup_share if stage.mixup_share is None else stage.mixup_share,
            sampling_power=self.sampling_power if stage.sampling_power is None else stage.sampling_power,
        )

    def size_at(self, epoch: int) -> int:
        """Image side in pixels at an epoch counted from 0."""
        return self.stage_at(epoch).size


def load_config(path: Path) -> TrainConfig:
    """Read and check a TOML file."""
    return msgspec.toml.decode(path.read_bytes(), type=TrainConfig)
