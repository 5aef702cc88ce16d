"""Is this still the model that was shipped? The golden self-test answers on probabilities, not on files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.backends import Engine
from spatialnet_edge.bundle import Bundle
from spatialnet_edge.errors import GoldenTestFailed
from spatialnet_edge.results import Probabilities, difference
from spatialnet_edge.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class GoldenTest:
    """The largest difference over all golden frames (see `results.difference`), and the task it was in."""

    difference: float
    task: str
    tolerance: float
    frames: int

    @property
    def passed(self) -> bool:
        return self.difference <= self.tolerance


def golden_test(bundle: Bundle, engine: Engine) -> GoldenTest:
    """Run the golden frames through the engine and compare with what the FP32 reference answered."""
    frames, expected = bundle.golden()
    worst, where = 0.0, ""
    for index, frame in enumerate(frames):
        for name, found in differences(bundle.spec, engine, frame, expected, index):
            if found >= worst:
                worst, where = found, name
    return GoldenTest(worst, where, bundle.manifest.golden.tolerance, len(frames))


def differences(
    spec: ModelSpec, engine: Engine, frame: NDArray[np.uint8], expected: Probabilities, index: int
) -> Iterator[tuple[str, float]]:
    """Ask one golden frame, uint8 `[H, W, C]`: each task with its difference from row `index` of what is expected."""
    outputs = engine.infer(frame[None])
    for task in spec.tasks:
        yield task.name, difference(task, outputs[task.name][0], expected[task.name][index])


def require_golden(bundle: Bundle, engine: Engine) -> GoldenTest:
    """As `golden_test`, and refuse on failure.

    Raises:
        GoldenTestFailed: the engine does not reproduce the reference.
    """
    test = golden_test(bundle, engine)
    if not test.passed:
        raise GoldenTestFailed(
            f"{bundle.path}: golden test failed: '{test.task}' differs by {test.difference:.4f}; "
            f"allowed {test.tolerance:.4f}; the engine does not compute this model; rebuild the bundle"
        )
    return test
