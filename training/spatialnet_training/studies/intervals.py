"""Intervals of 95 % for accuracies on few images and few seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with the bounds of its 95 % interval, each as a share of 1. A single scene or seed has none: infinite bounds."""

    mean: float
    low: float = -np.inf
    high: float = np.inf

    @property
    def known(self) -> bool:
        return bool(np.isfinite([self.low, self.high]).all())

    def __str__(self) -> str:
        return f"{100 * self.mean:.1f} %" + (f" ({100 * self.low:.1f} to {100 * self.high:.1f})" if self.known else "")


def points(difference: Interval) -> str:
    """A difference of two shares in percentage points, with its interval."""
    bounds = f" ({100 * difference.low:+.1f} to {100 * difference.high:+.1f})" if difference.known else ""
    return f"{100 * difference.mean:+.1f}{bounds}"


def over_images(right: NDArray[np.bool_] | NDArray[np.float64], scenes: Sequence[str] = ()) -> Interval:
    """The mean over seeds and images, with a percentile bootstrap interval (Efron and Tibshirani 1993, section 13.3).

    Images are drawn, or whole scenes: tiles of one scene are alike, so an interval over tiles would be too narrow (cluster
    bootstrap; Davison and Hinkley 1997, section 3.8). Seeds are not resampled, because there are too few; their figures are
    listed next to the interval.

    Args:
        right: `[seeds, images]`, or the difference of two such arrays; at least one image.
        scenes: the scene of each image; empty: images are independent. One scene alone gives no interval.
    """
    from scipy.stats import bootstrap

    each = np.asarray(right, np.float64).mean(axis=0)
    _, scene_of_image = np.unique(scenes or range(len(each)), return_inverse=True)
    sums, counts = np.bincount(scene_of_image, each), np.bincount(scene_of_image).astype(np.float64)
    if len(sums) < 2:
        return Interval(float(each.mean()))
    found = bootstrap(
        (sums, counts),
        mean_of_images,
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Interval(float(each.mean()), float(found.low), float(found.high))


def mean_of_images(sums: NDArray[np.float64], counts: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
    """The mean over all images of some scenes, from each scene's sum and number of images."""
    return sums.sum(axis=axis) / counts.sum(axis=axis)


def over_seeds(values: NDArray[np.float64]) -> Interval:
    """The mean of one figure per seed, with Student's interval; infinite for one seed.

    Args:
        values: `[seeds]`.
    """
    mean = float(values.mean())
    if len(values) < 2:
        return Interval(mean)
    from scipy.stats import t

    half = float(t.ppf((1 + LEVEL) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return Interval(mean, mean - half, mean + half)
