"""Quantisation-aware training: a network learns with its layers rounded to eight bits, as they will be computed.

A few epochs bring back some of what rounding costs (Jacob et al. 2018, arXiv 1712.05877). The network's own answers before rounding
are the targets, so no labels are needed. Gradients pass the rounding unchanged inside its range (straight-through estimator;
PyTorch's `fake_quantize_*` operators). Batch norm keeps its statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from spatialnet_edge.core.bands import present_groups
from spatialnet_edge.core.errors import RunError
from spatialnet_edge.core.spec import ModelSpec, Multiclass
from spatialnet_training.data.augmentation import normalise

LARGEST = 127
"""Weights use -127 to 127 and activations -128 to 127: symmetric and signed, as TensorRT requires."""


@dataclass(frozen=True, slots=True)
class QatOptions:
    """How a network is trained with rounded layers.

    Attributes:
        epochs: passes over the images.
        batch: images of a step.
        learning_rate: of AdamW at the start; it falls to zero along a cosine.
        seed: of the order and the orientation of the images.
    """

    epochs: int = 3
    batch: int = 32
    learning_rate: float = 1e-5
    seed: int = 0


USUAL = QatOptions()


class RoundedWeight(nn.Module):
    """A weight rounded to eight bits, with a scale for each output."""

    def forward(self, weight: Tensor) -> Tensor:
        largest = weight.detach().abs().amax(dim=tuple(range(1, weight.ndim))).clamp(min=1e-8)
        zero = torch.zeros(len(weight), dtype=torch.int32, device=weight.device)
        return torch.fake_quantize_per_channel_affine(weight, largest / LARGEST, zero, 0, -LARGEST, LARGEST)


@dataclass(frozen=True, slots=True, eq=False)
class RoundedLayer:
    """A layer that runs in eight bits.

    Attributes:
        layer: a convolution or a linear layer; its weight is rounded.
        producer: the outermost module whose output is the layer's input. All readers of that output get it rounded, as in a graph
            where Q/DQ replaces a tensor. None: no module gives the input, and the layer alone reads it.
        largest: magnitude of the input that eight bits hold; beyond it the input saturates.
    """

    layer: nn.Module
    producer: nn.Module | None
    largest: float = 1.0


def executed_layers(network: nn.Module, example: Tensor, present: Tensor | None = None) -> list[RoundedLayer]:
    """The convolutions and linear layers of a network, each once, in the order in which they run."""
    inputs: dict[nn.Module, Tensor] = {}
    producers: dict[int, nn.Module] = {}
    kept: list[object] = []  # else another tensor could get the id of one that is gone

    def note_output(module: nn.Module, given: object, output: object) -> None:
        producers[id(output)] = module  # an outer module is called later, and takes the place of an inner one
        kept.append(output)

    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_pre_hook(lambda layer, given: note_input(inputs, layer, given[0])) for layer in layers]
    hooks += [module.register_forward_hook(note_output) for module in network.modules()]
    with torch.no_grad():
        network(example) if present is None else network(example, present)
    for hook in hooks:
        hook.remove()
    return [RoundedLayer(layer, producers.get(id(tensor))) for layer, tensor in inputs.items()]


def note_input(inputs: dict[nn.Module, Tensor], layer: nn.Module, tensor: Tensor) -> None:
    inputs.setdefault(layer, tensor)


@contextmanager
def rounded(layers: Sequence[RoundedLayer]) -> Generator[None]:
    """Inside, these layers compute with rounded inputs and weights."""
    hooks = []
    seen: set[nn.Module] = set()
    for each in layers:
        scale = max(each.largest, 1e-8) / LARGEST
        if each.producer is None:
            hooks.append(each.layer.register_forward_pre_hook(partial(round_input, scale)))
        elif each.producer not in seen:
            seen.add(each.producer)
            hooks.append(each.producer.register_forward_hook(partial(round_output, scale)))
        parametrize.register_parametrization(each.layer, "weight", RoundedWeight())
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for each in layers:
            parametrize.remove_parametrizations(each.layer, "weight", leave_parametrized=False)


def round_input(scale: float, layer: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (eight_bits(given[0], scale), *given[1:])


def round_output(scale: float, module: nn.Module, given: object, output: Tensor) -> Tensor:
    return eight_bits(output, scale)


def eight_bits(x: Tensor, scale: float) -> Tensor:
    return torch.fake_quantize_per_tensor_affine(x, scale, 0, -LARGEST - 1, LARGEST)


def train_rounded(
    network: nn.Module,
    spec: ModelSpec,
    images: NDArray[np.uint8],
    layers: Sequence[RoundedLayer],
    options: QatOptions = USUAL,
    watch: Callable[[int, float], None] = lambda epoch, loss: None,
) -> None:
    """Train a network in place so that its answers with rounded layers are those that it gives now without rounding.

    Args:
        images: uint8 `[N, H, W, bands]` at the network's size; labels are not needed.
        layers: that are rounded, with their ranges.
        watch: called with the number of each epoch, from 1, and its mean loss.

    Raises:
        RunError: the training diverged.
    """
    teacher = deepcopy(network).eval().requires_grad_(False)
    network.eval()  # batch norm keeps its statistics, as the exported graph does
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, options.learning_rate, weight_decay=0.0)
    steps = options.epochs * -(-len(images) // options.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    chance = np.random.default_rng(options.seed)
    with rounded(layers):
        for epoch in range(1, options.epochs + 1):
            losses: list[float] = []
            order = chance.permutation(len(images))
            for start in range(0, len(images), options.batch):
                pixels = images[order[start : start + options.batch]]
                pixels = np.ascontiguousarray(np.rot90(pixels, int(chance.integers(4)), (1, 2)))
                with torch.no_grad():
                    expected = answers(teacher, pixels, spec)
                loss = distance(answers(network, pixels, spec), expected, spec)
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(parameters, 1.0)
                optimizer.step()
                schedule.step()
                losses.append(float(loss.detach()))
            if not np.isfinite(losses).all():
                raise RunError(f"quantisation-aware training diverged in epoch {epoch}; give a smaller learning rate")
            watch(epoch, float(np.mean(losses)))


def answers(network: nn.Module, pixels: NDArray[np.uint8], spec: ModelSpec) -> dict[str, Tensor]:
    """Logits of every output for uint8 `[N, H, W, bands]`."""
    device = next(network.parameters()).device
    groups = spec.input.groups
    if len(groups) == 1:
        return network(normalise(pixels).to(device))
    return network(normalise(pixels).to(device), torch.from_numpy(present_groups(pixels, groups)).to(device))


def distance(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], spec: ModelSpec) -> Tensor:
    """How far answers are from the expected ones, over all outputs: Kullback-Leibler divergence of each distribution."""
    classes = {head.name for head in spec.heads if isinstance(head, Multiclass)}
    parts = []
    for name, wanted in expected.items():
        if name in classes:
            parts.append(F.kl_div(found[name].log_softmax(-1), wanted.log_softmax(-1), reduction="batchmean", log_target=True))
            continue
        floor = F.binary_cross_entropy_with_logits(wanted, wanted.sigmoid())  # the entropy, which nothing can lower
        parts.append(F.binary_cross_entropy_with_logits(found[name], wanted.sigmoid()) - floor)
    return torch.stack(parts).mean()
