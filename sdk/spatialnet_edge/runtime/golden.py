"""The golden test: does the engine still reproduce the reference outputs? It compares probabilities, not files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.bundle.reader import Bundle
from spatialnet_edge.core.errors import GoldenTestFailed
from spatialnet_edge.core.predictions import Probabilities, difference
from spatialnet_edge.core.spec import ModelSpec
from spatialnet_edge.engines.registry import Engine


@dataclass(frozen=True, slots=True)
class GoldenTest:
    """Result of a golden test: the largest difference over all golden frames (see `results.difference`), and its head."""

    difference: float
    head: str
    tolerance: float
    frames: int

    @property
    def passed(self) -> bool:
        return self.difference <= self.tolerance


@dataclass(frozen=True, slots=True, eq=False)
class GoldenVectors:
    """A bundle's golden frames and outputs, kept in memory, because the disk may not be readable later.

    Attributes:
        path: of the bundle.
        frames: uint8 `[N, H, W, C]`.
        expected: outputs of the FP32 reference, float32 `[N, width]` per head.
        tolerance: the largest allowed difference.
        bundle: short hash of the bundle.
    """

    path: Path
    spec: ModelSpec
    frames: NDArray[np.uint8]
    expected: Probabilities
    tolerance: float
    bundle: str | None = None

    def __len__(self) -> int:
        return len(self.frames)

    def ask(self, engine: Engine, index: int) -> dict[str, float]:
        """Run one golden frame through an engine. Returns the difference from the expected output per head."""
        outputs = engine.infer(self.frames[index][None])
        return {
            head.name: difference(head, outputs[head.name][0], self.expected[head.name][index]) for head in self.spec.outputs
        }

    def test(self, engine: Engine) -> GoldenTest:
        """Run all golden frames."""
        found = [(value, head) for index in range(len(self)) for head, value in self.ask(engine, index).items()]
        worst, where = max(found)
        return GoldenTest(worst, where, self.tolerance, len(self))

    def require(self, engine: Engine) -> GoldenTest:
        """As `test`, but raise on failure.

        Raises:
            GoldenTestFailed: the engine does not reproduce the reference.
        """
        test = self.test(engine)
        if not test.passed:
            raise GoldenTestFailed(
                f"{self.path}: golden test failed: '{test.head}' differs by {test.difference:.4f}; "
                f"allowed {test.tolerance:.4f}; the engine does not compute this model; rebuild the bundle"
            )
        return test


def golden_vectors(bundle: Bundle) -> GoldenVectors:
    """Read a bundle's golden frames and outputs.

    Raises:
        BundleError: they are damaged, or were changed after the bundle was opened.
    """
    frames, expected = bundle.golden()
    return GoldenVectors(bundle.path, bundle.spec, frames, expected, bundle.manifest.golden.tolerance, bundle.short_hash)
