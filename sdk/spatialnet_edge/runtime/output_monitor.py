"""Watches an engine's answers for what no working engine does: breaking the contract again and again, or never changing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from spatialnet_edge.core.errors import InvalidOutput
from spatialnet_edge.core.frames import Frame
from spatialnet_edge.core.results import Probabilities

MAX_INVALID_IN_A_ROW = 3
"""One invalid answer may be a bad frame; three are a broken engine."""
MAX_CONSTANT = 10
"""Different pictures with the same answer to the last bit: a dead engine, or a very uniform scene. A golden test tells which."""


@dataclass(frozen=True, slots=True)
class Inferred:
    """What the engine gave for one frame: one row for each head, or why there is none.

    Attributes:
        checksum: of a sample of the pixels that the engine saw.
    """

    frame: Frame
    rows: Probabilities
    quality: tuple[str, ...]
    engine_ms: float
    checksum: int = 0
    invalid: InvalidOutput | None = None


@final
class OutputMonitor:
    """See the module.

    Attributes:
        alert: why the engine has to be tested now; empty when it need not be. The same suspicion is raised once.
    """

    def __init__(self) -> None:
        self.alert = ""
        self._invalid = self._same = 0
        self._last: Inferred | None = None

    def observe(self, inferred: Inferred) -> bool:
        """Take notice of an answer; returns whether it is invalid."""
        self.alert = ""
        if inferred.invalid is not None:
            self._invalid += 1
            if self._invalid == MAX_INVALID_IN_A_ROW:
                self.alert = f"{self._invalid} invalid answers in a row; the last: {inferred.invalid}"
                self._invalid = 0
            return True
        self._invalid = 0
        before, self._last = self._last, inferred
        if before is not None and before.checksum != inferred.checksum and not inferred.quality:
            same = all(np.array_equal(row, before.rows[name]) for name, row in inferred.rows.items())
            self._same = self._same + 1 if same else 0
            if same and self._same == MAX_CONSTANT:
                self.alert = f"the same answer, to the last bit, for {self._same + 1} different frames"
        return False
