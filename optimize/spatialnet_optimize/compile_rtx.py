"""A real plan from NVIDIA's TensorRT for RTX, whose builder needs no GPU.

Networks are strongly typed: what precision runs where stands in the graph, and the builder cannot change it silently.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from spatialnet_edge.errors import BuildError, MissingExtra
from spatialnet_edge.manifest import CandidateRecord, EngineRecord
from spatialnet_edge.spec import ModelSpec
from spatialnet_optimize.gates import Decision, Measured, record, refusal


def load_tensorrt_rtx() -> Any:
    """The library's module.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import tensorrt_rtx
    except ModuleNotFoundError as error:
        if error.name != "tensorrt_rtx":
            raise
        raise MissingExtra("tensorrt_rtx", "rtx") from error
    return tensorrt_rtx


def compile_plan(content: bytes, height: int, width: int, channels: int) -> tuple[bytes, str]:
    """Parse a graph and build a plan for batch 1.

    Returns:
        The serialised plan, and the library's version, which is the only one that can load it.

    Raises:
        BuildError: the parser or the builder refuses; the message names the node.
    """
    trt = load_tensorrt_rtx()
    logger = _quiet_logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(content):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        first = errors[0]
        raise BuildError(
            f"TensorRT for RTX {trt.__version__} refuses the graph at node {first.node()} "
            f"'{first.node_name()}' ({first.node_operator()}): {first.desc()}"
        )
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    image = network.get_input(0)
    shape = (1, height, width, channels)
    profile.set_shape(image.name, shape, shape, shape)
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BuildError(f"TensorRT for RTX {trt.__version__} could not build the network: {logger.last or 'no reason given'}")
    return bytes(plan), str(trt.__version__)


PREFERRED = ("fp16", "fp32")
"""Without a GPU nothing can be timed. FP16 is what RTX GPUs are made for; INT8 need not be faster for a transformer (TensorRT
issues 3186 and 4273), so it is compiled and reported, and chosen only where it was timed."""


def compile_passing(
    contents: Mapping[str, bytes], measured: Sequence[Measured], spec: ModelSpec, budget: float
) -> tuple[Decision, dict[EngineRecord, bytes], str]:
    """Compile every form; the bundle gets the most promising one that passed the gates, simulated by ONNX Runtime.

    Args:
        contents: form to graph; what is not among `measured` could not be judged without the device.
        measured: the FP32 reference first.

    Returns:
        The decision, the plan that goes into the bundle, and the library's version.
    """
    reference = measured[0]
    verdicts = {each.name: refusal(each, reference, budget) for each in measured}
    plans = {form: compile_plan(content, *spec.input.shape) for form, content in contents.items()}
    chosen = next(form for form in PREFERRED if form in plans and not verdicts.get(form, "not judged"))
    plan, version = plans[chosen]
    library = f"TensorRT for RTX {version}"
    simulated = {each.name: each for each in measured}
    records: list[CandidateRecord] = []
    for form, (content, _) in plans.items():
        unseen = Measured(form, content, {}, 0.0, 0.0, 0.0, 0.0, runs_here=False)
        each = replace(simulated.get(form, unseen), content=content, p50_ms=0.0, p99_ms=0.0)
        passed = f"compiled with {library}; accuracy simulated by ONNX Runtime; not timed: no GPU was used"
        unjudged = f"compiled with {library}; not judged: ONNX Runtime has no CPU kernels for it"
        verdict = verdicts.get(form, unjudged) or (f"chosen: {passed}" if form == chosen else passed)
        records.append(record(each, reference, form == chosen, verdict))
    reason = f"{chosen} is the most precise of the fast forms that keeps its accuracy; nothing was timed on a GPU"
    engine = EngineRecord(
        path=f"engines/rtx.{chosen}.plan",
        backend="tensorrt_rtx",
        precision=chosen,
        device="any RTX GPU",
        library_version=version,
        portable=False,
    )
    return Decision(simulated[chosen], reason, tuple(records)), {engine: plan}, version


def _quiet_logger(trt: Any) -> Any:
    class LastError(trt.ILogger):  # type: ignore[misc, name-defined]
        """Keeps the last error instead of printing everything."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last = ""

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.last = message

    return LastError()
