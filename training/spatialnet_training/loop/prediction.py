"""Predictions of a network on the images of a data set, with the deployed resize, and their accuracy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from spatialnet_edge.core.bands import present_groups
from spatialnet_edge.core.frames import preprocess
from spatialnet_edge.core.spec import RGB, BandGroup, InputSpec
from spatialnet_training.data.augmentation import normalise
from spatialnet_training.data.samples import Samples
from spatialnet_training.loop.malloc import keep_freed_memory
from spatialnet_training.losses.multitask import labelled_rows
from spatialnet_training.networks.model import SpatialNet


class WithPresence(nn.Module):
    """A network with some band groups withheld."""

    def __init__(self, network: SpatialNet, present: Sequence[bool]) -> None:
        super().__init__()
        self.network = network
        self.present = torch.tensor(present, dtype=torch.float32)

    def forward(self, x: Tensor, present: Tensor | None = None) -> dict[str, Tensor]:
        allowed = self.present.to(x.device).expand(len(x), -1)
        return self.network(x, allowed if present is None else allowed * present)


PIXELS_AT_ONCE = 32 * 160 * 160
"""Pixels of a batch in inference. A batch of 256 at 160 pixels took 4.6 GB."""


def batch_of(size: int) -> int:
    """Batch size for inference: limited by memory at this image size, and at most 256."""
    return max(1, min(256, PIXELS_AT_ONCE // size**2))


@torch.inference_mode()
def predict(network: nn.Module, samples: Samples, size: int, groups: tuple[BandGroup, ...] = (RGB,)) -> dict[str, Tensor]:
    """Logits of every head for all images, with the deployed resize: head to float32 `[N, outputs]`, on the CPU."""
    keep_freed_memory()
    network.eval()
    device = next(network.parameters()).device
    given = InputSpec(height=size, width=size, groups=groups)
    batch = batch_of(size)
    parts: list[dict[str, Tensor]] = []
    for start in range(0, max(1, len(samples)), batch):  # without images, one empty batch has the shapes
        pixels = np.zeros((len(samples.images[start : start + batch]), *given.shape), np.uint8)
        for row, image in enumerate(samples.images[start : start + batch]):
            pixels[row] = preprocess(image, given)
        x = normalise(pixels).contiguous(memory_format=torch.channels_last).to(device)
        logits = network(x) if len(groups) == 1 else network(x, torch.from_numpy(present_groups(pixels, groups)).to(device))
        parts.append({head: values.float().cpu() for head, values in logits.items()})
    return {head: torch.cat([part[head] for part in parts]) for head in parts[0]}


def accuracies(logits: dict[str, Tensor], samples: Samples) -> dict[str, float]:
    """Top-1 accuracy of each categorical head on its labelled images; for other heads the share of correct outputs (a quantity
    is correct within a twentieth of its range)."""
    figures: dict[str, float] = {}
    for head, values in samples.targets.items():
        target = torch.from_numpy(values)
        labelled = labelled_rows(target)
        if not labelled.any():
            continue
        if target.ndim == 1:
            right = logits[head].argmax(1) == target
        elif target.shape[1] == 1:
            right = (logits[head].sigmoid() - target).abs() <= 0.05
        else:
            right = (logits[head] > 0) == (target > 0.5)
        figures[head] = right[labelled].float().mean().item()
    return figures
