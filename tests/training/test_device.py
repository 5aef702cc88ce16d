"""Training on a GPU, as far as it can be tested without one.

Tensors on PyTorch's `meta` device have a shape and a type but no content. They cannot be combined with tensors on other devices
(except for in-place addition), and their values cannot be read.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from spatialnet_training.config import Distillation
from spatialnet_training.data.samples import Samples
from spatialnet_training.distillation.teachers import Teacher
from spatialnet_training.loop.trainer import Trainer
from spatialnet_training.networks.model import SpatialNet
from training_fixtures import TINY_RUN

ELSEWHERE = torch.device("meta")
OUTPUTS = {"land_use": 5, "objects": 4}


class Elsewhere:
    """Replaces Lightning Fabric for one process and one device, because Fabric does not support the `meta` device."""

    device, global_rank, world_size, is_global_zero = ELSEWHERE, 0, 1, True

    def launch(self) -> None: ...

    def setup(self, network: nn.Module, optimiser: Optimizer) -> tuple[nn.Module, Optimizer]:
        return network.to(ELSEWHERE), optimiser

    def autocast(self) -> AbstractContextManager[None]:
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def clip_gradients(self, network: nn.Module, optimiser: Optimizer, max_norm: float) -> None:
        nn.utils.clip_grad_norm_(network.parameters(), max_norm)

    def all_reduce(self, values: Tensor) -> Tensor:
        return values


def samples(count: int) -> Samples:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (48, 40, 3), np.uint8) for _ in range(count)]
    targets = {"land_use": rng.integers(0, 5, count), "objects": rng.random((count, 4), np.float32)}
    return Samples(images, targets, np.zeros(count, np.int64), ("somewhere",))


@pytest.mark.parametrize("balance", ["fixed", "uncertainty", "pcgrad"])
@pytest.mark.parametrize("images_on_device", [True, False])
def test_an_epoch_stays_on_its_device(
    balance: Literal["fixed", "uncertainty", "pcgrad"], images_on_device: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.optim, "AdamW", lambda groups, lr, fused: AdamW(groups, lr=lr))  # one kernel for all: none there
    settings = Distillation(teachers=("self", "larger"), relations=1.0)
    config = replace(
        TINY_RUN, balance=balance, images_on_device=images_on_device, distillation=settings, mixup_share=0.4, cutmix_share=0.4
    )
    student, larger = (SpatialNet("student-1m", OUTPUTS, size) for size in (32, 96))
    trainer = Trainer(config, student, samples(32), [Teacher(larger, 96)], fabric=Elsewhere())  # type: ignore[arg-type]
    batches = list(trainer.loader.epoch(0))
    assert all((batch.x.device == ELSEWHERE) is images_on_device for batch in batches)
    # an epoch reads its mean loss at the end: reading a value earlier would synchronise a GPU
    with pytest.raises(RuntimeError, match=r"item\(\) cannot be called on meta"):
        trainer.train_epoch()
    assert (trainer.step, trainer.epoch) == (len(batches), 1)
    assert all(value.device == ELSEWHERE for value in trainer.averaged.module.state_dict().values())
