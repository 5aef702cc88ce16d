"""Activation ranges with the least squared error of clipping and rounding together, per tensor.

A wide range rounds coarsely, a narrow one clips; there is a minimum in between (Banner et al. 2019, arXiv 1810.05723). Here it
is found by search over the real values of the tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from spatialnet_edge.core.spec import IMAGE_INPUT

LEVELS = {False: 256, True: 255}
"""Quantisation levels of eight bits: all of them, or symmetric around zero."""
CUTS = np.linspace(0.3, 1.0, 36)
"""Candidate shares of the full range."""
VALUES_AN_IMAGE = 4000
"""Number of sampled values per tensor and image, besides its extremes."""

Range = tuple[float, float]


def least_squares_ranges(
    content: bytes, tensors: Sequence[str], images: NDArray[np.uint8], symmetric: bool
) -> dict[str, Range]:
    """The range of each tensor over real images, uint8 `[N, H, W, bands]`.

    Args:
        symmetric: around zero.
    """
    chance = np.random.default_rng(0)
    held: dict[str, list[NDArray[np.float32]]] = {name: [] for name in tensors}
    for name, found in activations(content, tensors, images):
        values = found.ravel()
        sample = chance.choice(values, min(VALUES_AN_IMAGE, values.size), replace=False)
        held[name] += [sample, np.array([values.min(), values.max()], np.float32)]
    return {name: least_squares_range(np.concatenate(parts), symmetric) for name, parts in held.items()}


def activations(
    content: bytes, tensors: Sequence[str], images: NDArray[np.uint8]
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """The values of tensors inside a graph, by name, for one image after the other."""
    model = onnx.load_from_string(content)
    shown = {value.name for value in model.graph.output}
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in tensors if name not in shown)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for image in images:
        for name, found in zip(tensors, session.run([*tensors], {IMAGE_INPUT: image[None]}), strict=True):
            yield name, np.asarray(found, np.float32)


def least_squares_range(values: NDArray[np.float32], symmetric: bool) -> Range:
    """The range, including zero, with the smallest mean squared error for `values` in eight bits."""
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    if symmetric:
        low, high = -max(-low, high), max(-low, high)
    if low == high:
        return low, high
    errors = [squared_error(values, low * cut, high * cut, LEVELS[symmetric]) for cut in CUTS]
    best = float(CUTS[int(np.argmin(errors))])
    return low * best, high * best


def squared_error(values: NDArray[np.float32], low: float, high: float, levels: int) -> float:
    scale = (high - low) / (levels - 1)
    steps = np.clip(np.round((values - low) / scale), 0, levels - 1)
    return float(np.mean((values - (steps * scale + low)) ** 2))
