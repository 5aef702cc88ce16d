"""The training loop: progressive resizing, MixUp, averaged weights, one cosine cycle, resume from any epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from spatialnet_training.augment import colour, erase, normalise, plain, warp
from spatialnet_training.config import TrainConfig
from spatialnet_training.datasets import Samples
from spatialnet_training.losses import UNLABELLED, multi_task_loss

Log = Callable[[dict[str, float]], None]


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Decay matrices and filters; leave biases, norms, positions and queries alone."""
    decayed, plain_ones = [], []
    for name, parameter in model.named_parameters():
        free = parameter.ndim < 2 or name in ("positions", "pooling.query")
        (plain_ones if free else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain_ones, "weight_decay": 0.0}]


def draw_epoch(samples: Samples, count: int, power: float, rng: Generator) -> np.ndarray:
    """Indices for one epoch: a data set's share is its size to the power `power`; within it, without replacement.

    (Temperature sampling, as multilingual models use it; 1 is proportional, 0 is uniform over the data sets.)
    """
    members = [np.flatnonzero(samples.data_set == k) for k in range(len(samples.data_sets))]
    shares = np.array([len(m) ** power if len(m) else 0.0 for m in members])
    quotas = np.round(count * shares / shares.sum()).astype(int)
    drawn: list[np.ndarray] = []
    for rows, quota in zip(members, quotas, strict=True):
        while quota > 0:
            drawn.append(rng.permutation(rows)[:quota])
            quota -= len(drawn[-1])
    return rng.permutation(np.concatenate(drawn))


def training_batch(
    samples: Samples, rows: np.ndarray, size: int, rng: Generator, strength: float = 1.0
) -> tuple[Tensor, dict[str, Tensor]]:
    pixels = np.stack([warp(samples.images[row], size, rng, strength) for row in rows])
    targets = {task: torch.from_numpy(values[rows]) for task, values in samples.targets.items()}
    x = erase(colour(normalise(pixels), rng, strength), rng, strength)
    return x.contiguous(memory_format=torch.channels_last), targets


@torch.inference_mode()
def predict(model: nn.Module, samples: Samples, size: int, batch: int = 256) -> dict[str, Tensor]:
    """Logits of every task for all images, with the deployed resize: task to float32 `[N, labels]`."""
    model.eval()
    parts: list[dict[str, Tensor]] = []
    for start in range(0, len(samples), batch):
        pixels = np.stack([plain(image, size) for image in samples.images[start : start + batch]])
        parts.append(model(normalise(pixels).contiguous(memory_format=torch.channels_last)))
    return {task: torch.cat([part[task] for part in parts]) for task in parts[0]}


def accuracies(logits: dict[str, Tensor], samples: Samples) -> dict[str, float]:
    """Top-1 of each categorical task over its labelled images (objects: share of right labels)."""
    figures: dict[str, float] = {}
    for task, values in samples.targets.items():
        target = torch.from_numpy(values)
        if target.ndim == 1:
            labelled = target != UNLABELLED
            right = (logits[task].argmax(1) == target)[labelled]
        else:
            labelled = target[:, 0] != UNLABELLED
            right = ((logits[task] > 0) == (target > 0.5))[labelled]
        if labelled.any():
            figures[task] = right.float().mean().item()
    return figures


class Trainer:
    """Owns what a checkpoint must hold: weights, averaged weights, optimiser, random states, epoch."""

    def __init__(self, config: TrainConfig, model: nn.Module, samples: Samples) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.samples = samples
        self.model = model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] (not in its stub)
        self.averaged = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay), use_buffers=True)
        self.optimiser = torch.optim.AdamW(
            parameter_groups(self.model, config.weight_decay), lr=config.learning_rate, fused=True
        )
        self.rng = np.random.default_rng(config.seed)
        self.epoch = 0
        self.step = 0
        self.forward = torch.compile(self.model, dynamic=False) if config.compile else self.model
        self.weights = {task: config.task_weights.get(task, 1.0) for task in samples.targets}

    @property
    def steps(self) -> int:
        return self.config.epochs * math.ceil(self.config.epoch_images / self.config.batch)

    def rate(self) -> float:
        """Linear warm-up, then half a cosine to zero (Loshchilov and Hutter 2016)."""
        progress = self.step / self.steps
        warmup = self.config.warmup_share
        if progress < warmup:
            return self.config.learning_rate * progress / warmup
        return self.config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warmup) / (1 - warmup))))

    def train_epoch(self) -> dict[str, float]:
        """One pass of `epoch_images`; returns the mean loss, the images per second and the last learning rate."""
        config, start, losses = self.config, time.monotonic(), []
        stage = config.stage_at(self.epoch)
        size = stage.size
        assert stage.sampling_power is not None
        rows = draw_epoch(self.samples, config.epoch_images, stage.sampling_power, self.rng)
        self.model.train()
        for first in range(0, len(rows) - config.batch + 1, config.batch):
            x, targets = training_batch(self.samples, rows[first : first + config.batch], size, self.rng, stage.augmentation)
            for group in self.optimiser.param_groups:
                group["lr"] = self.rate()
            loss = self.mixed_loss(x, targets)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimiser.step()
            self.averaged.update_parameters(self.model)
            losses.append(loss.item())
            self.step += 1
        self.epoch += 1
        seconds = time.monotonic() - start
        return {
            "epoch": self.epoch,
            "size": size,
            "loss": float(np.mean(losses)),
            "learning_rate": self.rate(),
            "images_per_second": len(rows) / seconds,
        }

    def mixed_loss(self, x: Tensor, targets: dict[str, Tensor]) -> Tensor:
        """MixUp (Zhang et al. 2017) in a share of the batches; both images keep their own missing labels."""
        smoothing = self.config.label_smoothing
        if self.rng.random() >= (self.config.stage_at(self.epoch).mixup_share or 0.0):
            return multi_task_loss(self.forward(x), targets, self.weights, smoothing)
        share = float(self.rng.beta(self.config.mixup_alpha, self.config.mixup_alpha))
        order = torch.from_numpy(self.rng.permutation(len(x)))
        logits = self.forward(torch.lerp(x[order], x, share))
        others = {task: values[order] for task, values in targets.items()}
        return share * multi_task_loss(logits, targets, self.weights, smoothing) + (1 - share) * multi_task_loss(
            logits, others, self.weights, smoothing
        )

    def save(self, path: Path) -> None:
        """Write the whole state, atomically."""
        state = {
            "model": self.model.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "rng": self.rng.bit_generator.state,
            "torch_rng": torch.get_rng_state(),
            "epoch": self.epoch,
            "step": self.step,
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)

    def load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.rng.bit_generator.state = state["rng"]
        torch.set_rng_state(state["torch_rng"])
        self.epoch, self.step = state["epoch"], state["step"]
