"""The interface of compilers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from spatialnet_edge.bundle.manifest import EngineRecord, ExecutedLayer
from spatialnet_edge.bundle.reader import Bundle
from spatialnet_edge.core.predictions import difference
from spatialnet_edge.core.spec import ModelSpec
from spatialnet_edge.engines.registry import Engine
from spatialnet_optimize.compilers.plan_builder import PlanOptions
from spatialnet_optimize.evaluation.candidate_evaluation import Step, open_candidate
from spatialnet_optimize.evaluation.gates import NOT_RUN_ON_A_CPU, Decision, Measured
from spatialnet_optimize.evaluation.metrics import predict
from spatialnet_optimize.quantization.scheme import Scheme


class Measure(Protocol):
    """Function that measures accuracy, agreement, golden difference and latency of open engines."""

    def __call__(self, engines: Mapping[str, Engine], files: Mapping[str, bytes], timed: bool = True) -> Sequence[Measured]:
        """`engines`: the FP32 reference first; `files`: for their sizes; `timed`: whether latency is measured, otherwise it is
        0."""
        ...


@dataclass(frozen=True, slots=True)
class CompileRequest:
    """What to compile, and how to evaluate the results.

    Attributes:
        variants: name to graph, the FP32 reference first.
        model: the bundle with the golden frames.
        spec: of the graphs; may have fewer heads than the model.
        budget: percentage points of accuracy that a variant may lose.
        measure: evaluates open engines.
        step: called with one line of text for each step.
        prepared: whether the variants passed the gates on the computer that prepared the bundle.
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
    """Result of a compiler.

    Attributes:
        files: engine files for the bundle, in order of preference.
        libraries: name to version of the libraries used.
        layers: of the chosen plan, as executed on this device; empty if nothing ran on a device.
    """

    decision: Decision
    files: Mapping[EngineRecord, bytes]
    libraries: dict[str, str]
    layers: tuple[ExecutedLayer, ...] = ()
    notes: tuple[str, ...] = field(default=())
    """Warnings about the result, one line each."""


class Compiler(Protocol):
    """Makes engines for one kind of target.

    Attributes:
        scheme: INT8 layout of its input graphs.
        finishes_prepared: whether it compiles the graphs of a prepared bundle, so that no variants need to be made.
    """

    @property
    def scheme(self) -> Scheme: ...

    @property
    def finishes_prepared(self) -> bool: ...

    def check(self, options: PlanOptions) -> None:
        """Refuse options that this compiler would ignore, before any work.

        Raises:
            UsageError: with the options, and where to give them.
        """
        ...

    def compile(self, request: CompileRequest) -> Compiled:
        """Compile the variants, evaluate them, and choose one.

        Raises:
            BuildError: the FP32 reference does not reproduce the golden frames, or does not compile.
        """
        ...


def simulate(request: CompileRequest, here: bool) -> Sequence[Measured]:
    """Evaluate the variants that ONNX Runtime can run on this computer's CPU.

    Args:
        here: this CPU is the target; see `open_candidate`. Latency is measured only then.
    """
    runnable = {name: graph for name, graph in request.variants.items() if name not in NOT_RUN_ON_A_CPU}
    engines = {name: open_candidate(graph, request.spec, here) for name, graph in runnable.items()}
    try:
        return request.measure(engines, runnable, here)
    finally:
        for engine in engines.values():
            engine.close()


def golden_difference(engine: Engine, request: CompileRequest) -> float:
    """The largest difference of a probability from the golden outputs."""
    frames, expected = request.model.golden()
    answers = predict(engine, frames)
    return max(float(np.max(difference(head, answers[head.name], expected[head.name]))) for head in request.spec.outputs)
