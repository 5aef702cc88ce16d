"""Temporal smoothing of probabilities."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.core.predictions import Probabilities
from spatialnet_edge.core.spec import KNOWN


class Smoother:
    """Exponential averaging of the probabilities over time, before decoding.

    With half-life h, a frame dt seconds old has the weight `2 ** (-dt / h)`. After a gap longer than `reset_after_s` the
    average starts anew.

    Args:
        half_life_s: seconds; 0 switches smoothing off.
        reset_after_s: seconds.
    """

    def __init__(self, half_life_s: float = 0.0, reset_after_s: float = 2.0) -> None:
        self.half_life_s = half_life_s
        self.reset_after_s = reset_after_s
        self._state: dict[str, NDArray[np.float32]] = {}
        self._seconds = 0.0

    def update(self, probabilities: Probabilities, seconds: float) -> Probabilities:
        """The smoothed rows. `known` is not smoothed.

        Args:
            probabilities: of a frame that gets a label; other frames must not enter the average (see `no_label_reason`).
            seconds: time of the frame on any steady scale.
        """
        if self.half_life_s <= 0:
            return probabilities
        elapsed = seconds - self._seconds
        if not 0 <= elapsed <= self.reset_after_s:  # a recording's time can also jump back
            self._state, elapsed = {}, 0.0
        keep = np.float32(0.5 ** (elapsed / self.half_life_s))
        self._state = {
            name: self._state[name] * keep + row * (1 - keep) if name in self._state else np.array(row)
            for name, row in probabilities.items()
            if name != KNOWN
        }
        self._seconds = seconds
        return self._state | ({KNOWN: probabilities[KNOWN]} if KNOWN in probabilities else {})
