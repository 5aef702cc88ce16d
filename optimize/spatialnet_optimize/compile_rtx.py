"""A real plan from NVIDIA's TensorRT for RTX, whose builder needs no GPU.

Networks are strongly typed: what precision runs where stands in the graph, and the builder cannot change it silently.
"""

from __future__ import annotations

from typing import Any

from spatialnet_edge.errors import BuildError, MissingExtra


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
