"""The subject of an acceptance run, and the verdict of a check."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spatialnet_edge.bundle.manifest import EngineRecord
from spatialnet_edge.bundle.reader import Bundle
from spatialnet_edge.engines.registry import LoadedEngine, load_backend, open_engine
from spatialnet_edge.engines.tensorrt_plans import PlanBackend
from spatialnet_optimize.evaluation.metrics import decode_images
from spatialnet_training.data.labelled_dataset import LabelledImages

MOST_IMAGES = 1000


class Outcome(str, Enum):
    PASS = "pass"
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One line of the acceptance run.

    Attributes:
        figures: all measurements.
    """

    check: str
    outcome: Outcome
    found: str
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass
class AcceptanceRun:
    """The bundle under test, and the sizes of the checks."""

    bundle: Bundle
    labelled: LabelledImages
    soak_s: float
    runs: int
    opens: int

    @cached_property
    def images(self) -> NDArray[np.uint8]:
        few = replace(self.labelled, files=self.labelled.files[:MOST_IMAGES])
        return decode_images(few, self.bundle.spec.input).images

    @contextmanager
    def engine(self) -> Iterator[LoadedEngine]:
        loaded = open_engine(self.bundle)
        try:
            yield loaded
        finally:
            loaded.engine.close()

    def plan(self) -> tuple[PlanBackend, EngineRecord, bytes, bytes | None] | None:
        """The backend, record, content and weights of the bundle's plan for this device; None if no plan runs."""
        for record in self.bundle.manifest.engines:
            backend = load_backend(record.backend) if record.backend.startswith("tensorrt") else None
            if isinstance(backend, PlanBackend) and not backend.refuses(record):
                weights = self.bundle.read(record.weights) if record.weights else None
                return backend, record, self.bundle.read(record.path), weights
        return None
