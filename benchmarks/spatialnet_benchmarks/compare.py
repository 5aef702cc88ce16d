"""Compare two results of `bench`: the ratio of medians with a bootstrap interval, and a verdict."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from spatialnet_edge.core.errors import DataRefused

CONFIDENCE = 0.95
RESAMPLES = 2000
DRIFT = 0.05
"""Two equal consecutive runs may differ by this share, because a computer's speed changes."""
SERIES = {"engine": "engine alone, ms", "paced": "from due to result, ms", "end_to_end": "between results at full speed, ms"}
MUST_AGREE = ("device", "machine", "power_mode", "clock_governor")


@dataclass(frozen=True, slots=True)
class Comparison:
    """One series of two results.

    Attributes:
        ratio: median of b over median of a; low, high: its interval.
    """

    what: str
    a_ms: float
    b_ms: float
    ratio: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        if self.high < 1 - DRIFT:
            return f"b is faster, by at least {1 - self.high:.0%}"
        if self.low > 1 + DRIFT:
            return f"b is slower, by at least {self.low - 1:.0%}"
        return f"no difference beyond {DRIFT:.0%}"


def read_result(path: Path) -> dict[str, Any]:
    """Read a file of `bench --json`.

    Raises:
        DataRefused: it is not such a file.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict) or not all(isinstance(record.get(key), dict) for key in ("samples", "environment")):
            raise ValueError("it has no samples or no environment")
    except (OSError, ValueError) as error:
        raise DataRefused(f"{path}: not a result of 'spatialnet-edge bench --json': {error}") from error
    return record


def compare(a: dict[str, Any], b: dict[str, Any]) -> tuple[list[Comparison], list[str]]:
    """Compare every series with two samples or more in both results. Also returns the differences of the environments."""
    found = [
        compare_series(title, np.array(a["samples"][name]), np.array(b["samples"][name]))
        for name, title in SERIES.items()
        if all(len(each["samples"].get(name, ())) > 1 for each in (a, b))
    ]
    differing = [
        f"{key} differs: {first} and {second}"
        for key in MUST_AGREE
        if (first := a["environment"].get(key)) != (second := b["environment"].get(key))
    ]
    return found, differing


def compare_series(what: str, a: np.ndarray, b: np.ndarray) -> Comparison:
    """Percentile bootstrap of the ratio of medians (Efron and Tibshirani 1993, chapter 13), by SciPy."""

    def ratio(first: np.ndarray, second: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.median(second, axis=axis) / np.median(first, axis=axis)

    found = stats.bootstrap(
        (a, b), ratio, n_resamples=RESAMPLES, confidence_level=CONFIDENCE, method="percentile", rng=np.random.default_rng(0)
    )
    interval = found.confidence_interval
    whole = float(ratio(a, b))
    return Comparison(what, float(np.median(a)), float(np.median(b)), whole, float(interval.low), float(interval.high))
