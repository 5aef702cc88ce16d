"""How INT8 is laid out in a graph; apart, since a device that compiles has no onnx."""

from __future__ import annotations

from typing import Literal

Scheme = Literal["cpu", "tensorrt"]
"""`cpu`: as ONNX Runtime's kernels want it. `tensorrt`: explicit Q/DQ as NVIDIA's parsers want it."""
