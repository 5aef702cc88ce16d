"""INT8 layouts of a graph. A separate module, because a compiling device does not have onnx."""

from __future__ import annotations

from typing import Literal

Scheme = Literal["cpu", "tensorrt"]
"""`cpu`: for ONNX Runtime's kernels. `tensorrt`: explicit Q/DQ for NVIDIA's parsers."""
