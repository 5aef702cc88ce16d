"""The training loop: progressive resizing, mixed images, averaged weights, one cosine cycle, resume from any epoch.

Lightning Fabric handles device, precision and processes; `torchrun` starts more than one process.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from numpy.random import default_rng
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from spatialnet_edge.core.errors import RunError
from spatialnet_training.config import SELF, TrainConfig
from spatialnet_training.data.augmentation import Mix
from spatialnet_training.data.dataloader import Batch, Loader
from spatialnet_training.data.samples import Samples
from spatialnet_training.distillation.teachers import Teacher, as_teacher, distillation_loss, teach
from spatialnet_training.loop.malloc import keep_freed_memory
from spatialnet_training.loop.parameter_groups import parameter_groups
from spatialnet_training.losses.class_balance import adjusted
from spatialnet_training.losses.multitask import counted, head_losses, project_conflicts
from spatialnet_training.networks.checkpoint_file import load_checkpoint, save_checkpoint
from spatialnet_training.networks.model import SpatialNet


class WithFeatures(nn.Module):
    """A network whose forward also returns the pooled features, for distillation."""

    def __init__(self, network: SpatialNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, present: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        pooled = self.network.pool(x, present)
        return pooled, self.network.answer(pooled)


def make_fabric(precision: str) -> Fabric:
    """The devices of this computer, or this process's share if `torchrun` started it."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes == 1:
        return Fabric(precision=precision, devices=1)  # type: ignore[arg-type]  # checked by Fabric
    local = int(os.environ["LOCAL_WORLD_SIZE"])
    return Fabric(precision=precision, devices=local, num_nodes=processes // local, strategy="ddp")  # type: ignore[arg-type]


PREVIOUS = "previous.ckpt"
"""The checkpoint of the epoch before the last one, beside it."""


def newest_readable(path: Path, device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """A run's last checkpoint, or the previous one if that is damaged; None if neither can be read."""
    state = load_checkpoint(path, device)
    return load_checkpoint(path.with_name(PREVIOUS), device) if state is None else state


def epochs_of(path: Path) -> int:
    """Number of completed epochs of a run's newest readable checkpoint; 0 if none can be read."""
    state = newest_readable(path)
    return int(state["epoch"]) if state else 0


class Trainer:
    """Owns the training state: weights, averaged weights, optimiser, epoch, and the metrics of earlier epochs.

    Args:
        network: of `config`'s shape, on the CPU.
        teachers: the loaded teachers of `config.distillation`, without `self`.
        unlabelled: images for distillation only.
        log_shares: head to logit offsets during training; see `losses/class_balance.py`.
    """

    def __init__(
        self,
        config: TrainConfig,
        network: SpatialNet,
        samples: Samples,
        teachers: Sequence[Teacher] = (),
        unlabelled: Samples | None = None,
        fabric: Fabric | None = None,
        log_shares: Mapping[str, Tensor] | None = None,
    ) -> None:
        keep_freed_memory()
        torch.manual_seed(config.seed)
        self.config = config
        self.log_shares = log_shares or {}
        self.fabric = fabric or make_fabric(config.precision)
        self.fabric.launch()
        sizes = frozenset(each.size for each in teachers if each.size is not None)
        rank, processes, device = self.fabric.global_rank, self.fabric.world_size, self.fabric.device
        self.loader = Loader(config, samples, unlabelled, rank, processes, sizes, device)
        self.network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] (not in its stub)
        groups = parameter_groups(network, config)
        self.head_weights = {head: config.head_weights.get(head, 1.0) for head in samples.targets}
        self.single_label = {head: values.ndim == 1 for head, values in samples.targets.items()}
        self.log_variances = nn.Parameter(torch.zeros(len(samples.targets), device=self.fabric.device))
        if config.balance == "uncertainty":
            groups.append({"params": [self.log_variances], "weight_decay": 0.0, "scale": 1.0})
        optimiser = torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)
        self.forward, self.optimiser = self.fabric.setup(self._compiled(WithFeatures(self.network)), optimiser)
        average = get_ema_multi_avg_fn(config.ema_decay)
        self.averaged = AveragedModel(self.network, multi_avg_fn=average, use_buffers=True)
        self.teachers = [replace(each, network=self._placed(each.network)) for each in teachers]
        for own in config.distillation.taught_by if config.distillation else ():
            if own.checkpoint == SELF:
                copied = WithFeatures(self.averaged.module)  # pyright: ignore[reportArgumentType] (a copy of `network`)
                self.teachers.append(as_teacher(copied, None, own, samples.data_sets))
        self.epoch = 0
        self.step = 0
        self.history: list[dict[str, float]] = []

    def _placed(self, network: nn.Module) -> nn.Module:
        network.requires_grad_(False)
        placed = network.eval().to(self.fabric.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        return self._compiled(WithFeatures(placed))

    def _compiled(self, network: nn.Module) -> nn.Module:
        return cast(nn.Module, torch.compile(network, dynamic=False)) if self.config.compile else network

    @property
    def steps(self) -> int:
        return self.config.epochs * len(self.loader)

    def rate(self) -> float:
        """Linear warm-up, then half a cosine to zero (Loshchilov and Hutter 2016)."""
        progress = self.step / self.steps
        warmup = self.config.warmup_share
        if progress < warmup:
            return self.config.learning_rate * progress / warmup
        return self.config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warmup) / (1 - warmup))))

    def train_epoch(self, advance: Callable[[], None] = lambda: None) -> dict[str, float]:
        """Train one epoch. Returns the mean loss, the images per second and the last learning rate.

        Args:
            advance: called after every step.
        """
        start = time.monotonic()
        losses: list[Tensor] = []
        self.forward.train()
        if self.config.adapt != "full":
            self.network.backbone.eval()  # a frozen backbone also keeps its batch statistics
        for batch in self.loader.epoch(self.epoch):
            for group in self.optimiser.param_groups:
                group["lr"] = self.rate() * group["scale"]
            losses.append(self._step(batch.to(self.fabric.device)))
            self.averaged.update_parameters(self.network)
            self.step += 1
            advance()
        self.epoch += 1
        each = torch.stack(losses)  # read once per epoch: every read synchronises a GPU
        if not each.isfinite().all():
            wrong = int((~each.isfinite()).nonzero()[0, 0])
            raise self._diverged(f"the loss is {float(each[wrong])}", self.step - len(losses) + wrong)
        loss = float(each.mean())
        seconds = time.monotonic() - start
        return {
            "epoch": self.epoch,
            "size": self.config.stage_at(self.epoch - 1).size,
            "loss": loss,
            "learning_rate": self.rate(),
            "seconds": seconds,
            "images_per_second": len(losses) * self.config.batch / seconds,
        }

    def _diverged(self, what: str, step: int) -> RunError:
        """The error for a loss or gradients that are not numbers; checkpoints of earlier epochs are kept.

        Args:
            step: of the complete run, counted from 0.
        """
        epoch, rate = step // len(self.loader) + 1, self.config.learning_rate
        kept = f"the checkpoint of epoch {epoch - 1} is kept" if epoch > 1 else "no epoch was completed"
        return RunError(
            f"training diverged: {what} at step {step % len(self.loader) + 1} of epoch {epoch}, at a learning rate of up to "
            f"{rate:g}; {kept}; lower it, such as --lr {rate / 10:g}, and name another folder with --output"
        )

    def _step(self, batch: Batch) -> Tensor:
        """One optimiser step on a batch. Returns the loss over all processes."""
        pooled, logits = self.forward(batch.x, batch.present)
        losses = self._labelled(logits, batch)
        extra = self._taught(pooled, logits, batch)
        self.optimiser.zero_grad(set_to_none=True)
        if self.config.balance == "pcgrad":
            total = self._project(list(losses.values()), extra)
        else:
            total = self._balanced(losses) + extra
            self.fabric.backward(total)
        if self.log_variances.grad is not None:  # not part of the network that Fabric synchronises
            self.log_variances.grad = self._mean(self.log_variances.grad)
        try:
            self.fabric.clip_gradients(self.forward, self.optimiser, max_norm=1.0)
        except RuntimeError as error:  # torch raises this for gradients that are not numbers
            if "non-finite" not in str(error):
                raise
            raise self._diverged("gradients are not numbers", self.step) from error
        self.optimiser.step()
        return self._mean(total.detach())

    def _mean(self, values: Tensor) -> Tensor:
        """Mean over all processes."""
        return cast(Tensor, self.fabric.all_reduce(values))

    def _labelled(self, logits: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Weighted loss of each head for the labels of both mixed images."""
        smoothing = self.config.label_smoothing
        logits = adjusted(logits, self.log_shares)
        if batch.mix is None:
            losses = head_losses(logits, counted(self.config.counts, logits, batch.targets), smoothing)
        else:
            losses = head_losses(logits, batch.targets, smoothing)
            partners = {head: Mix.partner(values) for head, values in batch.targets.items()}
            others = head_losses(logits, partners, smoothing)
            losses = {head: batch.mix.share * loss + (1 - batch.mix.share) * others[head] for head, loss in losses.items()}
        settings = self.config.distillation
        share = 1 - settings.share if settings else 1.0
        return {head: share * self.head_weights[head] * loss for head, loss in losses.items()}

    def _balanced(self, losses: dict[str, Tensor]) -> Tensor:
        stacked = torch.stack(list(losses.values()))
        if self.config.balance == "uncertainty":
            return (torch.exp(-self.log_variances) * stacked + 0.5 * self.log_variances).sum()
        return stacked.sum()

    def _taught(self, pooled: Tensor, logits: dict[str, Tensor], batch: Batch) -> Tensor:
        settings = self.config.distillation
        if settings is None:
            return pooled.new_zeros(())
        self.averaged.module.eval()
        with self.fabric.autocast():  # Fabric wraps only the student
            rng = default_rng([self.config.seed, self.step, 1])
            taught = teach(self.teachers, batch, self.single_label, settings.temperature, rng)
        targets = batch.targets
        loss = distillation_loss(settings, pooled, logits, taught, targets, self.single_label, self.head_weights)
        return settings.share * loss

    def _project(self, losses: list[Tensor], extra: Tensor) -> Tensor:
        """Set the gradients to PCGrad's combination of the heads' gradients; the distillation loss counts as one more head."""
        everything = [*losses, extra] if extra.requires_grad else losses
        learning = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        flat: list[Tensor] = []
        for loss in everything:
            gradients = torch.autograd.grad(loss, learning, retain_graph=True, allow_unused=True)
            parts = [torch.zeros_like(p) if g is None else g for p, g in zip(learning, gradients, strict=True)]
            flat.append(self._mean(torch.cat([part.flatten() for part in parts])))
        rng = default_rng([self.config.seed, self.step])
        order = [rng.permutation(len(flat)).tolist() for _ in flat]
        combined = project_conflicts(flat, order).split([parameter.numel() for parameter in learning])
        for parameter, gradient in zip(learning, combined, strict=True):
            parameter.grad = gradient.view_as(parameter)
        return torch.stack(everything).sum()

    def save(self, path: Path) -> None:
        """Write the complete state atomically, only in the first process."""
        if not self.fabric.is_global_zero:
            return
        state = {
            "model": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "log_variances": self.log_variances.detach(),
            "epoch": self.epoch,
            "step": self.step,
            "history": self.history,
        }
        save_checkpoint(path, state, path.with_name(PREVIOUS))  # to resume from if this one is damaged later

    def load(self, path: Path) -> None:
        """Resume from a checkpoint, or from the previous one if it is damaged.

        Raises:
            RunError: both are damaged.
        """
        found = newest_readable(path, self.fabric.device)
        if found is None:
            raise RunError(
                f"{path}: damaged, and so is {PREVIOUS}; remove them to train from the beginning, or give another --output"
            )
        state = found
        self.network.load_state_dict(state["model"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimiser.load_state_dict(state["optimiser"])
        with torch.no_grad():
            self.log_variances.copy_(state["log_variances"])
        self.epoch, self.step, self.history = state["epoch"], state["step"], state["history"]
