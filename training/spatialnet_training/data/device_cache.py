"""Device-resident image cache: each step transfers crop parameters, not pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def mirrored(index: Tensor, length: Tensor) -> Tensor:
    """Reflect indices beyond either edge about the outermost pixel (OpenCV's BORDER_REFLECT_101)."""
    period = (2 * (length - 1)).clamp_min(1)
    index = index.remainder(period)
    return torch.minimum(index, period - index).clamp_max(length - 1)


@dataclass(frozen=True, slots=True)
class Resident:
    """Images of any size in one contiguous buffer.

    Attributes:
        pixels: uint8, all images one after another, each `[H, W, bands]`.
        first: int64 `[N]`, offset of each image.
        height, width: int64 `[N]`, in pixels.
    """

    pixels: Tensor
    first: Tensor
    height: Tensor
    width: Tensor
    bands: int

    @staticmethod
    def on(device: torch.device, images: Sequence[NDArray[np.uint8]]) -> Resident:
        """Copy at least one image to a device."""
        ends = np.cumsum([image.size for image in images])
        sides = torch.tensor([image.shape[:2] for image in images], device=device)
        return Resident(
            pixels=torch.from_numpy(np.concatenate([image.ravel() for image in images])).to(device),
            first=torch.from_numpy(np.concatenate([[0], ends[:-1]])).to(device),
            height=sides[:, 0],
            width=sides[:, 1],
            bands=images[0].shape[2],
        )

    def warp(self, rows: NDArray[np.int64], views: NDArray[np.float64], size: int) -> Tensor:
        """As `augmentation.warp` for each row's view, except for rounding.

        Args:
            rows: `[M]`, indices of images.
            views: `[M, 2, 3]`, from `augmentation.random_view`.

        Returns:
            float32 `[M, bands, size, size]` in grey levels, channels last in memory.
        """
        device = self.pixels.device
        chosen = torch.from_numpy(rows).to(device)
        matrix = torch.from_numpy(views.astype(np.float32)).to(device)
        grid = torch.arange(size, device=device, dtype=torch.float32)
        x, y = (
            matrix[:, axis, 0, None, None] * grid
            + matrix[:, axis, 1, None, None] * grid[:, None]
            + matrix[:, axis, 2, None, None]
            for axis in (0, 1)
        )  # each [M, size, size]
        left, top = x.floor(), y.floor()
        across, down = (x - left)[..., None], (y - top)[..., None]
        height, width = self.height[chosen, None, None], self.width[chosen, None, None]
        columns = [mirrored(left.long() + step, width) for step in (0, 1)]
        lines = [mirrored(top.long() + step, height) for step in (0, 1)]
        band = torch.arange(self.bands, device=device)

        def at(line: Tensor, column: Tensor) -> Tensor:
            index = self.first[chosen, None, None] + (line * width + column) * self.bands
            return self.pixels[index[..., None] + band].float()

        upper, lower = (torch.lerp(at(line, columns[0]), at(line, columns[1]), across) for line in lines)
        return torch.lerp(upper, lower, down).permute(0, 3, 1, 2)
