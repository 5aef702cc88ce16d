"""Output monitor: detects a broken engine by repeated invalid outputs, or by outputs that never change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from spatialnet_edge.core.errors import InvalidOutput
from spatialnet_edge.core.frames import Frame
from spatialnet_edge.core.predictions import Probabilities
from spatialnet_edge.runtime.tiling import TileOutput

MAX_INVALID_IN_A_ROW = 3
"""One invalid output may be caused by a bad frame; three in a row mean a broken engine."""
MAX_CONSTANT = 10
"""Identical outputs for different pictures mean a broken engine or a very uniform scene. The golden test distinguishes them."""


@dataclass(frozen=True, slots=True)
class Inferred:
    """The engine's output for one frame: one row per head, or the reason why there is none.

    Attributes:
        checksum: of a sample of the engine's input pixels.
        absent: the model's band groups that the frame lacks, and single bands of the others.
        tiles: what it gave for each part that the frame was cut into; empty for a frame that it saw as a whole.
    """

    frame: Frame
    rows: Probabilities
    quality: tuple[str, ...]
    engine_ms: float
    checksum: int = 0
    invalid: InvalidOutput | None = None
    absent: tuple[str, ...] = ()
    tiles: tuple[TileOutput, ...] = ()


@final
class OutputMonitor:
    """Detects suspicious outputs; see the module.

    Attributes:
        alert: why the engine must be tested now; empty if it need not be. Each suspicion is reported once.
    """

    def __init__(self) -> None:
        self.alert = ""
        self._invalid = self._same = 0
        self._last: Inferred | None = None

    def observe(self, inferred: Inferred) -> bool:
        """Record an output; returns whether it is invalid."""
        self.alert = ""
        if inferred.invalid is not None:
            self._invalid += 1
            if self._invalid == MAX_INVALID_IN_A_ROW:
                self.alert = f"{self._invalid} invalid outputs in a row; the last: {inferred.invalid}"
                self._invalid = 0
            return True
        self._invalid = 0
        before, self._last = self._last, inferred
        if before is not None and before.checksum != inferred.checksum and not inferred.quality:
            same = all(np.array_equal(row, before.rows[name]) for name, row in inferred.rows.items())
            self._same = self._same + 1 if same else 0
            if same and self._same == MAX_CONSTANT:
                self.alert = f"identical outputs, bit for bit, for {self._same + 1} different frames"
        return False
