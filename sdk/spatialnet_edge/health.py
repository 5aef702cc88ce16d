"""Is this still the model that was shipped? The golden self-test answers on probabilities, not on files."""

from __future__ import annotations

from dataclasses import dataclass

from spatialnet_edge.backends import Engine
from spatialnet_edge.bundle import Bundle
from spatialnet_edge.errors import GoldenTestFailed
from spatialnet_edge.results import difference


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
        outputs = engine.infer(frame[None])
        for task in bundle.spec.tasks:
            found = difference(task, outputs[task.name][0], expected[task.name][index])
            if found >= worst:
                worst, where = found, task.name
    return GoldenTest(worst, where, bundle.manifest.golden.tolerance, len(frames))


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
