"""What every compiler takes and gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from spatialnet_edge.bundle.manifest import EngineRecord, ExecutedLayer
from spatialnet_edge.bundle.reader import Bundle
from spatialnet_edge.core.results import difference
from spatialnet_edge.core.spec import ModelSpec
from spatialnet_edge.engines.registry import Engine
from spatialnet_optimize.compilers.plan_builder import PlanOptions
from spatialnet_optimize.evaluation.candidate_evaluation import Step, open_candidate
from spatialnet_optimize.evaluation.gates import NOT_RUN_ON_A_CPU, Decision, Measured
from spatialnet_optimize.evaluation.metrics import predict
from spatialnet_optimize.quantization.scheme import Scheme


class Measure(Protocol):
    """Measures accuracy, agreement, golden difference and latency of open engines."""

    def __call__(self, engines: Mapping[str, Engine], files: Mapping[str, bytes], timed: bool = True) -> Sequence[Measured]:
        """`engines`: the FP32 reference first; `files`: for their sizes; `timed`: whether latency is read, else it stays 0."""
        ...


@dataclass(frozen=True, slots=True)
class CompileRequest:
    """What to compile, and how the results are judged.

    Attributes:
        variants: name to graph, the FP32 reference first.
        model: whose golden vectors the engines must reproduce.
        spec: of the graphs; fewer heads than the model's if some were left out.
        budget: points of accuracy that a candidate may lose.
        measure: judges engines that are open.
        step: called with one line of text for each step.
        prepared: the variants passed the gates on the computer that prepared the bundle.
    """

    variants: Mapping[str, bytes]
    model: Bundle
    spec: ModelSpec
    budget: float
    measure: Measure
    step: Step
    prepared: bool = False


@dataclass(frozen=True, slots=True)
class Compiled:
    """What a compiler made.

    Attributes:
        files: that go into the bundle beside the portable graph, in order of preference.
        libraries: name to version of the libraries that took part.
        layers: of the chosen plan, as this device runs them; empty where nothing ran on a device.
    """

    decision: Decision
    files: Mapping[EngineRecord, bytes]
    libraries: dict[str, str]
    layers: tuple[ExecutedLayer, ...] = ()
    notes: tuple[str, ...] = field(default=())
    """What the user should know of the result, a line each."""


class Compiler(Protocol):
    """Makes engines for one kind of target.

    Attributes:
        scheme: how INT8 is laid out in the graphs that it takes.
        finishes_prepared: whether it compiles the graphs that a bundle brings for its device, so that none need be made here.
    """

    @property
    def scheme(self) -> Scheme: ...

    @property
    def finishes_prepared(self) -> bool: ...

    def check(self, options: PlanOptions) -> None:
        """Refuse options that this compiler would ignore, before any work.

        Raises:
            UsageError: which options, and where they belong.
        """
        ...

    def compile(self, request: CompileRequest) -> Compiled:
        """Make engines of the variants, judge them, and choose.

        Raises:
            BuildError: the FP32 reference does not reproduce the golden vectors, or does not compile.
        """
        ...


def simulate(request: CompileRequest, timed: bool) -> Sequence[Measured]:
    """Judge the variants that ONNX Runtime can run on this computer's CPU; their latency only where it is that of the target."""
    runnable = {name: graph for name, graph in request.variants.items() if name not in NOT_RUN_ON_A_CPU}
    engines = {name: open_candidate(name, graph, request.spec) for name, graph in runnable.items()}
    try:
        return request.measure(engines, runnable, timed)
    finally:
        for engine in engines.values():
            engine.close()


def golden_difference(engine: Engine, request: CompileRequest) -> float:
    """The largest difference of a probability from the golden answers."""
    frames, expected = request.model.golden()
    answers = predict(engine, frames)
    return max(float(np.max(difference(head, answers[head.name], expected[head.name]))) for head in request.spec.outputs)
